"""When a request is sent again. The same task-id never runs twice, so each of the agent's may be."""

from __future__ import annotations

from collections.abc import Sequence

from agent.client.errors import AgentClientError, AgentRequestError, AgentUnreachable
from agent.client.wire import Deadline

#: Pauses before another try, in seconds; after the last one it is given up.
RETRY_PAUSES = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)

#: Whatever an answer says of when to come again.
LONGEST_PAUSE_SECONDS = 60.0


class Retries:
    """The tries of one request, or of one event stream.

    `is_known`: it has been in touch with an agent; before that, who cannot be reached is not there.
    """

    def __init__(self, pauses: Sequence[float], deadline: Deadline) -> None:
        self._pauses, self._deadline = pauses, deadline
        self._failures = 0
        self.is_known = False

    def move_on(self) -> None:
        """It came further than before: earlier failures are forgotten."""
        self.is_known, self._failures = True, 0

    def pause(self, error: AgentClientError) -> float:
        """How long to wait before the next try, in seconds. Raises `error` where none makes sense, and TimeoutError
        once the deadline is over."""
        self._deadline.check()  # its own limit may have ended the connection
        if isinstance(error, AgentRequestError):
            is_passing, retry_after = error.is_passing, error.retry_after
        else:
            broke = isinstance(error, AgentUnreachable) and error.broke
            is_passing, retry_after = self.is_known or broke, None
        if not is_passing or self._failures >= len(self._pauses):
            raise error
        pause = max(self._pauses[self._failures], min(retry_after or 0.0, LONGEST_PAUSE_SECONDS))
        self._failures += 1
        self.is_known = True
        return self._deadline.cap(pause)
