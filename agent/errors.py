"""The one list of things that can go wrong, each with a code, an HTTP status and a remedy.

The docstring of a class is its default sentence for the caller. Whoever raises one can give a better sentence
and named facts (`node_id`, `url`, `limit`, ...), which travel in the answer's `error` object. The class name is
the stable code. `transient` tells whether the same task may succeed when it is tried again.
"""

from __future__ import annotations

import inspect
from typing import Any, ClassVar, Self


class AgentError(Exception):
    """Something went wrong inside the agent. Its log has the details."""

    code: ClassVar[str] = "InternalError"
    status: ClassVar[int] = 500
    transient: bool = False
    #: Seconds after which another try makes sense; sent as Retry-After.
    default_retry_after: ClassVar[int | None] = None
    by_code: ClassVar[dict[str, type[AgentError]]] = {}

    def __init_subclass__(cls) -> None:
        cls.code = cls.__name__
        AgentError.by_code[cls.code] = cls

    def __init__(self, detail: str | None = None, *, retry_after: int | None = None, **facts: Any) -> None:
        self.detail = detail or " ".join(inspect.cleandoc(type(self).__doc__ or "").split())
        self.retry_after = retry_after or self.default_retry_after
        self.task_id: str | None = None
        self.facts = {name: value for name, value in facts.items() if value is not None}
        super().__init__(self.detail)

    def to_dict(self) -> dict[str, Any]:
        """What a task record keeps: code, sentence, whether a retry may help, and the facts."""
        return {"code": self.code, "detail": self.detail, "transient": self.transient, **self.facts}

    def to_body(self, task_id: str | None = None) -> dict[str, Any]:
        """The body of every error answer (design section 4)."""
        error = {"detail": self.detail, "transient": self.transient, **self.facts}
        body: dict[str, Any] = {"message": self.code, "error": error}
        if task_id is not None:
            body["task_id"] = task_id
        return body

    @classmethod
    def from_dict(cls, stored: dict[str, Any], task_id: str | None = None) -> AgentError:
        """The error that `to_dict` wrote, so that a stored failure is answered as it first was."""
        facts = {k: v for k, v in stored.items() if k not in ("code", "detail", "transient")}
        kind = cls.by_code.get(stored["code"], AgentError)
        error = kind(stored["detail"], **facts)
        error.transient = bool(stored.get("transient"))
        error.task_id = task_id
        return error

    def with_facts(self, **facts: Any) -> Self:
        """Add facts learnt on the way up (which node, which input) and return the same error."""
        self.facts |= {name: value for name, value in facts.items() if value is not None}
        return self


class InternalError(AgentError):
    """The agent failed in a way nobody foresaw. Its log has the traceback; please report it."""


# The request.


class InvalidRequest(AgentError):
    """The request is not valid HTTP for this route."""

    status = 400


class InvalidJson(AgentError):
    """The body is not JSON. Send the workflow as application/json."""

    status = 400


class InvalidQuery(AgentError):
    """A query parameter has a wrong value."""

    status = 400


class BodyTooLarge(AgentError):
    """The request body is larger than this server accepts. Send input images as URLs."""

    status = 413


class AsyncBodyTooLarge(AgentError):
    """An asynchronous request may not be this large. Send it synchronously, or send input files as URLs."""

    status = 413


class BodyTooSlow(AgentError):
    """The request body did not arrive in time. Send input images as URLs, or try again."""

    status = 408


class NotFound(AgentError):
    """There is no such route."""

    status = 404


class MethodNotAllowed(AgentError):
    """This route does not take this method."""

    status = 405


# Who may ask.


class Unauthorized(AgentError):
    """An API key is needed: send it as X-Api-Key, or as Authorization: Bearer."""

    status = 401


class OriginNotAllowed(AgentError):
    """Pages of this origin may not call this server. AGENT_CORS_ORIGINS lists those that may."""

    status = 403


class HookNotAllowed(AgentError):
    """This route is for the platform, and for programs on this machine that have an API key where keys are set."""

    status = 403


# The workflow, and what stands beside it.


class InvalidWorkflow(AgentError):
    """The workflow is not in ComfyUI's API format. In ComfyUI choose "Workflow > Export (API)"."""

    status = 400


class WorkflowTooLarge(AgentError):
    """The workflow has more nodes than this server accepts, or more than 50 inputs for each of as many. AGENT_MAX_NODES
    is the limit."""

    status = 413


