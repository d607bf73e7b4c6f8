"""Threads for calls into a file system that may hang."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

_Result = TypeVar("_Result")


class Threads:
    """At most `count` threads, started when they are needed.

    A thread that waits for a file server that is away cannot be interrupted. These are daemons, unlike those of
    `asyncio.to_thread`, so that the process can end all the same.
    """

    def __init__(self, count: int, name: str) -> None:
        self._count, self._name = count, name
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    async def run(self, call: Callable[[], _Result], seconds: float) -> _Result:
        """Call it in a thread. Raises TimeoutError after so many seconds, waiting for a thread included.

        A call that has begun goes on when its caller gives up; one that has not is dropped.
        """
        job = _Job(call)
        self._put(job)
        try:
            async with asyncio.timeout(seconds):
                result: _Result = await job.future
                return result
        finally:
            job.call = None  # one that waits behind a hung one must not hold what it was to write

    def close(self) -> None:
        """Let the threads end once all calls are done."""
        with self._lock:
            for _ in self._threads:
                self._jobs.put(None)
            self._threads = []

    def _put(self, job: _Job) -> None:
        with self._lock:
            self._jobs.put(job)
            if len(self._threads) < self._count:
                thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._threads.append(thread)
                thread.start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run()
            del job  # an idle thread must not hold the last result


class _Job:
    """A call, and the future of the event loop that waits for it."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call: Callable[[], Any] | None = call
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self._loop.create_future()

    def run(self) -> None:
        if (call := self.call) is None:
            return
        try:
            result = call()
        except BaseException as exc:  # noqa: BLE001 - it is the caller's
            self._deliver(self.future.set_exception, exc)
        else:
            self._deliver(self.future.set_result, result)

    def _deliver(self, settle: Callable[[Any], None], value: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._settle, settle, value)

    def _settle(self, settle: Callable[[Any], None], value: Any) -> None:
        if not self.future.done():
            settle(value)
