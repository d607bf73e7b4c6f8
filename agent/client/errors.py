"""What the clients raise."""

from __future__ import annotations

import ssl
from typing import Any

#: Answers of proxies, and of instances that start, stop or have no room: the same request may be sent again.
UNAVAILABLE = (429, 502, 503, 504)


class AgentClientError(Exception):
    """The base of what the clients raise. `code` is stable, `detail` is a sentence for people."""

    code = "AgentClientError"

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(detail)


class AgentUnreachable(AgentClientError):
    """Nobody answers at the agent's address, or the connection broke before the answer was complete.

    `broke`: there was a connection, and it broke. Otherwise none came about, or the answer took too long.
    """

    code = "AgentUnreachable"

    def __init__(self, detail: str, *, broke: bool = False) -> None:
        self.broke = broke
        super().__init__(detail)


def tls_reason(error: ssl.SSLError) -> str:
    """Why no HTTPS connection came about. The number that the error has is not one of the system's."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted, {error.verify_message.rstrip('.')}"
    return f"TLS failed there, {(error.reason or 'for no reason given').lower().replace('_', ' ')}"


class AgentRequestError(AgentClientError):
    """The agent, or something in front of it, refused a request or failed to serve it.

    `status` is HTTP's, `code` the agent's stable word (`NotAnAgent` where the answer is no agent's), `body` the whole
    answer (a dict if it was JSON), and `retry_after` the seconds after which another try makes sense, if it said so.
    """

    def __init__(
        self, status: int, code: str, detail: str, body: Any, retry_after: float | None = None
    ) -> None:
        self.status, self.code, self.body, self.retry_after = status, code, body, retry_after
        super().__init__(detail)

    def __str__(self) -> str:
        return f"{self.status} {self.code}: {self.detail}"

    @property
    def task_id(self) -> str | None:
        return self.body.get("task_id") if isinstance(self.body, dict) else None

    @property
    def is_passing(self) -> bool:
        """Whether the same request may be served a little later."""
        if self.status not in UNAVAILABLE:
            return False
        error = self.body.get("error") if isinstance(self.body, dict) else None
        return not isinstance(error, dict) or error.get("transient") is not False


class TaskFailed(AgentClientError):
    """A task ended without a result. `state` is failed or cancelled, `record` is its final record."""

    def __init__(self, record: dict[str, Any]) -> None:
        self.record = record
        self.task_id: str = record["id"]
        self.state: str = record["state"]
        error = record.get("error") or {}
        self.code = error.get("code", "TaskCancelled" if self.state == "cancelled" else "InternalError")
        super().__init__(error.get("detail") or f"The task was {self.state}.")

    def __str__(self) -> str:
        return f"task {self.task_id} {self.state}: {self.code}: {self.detail}"