class UnknownNodeClass(AgentError):
    """The workflow uses a node class that this ComfyUI does not have. Install the custom node it comes from."""

    status = 400


class NodeNotAllowed(AgentError):
    """This server does not run nodes of this class. AGENT_NODES_ALLOW and AGENT_NODES_DENY decide."""

    status = 403


class WorkflowRejected(AgentError):
    """ComfyUI refused the workflow; `node_errors` says which node and input."""

    status = 400


class InvalidOptions(AgentError):
    """An option beside the workflow has a wrong value."""

    status = 400


# Its input files.


class InvalidInput(AgentError):
    """An input file of the workflow cannot be used."""

    status = 400


class InputNotFetched(AgentError):
    """An input URL could not be fetched. Check that it is public and answers 200."""

    status = 400


class InputForbidden(AgentError):
    """An input URL points to where this server must not reach. AGENT_FETCH_ALLOW and AGENT_INPUT_BUCKETS open more."""

    status = 400


class InputTooLarge(AgentError):
    """An input file is larger than this server accepts. Send a smaller one or raise AGENT_MAX_INPUT_BYTES."""

    status = 413


# Named workflows, and models of other APIs.


class WorkflowNotFound(AgentError):
    """There is no workflow of this name. GET /api/workflows lists them all."""

    status = 404


class InvalidParameter(AgentError):
    """A parameter of a named workflow has a wrong value, is missing, or does not exist; `parameter` names it."""

    status = 422


class InvalidManifest(AgentError):
    """The manifest of this workflow is wrong, so it cannot be run. `comfyui-agent workflow check` says where."""


class ModelNotFound(AgentError):
    """No model has this name. The built-in table (docs/compatibility.md) and AGENT_MODELS say which there are."""

    status = 404


class InvalidModel(AgentError):
    """The table of models leads to a workflow that does not fit what is asked of it. AGENT_MODELS may name another."""


# Tasks by their ids, and answers.


class InvalidTaskId(AgentError):
    """A task-id is 1 to 128 of A-Z a-z 0-9 . _ : - and begins with a letter, a digit or an underscore."""

    status = 400


class TaskConflict(AgentError):
    """This task-id belongs to another workflow. Choose a new task-id for a new workflow."""

    status = 409


class TaskNotFound(AgentError):
    """No task has this id, or it is older than this server keeps tasks."""

    status = 404


class SocketNeeded(AgentError):
    """Behind a platform that freezes idle instances, a prompt of ComfyUI's clients runs only while its client's
    WebSocket is open. Connect to /ws with the same clientId first, or use POST /api/run."""

    status = 409


class OutputNotFound(AgentError):
    """This task has no such output, or the file is older than this server keeps outputs."""

    status = 404


class PreviewNotFound(AgentError):
    """There is no preview of this task: it has not come so far, it is over, or its engine sends none."""

    status = 404


class RangeNotSatisfiable(AgentError):
    """The output does not have the bytes that the Range header asks for."""

    status = 416


class PictureTypeUnknown(AgentError):
    """No picture can be answered as what Accept asks for. Ask for image/png, image/jpeg, image/webp, image/* or
    application/json."""

    status = 406


class NoPicture(AgentError):
    """The workflow has succeeded, but made no picture to answer with. Ask for application/json, or for its outputs."""

    status = 406


class AnswerTooLarge(AgentError):
    """The answer is larger than this server may send. Ask for a smaller batch or for "outputs": "url"."""

    status = 413


# Busy, not ready.


class QueueFull(AgentError):
    """This instance has as many tasks waiting as it accepts. Try again later."""

    status = 429
    transient = True
    default_retry_after = 2


class ShuttingDown(AgentError):
    """This instance is being stopped and takes no more work. Try again: another instance will answer."""

    status = 503
    transient = True
    default_retry_after = 2


class EngineUnavailable(AgentError):
    """ComfyUI is not running on this instance."""

    status = 503
    transient = True
    default_retry_after = 5


class EngineBusy(AgentError):
    """Every GPU instance is taken, and no other can be started now. Try again later."""

    status = 429
    transient = True
    default_retry_after = 10


class EngineUnreachable(AgentError):
    """The engine function did not answer, or its answer was lost. Send the same task again: it never runs twice."""

    status = 502
    transient = True
    default_retry_after = 5


