"""Notices that this process was frozen, so that nothing from before is trusted any more.

Function Compute freezes an instance that has no open request. Nothing tells it so: its clocks go on, CLOCK_MONOTONIC
too, as under SIGSTOP; it just does not run. When it wakes, peers may have dropped its connections without a sign,
leases may have expired, and deadlines have passed that nobody missed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)

#: How often the time is noted.
TICK_SECONDS = 1

#: A pause that is longer than this beyond a tick was no busy event loop. A busy machine may be taken for a frozen one
#: all the same, so what is done about it must be harmless.
LONGEST_PAUSE_SECONDS = 3

Clock = Callable[[], float]


class FreezeWatch:
    """Calls its listeners when the process wakes, before anything else of this program goes on.

    The tick is a callback of the event loop and no task: it is called in the first round after the freeze, while what
    arrives on sockets reaches its task in the second one at the earliest. A request that has been read before asks
    with `check`. The wall clock is looked at too, for machines whose other clock stands still in their sleep.
    """

    def __init__(self, monotonic: Clock = time.monotonic, wall: Clock = time.time) -> None:
        self._monotonic, self._wall = monotonic, wall
        self._seen = (monotonic(), wall())
        self._listeners: list[Callable[[float], None]] = []
        self._timer: asyncio.TimerHandle | None = None

    def on_thaw(self, listener: Callable[[float], None]) -> None:
        """Call `listener` with the seconds by which the event loop's clock has jumped. It must not block."""
        self._listeners.append(listener)

    def start(self) -> None:
        self._seen = (self._monotonic(), self._wall())
        self._timer = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def check(self) -> None:
        """Tell the listeners if the process has been frozen since the last look."""
        now = (self._monotonic(), self._wall())
        jumped, by_wall = (new - old for new, old in zip(now, self._seen, strict=True))
        self._seen = now
        if max(jumped, by_wall) <= TICK_SECONDS + LONGEST_PAUSE_SECONDS:
            return
        log.info("agent.thawed", seconds=round(max(jumped, by_wall), 1))
        for listener in self._listeners:
            try:
                listener(jumped)
            except Exception:  # the others must hear of it too
                log.exception("agent.thaw_failed")

    def _tick(self) -> None:
        self.check()
        self._timer = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)
