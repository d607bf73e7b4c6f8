"""Waits for a task that another instance runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from agent.errors import StoreUnavailable, TaskNotFound, TaskTimeout
from agent.tasks.record import TaskRecord
from agent.tasks.store import TaskStore

#: Called with a record each time it has changed.
Show = Callable[[TaskRecord], Awaitable[None]]


async def watch_to_end(
    store: TaskStore, task_id: str, show: Show | None, *, timeout_seconds: float, lease_seconds: float
) -> TaskRecord:
    """The final record, or the last one if its owner's lease ran out before there was one.

    Raises TaskNotFound, TaskTimeout, and StoreUnavailable when the store, which alone could tell, stays away for
    longer than any lease lasts.
    """
    watching = asyncio.create_task(show_all(_changes(store, task_id), show))
    missing = asyncio.create_task(_until_missing(store, lease_seconds))
    try:
        await asyncio.wait((watching, missing), timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            return watching.result()
        if missing.done():
            raise missing.result()
        raise TaskTimeout(limit=timeout_seconds)
    finally:
        watching.cancel()
        missing.cancel()
        await asyncio.gather(watching, missing, return_exceptions=True)


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
