"""Gets and keeps this instance's claims on its tasks, and hears what others want of those tasks."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress

import structlog

from agent.errors import StoreUnavailable, TaskCancelled, TaskTakenOver
from agent.tasks.live import LiveTask
from agent.tasks.store import ClaimLost, TaskStore

log = structlog.get_logger(__name__)

#: Pause before listening for cancels again after the store was lost.
RELISTEN_SECONDS = 1


class Leases:
    """Two loops over the live tasks of an instance, from `start` to `stop`. Nothing that a task or the store does
    ends them: without them every task of the instance would be taken for lost."""

    def __init__(
        self, store: TaskStore, live: dict[str, LiveTask], instance: str, lease_seconds: float
    ) -> None:
        self._store, self._live = store, live
        self._instance, self._lease_seconds = instance, lease_seconds
        self._loops: list[asyncio.Task[None]] = []
        self._at_once = asyncio.Event()

    def start(self) -> None:
        self._loops = [asyncio.create_task(self._beat()), asyncio.create_task(self._hear_cancels())]

    async def stop(self) -> None:
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)

    def renew(self) -> None:
        """Extend the leases now: they may have run out while this instance was frozen."""
        self._at_once.set()

    async def _beat(self) -> None:
        """Extend the leases, and make up for claims that the store did not answer; notice tasks that were taken over,
        and cancels whose message was lost."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._lease_seconds / 3):
                    await self._at_once.wait()
            self._at_once.clear()
            extensions = [self._extend(live) for live in self._live.values()]
            for failure in await asyncio.gather(*extensions, return_exceptions=True):
                if failure is not None:
                    log.error("task.lease_not_extended", reason=repr(failure))

    async def _extend(self, live: LiveTask) -> None:
        try:
            if live.claim is None:
                await live.claim_late()
            elif await self._store.extend(live.claim):
                live.stop(TaskCancelled())
        except ClaimLost:
            log.warning("task.taken_over", task_id=live.id)
            live.stop(TaskTakenOver())
        except StoreUnavailable as error:
            log.warning("task.lease_not_extended", task_id=live.id, reason=error.detail)

    async def _hear_cancels(self) -> None:
        while True:
            try:
                async with aclosing(self._store.cancels(self._instance)) as cancels:
                    async for task_id in cancels:
                        if live := self._live.get(task_id):
                            live.stop(TaskCancelled())
            except StoreUnavailable as error:
                log.debug("cancels.not_heard", reason=error.detail)
            except Exception:  # whatever it was: the next cancel must be heard
                log.exception("cancels.not_heard")
            await asyncio.sleep(RELISTEN_SECONDS)
