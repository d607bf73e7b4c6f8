"""Calls in threads, few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Gate:
    """Lets so many calls run in threads at the same time.

    A thread cannot be interrupted. So a call whose caller has given up goes on, and keeps its place until it is over:
    else those who come and leave would fill all threads of the process with work that nobody waits for.
    """

    def __init__(self, places: int) -> None:
        self._places = asyncio.Semaphore(places)

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What the call returns, or raises."""
        await self._places.acquire()
        try:
            work = partial(copy_context().run, call, *args, **kwargs)
            running = asyncio.get_running_loop().run_in_executor(None, work)
        except BaseException:  # the loop's threads are being shut down
            self._places.release()
            raise
        running.add_done_callback(self._leave)
        return await asyncio.shield(running)

    def _leave(self, done: asyncio.Future[T]) -> None:
        self._places.release()
        if not done.cancelled():
            done.exception()  # else asyncio complains of one that nobody waits for
