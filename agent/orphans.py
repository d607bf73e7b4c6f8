"""Ends tasks that nobody is left to end, and tells of ends that nobody is left to tell of.

An instance that dies leaves its tasks as they are. Whoever reads one sees that it has failed, or waits for its next
delivery; but its record says so, and its webhook is told, only once somebody alive has ended it. Everybody who is
alive looks for such tasks, about once a lease; the store hands each of them to one who asks (`TaskStore.overdue`), and
the fence lets one alone end it. A reader who comes upon one has it looked for at once: behind a platform all instances
may be frozen, and the next request is the next sign of life.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress

import structlog

from agent.admission import Admission
from agent.errors import AgentError, StoreUnavailable
from agent.tasks.board import TaskBoard, as_seen
from agent.tasks.store import Stored
from agent.webhooks.notifier import Notifier

log = structlog.get_logger(__name__)

#: Most tasks that one look takes on.
AT_ONCE = 50

#: How long an answer of the store may take, in leases, until it counts as having been away.
LONGEST_ANSWER = 0.25

#: Least time between two looks, however often readers come upon such tasks.
PAUSE_SECONDS = 1


class Orphans:
    """`start` and `stop` frame the looks. `is_ours` says whether this instance works on a task; `must_wait`: it stops
    when no request is open, so that requests `rest` for at most `patience_seconds` while ends are being told.

    A store that was away has heard of no owner meanwhile, so their leases may have run out although they are well. It
    must have been there for a lease, as far as is known here, before anybody is taken for dead. The same holds after
    this process was stopped, unless a platform did it, which stops each instance by itself.
    """

    def __init__(
        self,
        board: TaskBoard,
        admission: Admission,
        notifier: Notifier,
        *,
        lease_seconds: float,
        patience_seconds: float,
        must_wait: bool,
        is_ours: Callable[[str], bool],
    ) -> None:
        self._board, self._admission, self._notifier = board, admission, notifier
        self._lease_seconds, self._patience_seconds = lease_seconds, patience_seconds
        self._must_wait, self._is_ours = must_wait, is_ours
        self._timer: asyncio.Task[None] | None = None
        self._look: asyncio.Task[None] | None = None
        self._looked_at = -float(PAUSE_SECONDS)
        self._there_since: float | None = None
        self._at_work: dict[str, asyncio.Task[None]] = {}

    def start(self) -> None:
        self._timer = asyncio.create_task(self._look_now_and_then(), name="orphans")
        self._board.on_orphan = self.notice

    async def stop(self) -> None:
        self._board.on_orphan = None
        tasks = [task for task in (self._timer, self._look, *self._at_work.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def thaw(self, _frozen_seconds: float) -> None:
        """This instance was frozen."""
        if not self._must_wait:
            self._there_since = None

    def notice(self) -> None:
        """Somebody has come upon such a task: look now."""
        if self._look is None and time.monotonic() - self._looked_at >= PAUSE_SECONDS:
            self._look = asyncio.create_task(self._look_once(), name="orphans look")

    async def rest(self) -> None:
        """Behind a platform: wait until what was found is done."""
        if self._must_wait and (self._look is not None or self._at_work):
            with suppress(TimeoutError):
                async with asyncio.timeout(self._patience_seconds):
                    if self._look is not None:
                        await asyncio.wait((self._look,))
                    if self._at_work:
                        await asyncio.wait(self._at_work.values())

    async def _look_now_and_then(self) -> None:
        while True:
            # Not in step with the others.
            await asyncio.sleep(self._lease_seconds * random.uniform(0.75, 1.25))  # noqa: S311 - spreads load
            self.notice()

    async def _look_once(self) -> None:
        try:
            for stored in await self._find():
                task_id = stored.record.id
                if not self._is_ours(task_id) and task_id not in self._at_work:
                    self._at_work[task_id] = asyncio.create_task(self._see_to(stored), name="orphan")
        except StoreUnavailable as error:
            log.debug("orphans.not_found", reason=error.detail)
            self._there_since = None
        except Exception:  # whatever it was, the next look may do better
            log.exception("orphans.not_found")
        finally:
            self._look, self._looked_at = None, time.monotonic()

    async def _find(self) -> list[Stored]:
        began, found = time.monotonic(), list[Stored]()
        if self._there_since is not None and began - self._there_since >= self._lease_seconds:
            found = await self._board.store.overdue(limit=AT_ONCE, put_off_seconds=self._lease_seconds)
        else:
            await self._board.store.ping()
        answered = time.monotonic()
        if (
            answered - began > LONGEST_ANSWER * self._lease_seconds
        ):  # it was silent for a while, to owners too
            self._there_since, found = answered, []
        elif self._there_since is None:
            self._there_since = answered
        return found

    async def _see_to(self, stored: Stored) -> None:
        structlog.contextvars.bind_contextvars(task_id=stored.record.id)
        try:
            if stored.record.state.is_final:
                await self._notifier.resume(stored.record)
                return
            seen = as_seen(stored)
            if seen.error is not None and seen.state.is_final:
                error = AgentError.from_dict(seen.error)
                await self._notifier.wait(await self._admission.end_orphan(stored, error))
        except StoreUnavailable as error:
            log.debug("orphan.not_ended", reason=error.detail)
        except Exception:
            log.exception("orphan.not_ended")
        finally:
            del self._at_work[stored.record.id]
