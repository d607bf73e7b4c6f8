"""What ComfyUI would send over its WebSocket, made from the events of a task. Pure functions.

The forms are those of ComfyUI 0.3.45 and later; recordings lie in tests/golden.
"""

from __future__ import annotations

import struct
import time
from typing import Any

from pydantic_core import to_json

from agent.tasks.record import State, TaskRecord
from comfyui.events import (
    Event,
    NodeAdvanced,
    NodeExecuted,
    NodesCached,
    NodesReported,
    NodeStarted,
    PreviewImage,
    PromptStarted,
)

Message = str | bytes

#: Types of binary messages, and the numbers that the plain one has for formats.
PREVIEW, PREVIEW_WITH_METADATA = 1, 4
FORMATS = {"image/jpeg": 1, "image/png": 2}


def text(kind: str, data: dict[str, Any]) -> str:
    """One text message."""
    return to_json({"type": kind, "data": data}, inf_nan_mode="null").decode()


def status(remaining: int, client_id: str | None = None) -> str:
    """How many prompts wait or run; a socket's first message also names its client."""
    named = {"sid": client_id} if client_id is not None else {}
    return text("status", {"status": {"exec_info": {"queue_remaining": remaining}}, **named})


def of_event(event: Event, prompt_id: str) -> str | None:
    """The message of an event before the end; None for those that have none of their own."""
    of = {"prompt_id": prompt_id}
    match event:
        case PromptStarted():
            return text("execution_start", {**of, "timestamp": _now()})
        case NodesCached(nodes=nodes):
            return text("execution_cached", {"nodes": nodes, **of, "timestamp": _now()})
        case NodeStarted(node=node, display_node=shown):
            return text("executing", {"node": node, "display_node": shown, **of})
        case NodeAdvanced(node=node, value=value, max=maximum):
            return text("progress", {"value": value, "max": maximum, **of, "node": node})
        case NodesReported(nodes=nodes):
            states = {
                node: {
                    "value": state.value,
                    "max": state.max,
                    "state": "finished" if state.finished else "running",
                    "node_id": node,
                    **of,
                    "display_node_id": state.display_node,
                    "parent_node_id": None,
                    "real_node_id": node,
                }
                for node, state in nodes.items()
            }
            return text("progress_state", {**of, "nodes": states})
        case NodeExecuted(node=node, display_node=shown, output=output):
            return text("executed", {"node": node, "display_node": shown, "output": output, **of})
        case _:
            return None


def of_preview(event: PreviewImage, prompt_id: str, *, with_metadata: bool) -> bytes:
    """A picture on its way, in the form that the client said it understands."""
    if not with_metadata or event.node is None:
        return struct.pack(">II", PREVIEW, FORMATS.get(event.media_type, 1)) + event.data
    about = to_json(
        {
            "node_id": event.node,
            "prompt_id": prompt_id,
            "display_node_id": event.node,
            "parent_node_id": None,
            "real_node_id": event.node,
            "image_type": event.media_type,
        }
    )
    return struct.pack(">II", PREVIEW_WITH_METADATA, len(about)) + about + event.data


def of_end(record: TaskRecord) -> list[str]:
    """The messages that end a prompt, of a final record. ComfyUI knows of no fault but a node's: another one is told as
    an error without a node."""
    of = {"prompt_id": record.id}
    last = text("executing", {"node": None, **of})
    if record.state is State.SUCCEEDED:
        return [text("execution_success", {**of, "timestamp": end_time(record)}), last]
    return [text(*end_status(record)), last]


def end_status(record: TaskRecord) -> tuple[str, dict[str, Any]]:
    """Name and content of the message that says why a prompt has no result."""
    error = record.error or {}
    node = record.current_node
    where = {
        "prompt_id": record.id,
        "node_id": error.get("node_id") or (node.id if node else ""),
        "node_type": error.get("node_class") or (node.class_type if node else ""),
        "executed": [
            node_id for node_id, seen in record.nodes.items() if seen.max and seen.value >= seen.max
        ],
        "timestamp": end_time(record),
    }
    if record.state is State.CANCELLED:
        return "execution_interrupted", where
    told: dict[str, Any] = {
        "exception_message": error.get("exception_message") or error.get("detail") or "",
        "exception_type": error.get("exception_type") or error.get("code") or "",
        "traceback": error.get("traceback") or [],
        "current_inputs": {},
        "current_outputs": [],
    }
    return "execution_error", {**where, **told}


def end_time(record: TaskRecord) -> int:
    """When the task was over, in milliseconds since the epoch; of one that is not, now."""
    return _now() if record.finished_at is None else int(record.finished_at * 1000)


def _now() -> int:
    """Milliseconds since the epoch, as ComfyUI's timestamps are."""
    return int(time.time() * 1000)