class EngineAccessDenied(AgentError):
    """The engine function refuses this front. Check AGENT_ENGINE_API_KEY and AGENT_ENGINE_AUTHORIZATION."""

    status = 502


class EngineFailed(AgentError):
    """ComfyUI cannot be started on this instance."""

    transient = True


class StoreUnavailable(AgentError):
    """The task store cannot be reached, so nobody could tell whether this task runs elsewhere, nor keep its result. Try
    again later; a synchronous request without a task-id runs all the same."""

    status = 503
    transient = True
    default_retry_after = 5


class ObjectStoreUnavailable(AgentError):
    """The object store cannot be used now. Try again later."""

    status = 503
    transient = True
    default_retry_after = 5


# The run.


class NodeFailed(AgentError):
    """A node raised an error while it ran."""


class OutOfMemory(AgentError):
    """ComfyUI ran out of memory. Use smaller images or batches, or a larger GPU."""

    transient = True


class EngineDied(AgentError):
    """ComfyUI stopped while the task was running."""

    transient = True


class EngineStalled(AgentError):
    """ComfyUI held the prompt as running, but did not work on it any more."""

    transient = True


class GpuBroken(AgentError):
    """The GPU or its driver failed under ComfyUI, and only a fresh start of it helps."""

    transient = True


class EngineMisbehaved(AgentError):
    """ComfyUI gave an answer that its protocol does not provide for."""

    status = 502
    transient = True


class EngineLostPrompt(AgentError):
    """ComfyUI no longer knows the prompt: it was restarted, or somebody cleared its queue."""

    transient = True


class PromptInterrupted(AgentError):
    """Somebody else interrupted the prompt inside ComfyUI."""


class OutputMissing(AgentError):
    """ComfyUI finished, but a file that it names as output cannot be read from it."""

    transient = True


class OutputCorrupt(AgentError):
    """ComfyUI finished, but an output file is empty or broken."""

    transient = True


class OutputTooLarge(AgentError):
    """The outputs of the task are larger together than this server holds. AGENT_MAX_OUTPUT_BYTES is the limit."""


class PictureTooLarge(AgentError):
    """A picture has more pixels than this server decodes, so it cannot be answered in another format. Ask for it as it
    is, or raise AGENT_MAX_OUTPUT_PIXELS."""

    status = 413


class NotLabelled(AgentError):
    """An output file cannot be given a label that it must carry. Have its node save PNG, JPEG or WebP."""


class NoOutput(AgentError):
    """ComfyUI finished without an error, but no output node of the workflow produced anything."""


class TaskTakenOver(AgentError):
    """This instance was out of touch for longer than its lease, and another one took the task over."""

    status = 503
    transient = True


class InstanceLost(AgentError):
    """The instance that ran the task stopped without finishing it."""

    status = 503
    transient = True


class NotDelivered(AgentError):
    """No instance took the task up in time, or the front that had it stopped. Send it again; one that a platform has
    queued is waited for AGENT_DELIVERY_SECONDS."""

    status = 504
    transient = True


class TaskTimeout(AgentError):
    """The task took longer than it may. Raise AGENT_TASK_TIMEOUT_SECONDS if such tasks are meant to run here."""

    status = 504


class CallerGone(AgentError):
    """The caller closed the connection, so the task was cancelled. Sent again, it runs again."""

    status = 410
    transient = True


class TaskCancelled(AgentError):
    """The task was cancelled; it has no result."""

    status = 410


# The review.


class PromptRefused(AgentError):
    """The prompt asks for what this server does not make; `node_id` and `input` say where."""

    status = 403
    #: What the review found, for the record of a task that never ran.
    verdicts: tuple[Any, ...] = ()


class PromptTooLong(AgentError):
    """The texts of the workflow are longer than this server reviews; `node_id` and `input` say where the longest is.
    Shorten them, or raise AGENT_SAFETY_PROMPT_CHARACTERS."""

    status = 413


class UnsafeImage(AgentError):
    """What the workflow made may not be shown by this server."""

    status = 403


class FailedImage(AgentError):
    """ComfyUI finished, but a picture is black, of a single colour, or noise."""


class FileHidden(AgentError):
    """The engine's own files are neither reviewed nor labelled, so they are not shown: fetch them by their task."""

    status = 403


class ClassifierUnavailable(AgentError):
    """A classifier that must see each prompt or picture does not answer. Try again later."""

    status = 503
    transient = True
    default_retry_after = 5
