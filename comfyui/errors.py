"""What can go wrong between us and an engine. Whoever serves callers translates these into its own errors."""

from __future__ import annotations

from typing import Any


class ComfyUIError(Exception):
    """Base of everything this package raises."""


class InvalidWorkflowError(ComfyUIError):
    """The graph cannot be a workflow in API format. `node_id` and `input_name` tell where, when known."""

    def __init__(self, reason: str, *, node_id: str | None = None, input_name: str | None = None) -> None:
        self.node_id, self.input_name = node_id, input_name
        super().__init__(reason)


class EngineUnreachableError(ComfyUIError):
    """The engine gave no answer: connection refused or cut, or no answer in time."""


class EngineFailedError(ComfyUIError):
    """The engine cannot be started, or was stopped; the text says why."""


class UnexpectedAnswerError(ComfyUIError):
    """The engine answered something its protocol does not provide for."""

    def __init__(self, what: str, status: int, text: str = "") -> None:
        self.status = status
        super().__init__(f"{what} answered {status}" + (f": {text[:500]}" if text else ""))


class FileMissingError(ComfyUIError):
    """The engine has no file of this name in this folder."""


class PromptRejectedError(ComfyUIError):
    """POST /prompt answered 400. `error` and `node_errors` are ComfyUI's own objects, unchanged."""

    def __init__(self, error: dict[str, Any], node_errors: dict[str, Any]) -> None:
        self.error, self.node_errors = error, node_errors
        self.type = str(error.get("type", ""))
        super().__init__(str(error.get("message") or "The prompt was refused"))
