"""A task's event stream, over as many connections as it takes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from math import inf
from typing import Any

from agent.client.errors import AgentClientError, AgentRequestError, AgentUnreachable
from agent.client.retries import Retries
from agent.client.wire import FINAL_STATES, Answer, Call, Deadline, error_of, not_an_agent

#: An event stream carries at least a comment every 20 seconds; after three missing ones it is dead.
STREAM_SILENCE_SECONDS = 65.0

#: A connection that held for so long was not refused: what broke it says nothing about the next one.
SETTLED_SECONDS = 5.0

#: A task that a platform has taken in is known to no instance before it is delivered to one. One that has to start
#: first takes minutes.
DELIVERY_SECONDS = 600.0

#: How long to wait before asking again for such a task.
ASK_AGAIN_SECONDS = 1.0


class Following:
    """What the clients do between their reads: open `call`, hand over what comes to `feed` until `is_over`, and ask
    `lost` how long to wait before the next connection."""

    def __init__(
        self, url: str, pauses: Sequence[float], deadline: Deadline, *, is_on_its_way: bool = False
    ) -> None:
        headers = {
            "Accept": "text/event-stream",
            "Cache-Control": "no-cache",
            "Accept-Encoding": "identity",
        }
        self.call = Call("GET", url, headers)
        self.deadline = deadline
        self.is_over = False
        self._retries = Retries(pauses, deadline)
        self._last: dict[str, Any] | None = None
        self._reader = EventReader()
        self._opened = time.monotonic()
        self._unknown_until = time.monotonic() + DELIVERY_SECONDS if is_on_its_way else None

    def opened(self, answer: Answer) -> None:
        """The head of an answer is there; of one that is no success also the body. Raises AgentRequestError."""
        if not answer.is_ok:
            raise error_of(answer)
        if not answer.headers.get("content-type", "").startswith("text/event-stream"):
            raise not_an_agent(answer.status, "no event stream", None)
        self._reader = EventReader()
        self._opened = time.monotonic()

    def feed(self, chunk: bytes) -> Iterator[dict[str, Any]]:
        """The records that have arrived with this chunk, without what was known before."""
        for data in self._reader.feed(chunk):
            record = _record(data)
            if record != self._last:
                self._last = record
                self._retries.move_on()
                yield record
            if record["state"] in FINAL_STATES:
                self.is_over = True
                return

    def lost(self, error: AgentClientError) -> float:
        """The connection is gone, or none came about: the seconds to wait before the next. Raises what ends it all."""
        if self._is_awaited(error):
            return self.deadline.cap(ASK_AGAIN_SECONDS)
        if self._last is not None and time.monotonic() - self._opened > SETTLED_SECONDS:
            self._retries.move_on()
        self._opened = inf  # it held once: of the tries that fail from here on none did
        return self._retries.pause(error)

    def ended(self) -> AgentUnreachable:
        """What it means when a connection ends in order, but too early."""
        return AgentUnreachable("The event stream ended before the task did.", broke=True)

    def _is_awaited(self, error: AgentClientError) -> bool:
        return (
            isinstance(error, AgentRequestError)
            and error.code == "TaskNotFound"
            and self._last is None
            and self._unknown_until is not None
            and time.monotonic() < self._unknown_until
        )


class EventReader:
    """Server-Sent Events out of bytes, however they are cut. An event that is cut off by the end is none."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The data of each event that is now complete."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            text = line.rstrip(b"\r")
            name, _, value = text.partition(b":")
            if name == b"data":
                self._data.append(value.removeprefix(b" "))
            elif not text and self._data:
                data, self._data = b"\n".join(self._data), []
                yield data


def _record(data: bytes) -> dict[str, Any]:
    try:
        record = json.loads(data)
        if record["state"] and isinstance(record, dict):
            return record
    except (ValueError, TypeError, KeyError):
        pass
    raise not_an_agent(200, "an event that is no task record", data[:1000].decode(errors="replace"))
