"""What the tests of the stores do again and again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

from agent.tasks.record import State, TaskRecord
from agent.tasks.store import Claim, Stored, TaskStore

WAIT_SECONDS = 20  # no condition may take longer
STEP_SECONDS = 0.01  # how often one that nobody announces is looked at


def make_task(task_id: str = "task-1", **fields: Any) -> TaskRecord:
    return TaskRecord(id=task_id, **{"created_at": time.time(), "workflow_digest": "digest", **fields})


#: Every method of a store, as tests of its faults call it.
CALLS: dict[str, Callable[[TaskStore], Awaitable[object]]] = {
    "ping": lambda store: store.ping(),
    "read": lambda store: store.read("task-1"),
    "take": lambda store: store.take(make_task("new"), expected_fence=0, owner="a", lease_seconds=30),
    "write": lambda store: store.write(Claim("task-1", 1, "a", 30), make_task()),
    "release": lambda store: store.release(Claim("task-1", 1, "a", 30), make_task()),
    "extend": lambda store: store.extend(Claim("task-1", 1, "a", 30)),
    "request_cancel": lambda store: store.request_cancel("task-1"),
    "watch": lambda store: anext(store.watch("task-1")),
    "overdue": lambda store: store.overdue(limit=10, put_off_seconds=30),
    "page": lambda store: store.page(),
    "put_output": lambda store: store.put_output(Claim("task-1", 1, "a", 30), 0, b"data"),
    "get_output": lambda store: store.get_output("task-1", 1, 0),
    "put_preview": lambda store: store.put_preview(Claim("task-1", 1, "a", 30), b"data"),
    "get_preview": lambda store: store.get_preview("task-1"),
}


async def claim_of(
    store: TaskStore, record: TaskRecord, *, fence: int = 0, owner: str = "a", lease_seconds: float = 30
) -> Claim:
    claim = await store.take(record, expected_fence=fence, owner=owner, lease_seconds=lease_seconds)
    assert isinstance(claim, Claim), claim
    return claim


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = WAIT_SECONDS) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(STEP_SECONDS)


async def lease_to_end(store: TaskStore, task_id: str = "task-1") -> None:
    async def ended() -> bool:
        stored = await store.read(task_id)
        return stored is not None and stored.owner is None

    await eventually(ended)


class Follower:
    """Watches a task in the background and keeps what it saw."""

    def __init__(self, store: TaskStore, task_id: str = "task-1") -> None:
        self.seen: list[Stored] = []
        self._more = asyncio.Event()
        self._task = asyncio.create_task(self._follow(store, task_id))

    async def _follow(self, store: TaskStore, task_id: str) -> None:
        async with aclosing(store.watch(task_id)) as changes:
            async for stored in changes:
                self.seen.append(stored)
                self._more.set()

    async def until(self, condition: Callable[[Stored], bool], seconds: float = WAIT_SECONDS) -> Stored:
        async with asyncio.timeout(seconds):
            while not (self.seen and condition(self.seen[-1])):
                self._more.clear()
                await self._more.wait()
        return self.seen[-1]

    async def to_end(self, seconds: float = WAIT_SECONDS) -> State:
        """Wait for the watch to end; returns the state that it saw last."""
        async with asyncio.timeout(seconds):
            await self._task
        return self.seen[-1].record.state

    async def leave(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
