"""What the end of a prompt means for its task: pure functions from ComfyUI's answers to our errors."""

from __future__ import annotations

from typing import Any

from agent.errors import (
    AgentError,
    EngineLostPrompt,
    EngineStalled,
    GpuBroken,
    NodeFailed,
    OutOfMemory,
    PromptInterrupted,
    UnknownNodeClass,
    WorkflowRejected,
)
from comfyui.errors import PromptRejectedError
from comfyui.events import PromptFailed
from comfyui.execution import Ended, Result
from comfyui.workflow import Workflow

#: Classes that PyTorch and ComfyUI raise when memory is short.
OUT_OF_MEMORY = ("torch.OutOfMemoryError", "torch.cuda.OutOfMemoryError", "OutOfMemoryError", "MemoryError")

#: Newer PyTorch gives a failed GPU a class of its own; older versions raise a RuntimeError with this text, and
#: everything that runs in the same process afterwards fails the same way.
GPU_ERRORS = ("torch.AcceleratorError", "AcceleratorError")
BROKEN_GPU = "CUDA error:"

#: Stack lines kept of a node's exception: the last ones, where it happened.
TRACEBACK_LINES = 12


def failure_of(ended: Ended, workflow: Workflow) -> AgentError | None:
    """The error that an ended prompt comes to; None for a success."""
    match ended.result:
        case Result.SUCCEEDED:
            return None
        case Result.LOST:
            return EngineLostPrompt()
        case Result.STALLED:
            return EngineStalled()
        case Result.INTERRUPTED:
            return PromptInterrupted()
        case Result.FAILED:
            error = ended.error
            return _node_failure(error, workflow) if isinstance(error, PromptFailed) else NodeFailed()


def rejection_of(refused: PromptRejectedError, workflow: Workflow) -> AgentError:
    """Say in a sentence why ComfyUI refused, and pass its own objects on whole."""
    if refused.type in ("invalid_prompt", "missing_node_type") and not refused.node_errors:
        return UnknownNodeClass(_join(str(refused), refused.error.get("details")), comfyui=refused.error)
    node_id = next(iter(refused.node_errors), None)
    problems = [
        f'node "{node}" ({workflow.title(node)}): {_join(e.get("message"), e.get("details"))}'
        for node, found in refused.node_errors.items()
        for e in found.get("errors", ())
    ]
    detail = "; ".join(problems[:5]) or _join(str(refused), refused.error.get("details"))
    return WorkflowRejected(
        f"ComfyUI refused the workflow: {detail}.",
        node_id=node_id,
        node_title=workflow.title(node_id) if node_id else None,
        node_errors=refused.node_errors,
        comfyui=refused.error,
    )


def warnings_of(node_errors: dict[str, Any], workflow: Workflow) -> list[dict[str, Any]]:
    """Branches that ComfyUI dropped although it accepted the rest of the workflow."""
    return [
        {
            "code": "NodeRejected",
            "detail": f'ComfyUI left out what depends on node "{node_id}" ({workflow.title(node_id)}): '
            + "; ".join(_join(e.get("message"), e.get("details")) for e in found.get("errors", ())),
            "node_id": node_id,
            "dependent_outputs": found.get("dependent_outputs", []),
            "errors": found.get("errors", []),
        }
        for node_id, found in node_errors.items()
    ]


def blocked_warning(event: PromptFailed, workflow: Workflow) -> dict[str, Any]:
    """A node that withheld its output with a message."""
    return {
        "code": "OutputBlocked",
        "detail": f'Node "{event.node}" ({workflow.title(event.node)}) gave no output: {event.message}',
        "node_id": event.node,
    }


def _node_failure(event: PromptFailed, workflow: Workflow) -> AgentError:
    kind: type[AgentError] = NodeFailed
    if event.exception_type in OUT_OF_MEMORY:
        kind = OutOfMemory
    elif event.exception_type in GPU_ERRORS or _says_gpu_error(event):
        kind = GpuBroken
    title = workflow.title(event.node)
    return kind(
        f'Node "{event.node}" ({title}) failed: {event.exception_type}: {event.message}',
        node_id=event.node,
        node_class=event.node_class,
        node_title=title,
        exception_type=event.exception_type,
        exception_message=event.message,
        traceback=list(event.traceback[-TRACEBACK_LINES:]),
    )


def _says_gpu_error(event: PromptFailed) -> bool:
    """Only PyTorch's own form counts: a caller's text may stand inside many other messages."""
    return event.exception_type == "RuntimeError" and event.message.startswith(BROKEN_GPU)


def _join(message: Any, details: Any) -> str:
    return ": ".join(str(part) for part in (message, details) if part)
