"""Tasks that other instances run, or nobody any more: wait for them, cancel them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from agent.admission import Admission
from agent.errors import AgentError, StoreUnavailable, TaskCancelled, TaskNotFound, TaskTimeout
from agent.service import Show
from agent.settings import Settings
from agent.tasks.board import TaskBoard
from agent.tasks.record import TaskRecord
from agent.tasks.store import TaskStore


class Elsewhere:
    """What can be done about a task that this process does not run."""

    def __init__(self, settings: Settings, board: TaskBoard, admission: Admission) -> None:
        self._timeout_seconds, self._lease_seconds = settings.task_timeout_seconds, settings.lease_seconds
        self._board, self._store, self._admission = board, board.store, admission

    async def watch(self, task_id: str, show: Show | None = None) -> TaskRecord:
        """The final record, or the last one if its owner's lease ran out before there was one.

        Raises TaskNotFound, TaskTimeout, and StoreUnavailable when the store, which alone could tell, stays away for
        longer than any lease lasts.
        """
        watching = asyncio.create_task(show_all(_changes(self._store, task_id), show))
        missing = asyncio.create_task(_until_missing(self._store, self._lease_seconds))
        try:
            await asyncio.wait(
                (watching, missing), timeout=self._timeout_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if watching.done():
                return watching.result()
            if missing.done():
                raise missing.result()
            raise TaskTimeout(limit=self._timeout_seconds)
        finally:
            watching.cancel()
            missing.cancel()
            await asyncio.gather(watching, missing, return_exceptions=True)

    async def cancel(self, task_id: str) -> TaskRecord:
        """Ask its owner to end it and wait for that; end it here where nobody has it. A task that is over stays as
        it is. Raises TaskNotFound, and what `watch` raises."""
        while True:
            stored = await self._store.request_cancel(task_id)
            if stored is None:
                raise TaskNotFound(task_id=task_id)
            if stored.record.state.is_final:
                return stored.record
            if stored.owner is not None:
                record = await self.watch(task_id)
            else:
                # Where nobody will run it, it has been seen as failed, and what is over stays as it was.
                seen = self._board.as_seen(stored)
                end = seen.error if seen.state.is_final else None
                error = AgentError.from_dict(end) if end is not None else TaskCancelled()
                record = await self._admission.end_orphan(stored, error)
            if record.state.is_final:
                return record
            # Its owner is gone without an end, or somebody has taken it meanwhile, which forgets the request.


async def show_all(records: AsyncGenerator[TaskRecord, None], show: Show | None) -> TaskRecord:
    """Show each record; return the last one. Raises TaskNotFound when there is none."""
    last: TaskRecord | None = None
    async with aclosing(records):
        async for last in records:
            if show is not None:
                await show(last)
    if last is None:
        raise TaskNotFound
    return last


async def _changes(store: TaskStore, task_id: str) -> AsyncGenerator[TaskRecord, None]:
    """The record now and after changes, up to a final one, or to one whose lease ran out."""
    async with aclosing(store.watch(task_id)) as changes:
        async for stored in changes:
            yield stored.record
            if stored.owner is None:
                return


async def _until_missing(store: TaskStore, lease_seconds: float) -> StoreUnavailable:
    failures = 0
    while True:
        await asyncio.sleep(lease_seconds)
        try:
            await store.ping()
            failures = 0
        except StoreUnavailable as error:
            failures += 1
            if failures > 2:
                return error
