"""How much of all tasks' outputs is in memory at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

#: Bytes of collected outputs beside which no more are collected.
ROOM_BYTES = 32 * 2**20

#: Tasks that collect at the same time: how much it will be is known only then.
PARALLEL_TASKS = 2

#: How long a task is held up for this, in seconds. What waits for a store that is away must not hold up the others.
PATIENCE = 2


class OutputRoom:
    """Outputs lie in memory from when they are collected until their task is over, and where many tasks end at once,
    the first ones are sooner over if the last ones wait with their files still on the disk."""

    def __init__(self) -> None:
        self._held: dict[str, int] = {}
        self._collecting = asyncio.Semaphore(PARALLEL_TASKS)
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def turn(self, task_id: str) -> AsyncIterator[None]:
        """Entered when the task may collect its outputs; `hold` says then how much they are."""
        self.release(task_id)  # those of an earlier attempt
        is_in = False
        try:
            try:
                async with asyncio.timeout(PATIENCE):
                    is_in = await self._collecting.acquire()
                    while sum(self._held.values()) >= ROOM_BYTES:
                        self._freed.clear()
                        await self._freed.wait()
            except TimeoutError:
                pass
            yield
        finally:
            if is_in:
                self._collecting.release()

    def hold(self, task_id: str, size: int) -> None:
        """The task has so many bytes of outputs in memory, until `release`."""
        self._held[task_id] = size

    def release(self, task_id: str) -> None:
        """The task is over."""
        if self._held.pop(task_id, 0):
            self._freed.set()
