"""What happened on the platform, in order: what tests look at."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum


class What(StrEnum):
    """One thing that the platform did."""

    STARTED = "started"  #: a container's process was started
    CONNECTED = "connected"  #: its port took a TCP connection
    INITIALIZED = "initialized"  #: POST /initialize was answered; detail: the status
    CHECKED = "checked"  #: a health check was answered; detail: the status
    READY = "ready"  #: it may get requests
    DISCARDED = "discarded"  #: it could not be started; detail: why
    DELIVERED = "delivered"  #: a request was handed to it; detail: method and path
    ENDED = "ended"  #: that request is over; detail: method and path
    FROZEN = "frozen"  #: no request is open: all its processes were stopped
    THAWED = "thawed"  #: they go on
    PRE_STOP = "pre-stop"  #: GET /pre-stop was answered; detail: the status
    KILLED = "killed"  #: all its processes got SIGKILL
    EXITED = "exited"  #: it ended by itself
    REFUSED = "refused"  #: a request never reached an instance; detail: status and code


@dataclass(frozen=True)
class Event:
    """`instance` is empty where none was concerned."""

    what: What
    function: str
    instance: str
    detail: str
    at: float


@dataclass
class Journal:
    """All events of all functions."""

    events: list[Event] = field(default_factory=list)

    def note(self, what: What, function: str, instance: str = "", detail: str = "") -> None:
        self.events.append(Event(what, function, instance, detail, time.monotonic()))

    def of(self, *whats: What, function: str = "", instance: str = "") -> list[Event]:
        """Those of these kinds (all kinds if none is given), of this function and instance where one is given."""
        return list(self._matching(whats, function, instance))

    def whats(self, instance: str) -> list[What]:
        """What happened to an instance, without repetitions in a row."""
        found: list[What] = []
        for event in self._matching((), "", instance):
            if found[-1:] != [event.what]:
                found.append(event.what)
        return found

    def _matching(self, whats: tuple[What, ...], function: str, instance: str) -> Iterator[Event]:
        for event in self.events:
            is_asked = (not whats or event.what in whats) and function in ("", event.function)
            if is_asked and instance in ("", event.instance):
                yield event
