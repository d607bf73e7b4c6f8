"""Gets the ends of tasks into the store, also after their callers had no more time to wait for it.

A store that is away must not cost a caller his pictures, and afterwards nobody may read that his task was lost. So
what could not be stored in his time goes on being tried in the background, until the store is back. That is the best
that can be done, not a promise: a process that ends takes it along, and an instance that a platform freezes between
two requests goes on with it in the next one.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, repeat

import structlog

from agent.errors import StoreUnavailable
from agent.tasks.claims import Take
from agent.tasks.record import TaskRecord
from agent.tasks.store import Claim, ClaimLost, Stored, TaskStore

log = structlog.get_logger(__name__)

#: Pauses between tries while somebody waits, in seconds.
PAUSES = (0.2, 0.5, 1, 2, 4, 8, 15)

#: Pause between tries in the background: for so long after the store's return a task may look lost.
BACKGROUND_PAUSE = 1

#: Why a result is not stored whose task has another owner by now.
OTHER_RUN = "another run of the task is recorded"

#: Most results that wait for the store in the background; beyond, the oldest goes.
MAX_RESULTS = 1000


@dataclass(slots=True, eq=False)
class Result:
    """The end of a task, and the right to store it. An output that is None lies elsewhere. Once the outputs are stored
    the record says how long that took."""

    record: TaskRecord
    outputs: tuple[bytes | None, ...] = field(repr=False)
    right: Claim | Take

    @property
    def size(self) -> int:
        """Bytes of its outputs."""
        return sum(len(data) for data in self.outputs if data is not None)

    def note_delivered(self, seconds: float) -> None:
        """The outputs are stored. The first time counts: a record that is written again must be the same."""
        if "deliver" not in self.record.timings:
            timings = {**self.record.timings, "deliver": round(seconds, 4)}
            self.record = self.record.changed(timings=timings)


class Keeper:
    """Stores results. `start` and `stop` frame the work in the background, which holds at most `max_bytes` of
    outputs."""

    def __init__(self, store: TaskStore, *, max_bytes: int) -> None:
        self._store, self._max_bytes = store, max_bytes
        self._left: deque[Result] = deque()
        self._has_some = asyncio.Event()
        self._work: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._work = asyncio.create_task(self._store_left(), name="keeper")

    async def stop(self) -> None:
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)
            self._work = None
        while self._left:
            self._give_up(self._left.popleft(), "the instance was stopped")

    async def store(self, result: Result, *, patience_seconds: float, hurry: asyncio.Event) -> bool:
        """Store a result, and try again for `patience_seconds` or until `hurry` is set; tell whether it is stored.

        A result that is not goes on being tried in the background. Raises ClaimLost: the task is somebody else's.
        """
        if isinstance(result.right, Take):
            return await self._store_unclaimed(result, patience_seconds)
        deadline = time.monotonic() + patience_seconds
        pauses = chain(PAUSES, repeat(PAUSES[-1]))
        while True:
            try:
                await self._put(result)
            except StoreUnavailable as error:
                pause = next(pauses)
                if hurry.is_set() or time.monotonic() + pause > deadline:
                    self._keep(result, error.detail)
                    return False
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await hurry.wait()
            else:
                return True

    async def _store_unclaimed(self, result: Result, patience_seconds: float) -> bool:
        """One try: a store that was away when the task began shall keep nobody waiting at its end."""
        try:
            async with asyncio.timeout(patience_seconds):
                await self._put(result)
        except (StoreUnavailable, TimeoutError) as error:
            self._keep(result, str(error) or "the store does not answer")
        except ClaimLost:
            self._give_up(result, OTHER_RUN)
        else:
            return True
        return False

    async def _put(self, result: Result) -> None:
        right: Claim | Stored | Take = result.right
        if isinstance(right, Take):
            right = await right.on(self._store)
        if not isinstance(right, Claim):
            raise ClaimLost(result.record.id)
        kept = [(index, data) for index, data in enumerate(result.outputs) if data is not None]
        began = time.monotonic()
        puts = [self._store.put_output(right, index, data) for index, data in kept]
        for failure in await asyncio.gather(*puts, return_exceptions=True):
            if failure is not None:
                raise failure
        if kept:
            result.note_delivered(time.monotonic() - began)
        await self._store.write(right, result.record)

    def _keep(self, result: Result, reason: str) -> None:
        if result.size > self._max_bytes:
            self._give_up(result, "it is too large to wait for the store")
            return
        log.warning("task.not_stored_yet", task_id=result.record.id, reason=reason)
        self._left.append(result)
        while len(self._left) > MAX_RESULTS or sum(one.size for one in self._left) > self._max_bytes:
            self._give_up(self._left.popleft(), "too many results wait for the store")
        self._has_some.set()

    def _give_up(self, result: Result, reason: str) -> None:
        log.error("task.not_stored", task_id=result.record.id, reason=reason)

    async def _store_left(self) -> None:
        while True:
            if not self._left:
                self._has_some.clear()
                await self._has_some.wait()
            for result in tuple(
                self._left
            ):  # all in turn: one that the store refuses must not hold up the others
                if not await self._is_settled(result):
                    await asyncio.sleep(BACKGROUND_PAUSE)
                elif result in self._left:
                    self._left.remove(result)

    async def _is_settled(self, result: Result) -> bool:
        """Try once; tell whether there is nothing more to try."""
        try:
            await self._put(result)
        except StoreUnavailable:
            return False
        except ClaimLost:
            self._give_up(result, OTHER_RUN)
        except Exception:
            log.exception("task.not_stored", task_id=result.record.id)
        else:
            log.info("task.stored_late", task_id=result.record.id)
        return True
