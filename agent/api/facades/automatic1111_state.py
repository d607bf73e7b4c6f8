"""What clients of AUTOMATIC1111's API have set and started on this instance, each for callers with the same key."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from agent.tasks.record import TaskRecord

T = TypeVar("T")


@dataclass(slots=True)
class Job:
    """One call of txt2img or img2img that runs: a task for each picture. `owner`: the key that its caller showed."""

    owner: bytes
    name: str
    count: int
    began_at: float = field(default_factory=time.time)
    is_interrupted: bool = False
    is_skipped: bool = False
    _records: dict[str, TaskRecord] = field(default_factory=dict)
    _runs: dict[str, asyncio.Task[Any]] = field(default_factory=dict)
    _stopped: set[asyncio.Task[Any]] = field(default_factory=set)

    async def attend(self, task_id: str, run: Coroutine[Any, Any, T]) -> T | None:
        """What the run of one task returns; None where it was interrupted or skipped."""
        if self.is_interrupted:
            run.close()
            return None
        running: asyncio.Task[T] = asyncio.create_task(run)
        self._runs[task_id] = running
        try:
            return await running
        except asyncio.CancelledError:
            here = asyncio.current_task()
            if running in self._stopped and not (here and here.cancelling()):
                return None
            raise

    async def note(self, record: TaskRecord) -> None:
        """A task's record has changed."""
        self._records[record.id] = record

    def interrupt(self) -> None:
        """End what has not ended."""
        self.is_interrupted = True
        self._stop(self._open())

    def skip(self) -> None:
        """End the picture that is being made, and go on with the next."""
        self.is_skipped = True
        current = self._runs.get(self.current.id) if self.current else None
        self._stop(self._open()[:1] if current is None or current.done() else [current])

    @property
    def done(self) -> int:
        """How many of its pictures are over."""
        return sum(run.done() for run in self._runs.values())

    @property
    def progress(self) -> float:
        """From 0 to 1."""
        running = sum(record.progress for record in self._records.values() if self._is_open(record))
        return min(1.0, (self.done + running) / max(self.count, 1))

    @property
    def current(self) -> TaskRecord | None:
        """The task that the engine is at."""
        return next((r for r in self._records.values() if r.current_node and self._is_open(r)), None)

    def _is_open(self, record: TaskRecord) -> bool:
        run = self._runs.get(record.id)
        return run is not None and not run.done()

    def _open(self) -> list[asyncio.Task[Any]]:
        return [run for run in self._runs.values() if not run.done()]

    def _stop(self, runs: list[asyncio.Task[Any]]) -> None:
        for run in runs:
            self._stopped.add(run)
            run.cancel()


class WebUi:
    """`options`: the key that a caller showed -> what he set by POST /options. Without keys it is the empty one."""

    def __init__(self) -> None:
        self.options: dict[bytes, dict[str, Any]] = {}
        self._jobs: list[Job] = []

    @contextmanager
    def job(self, owner: bytes | None, name: str, count: int) -> Iterator[Job]:
        """A call that runs; that of a caller without a key nobody finds."""
        job = Job(owner or b"", name, count)
        if owner is not None:
            self._jobs.append(job)
        try:
            yield job
        finally:
            if owner is not None:
                self._jobs.remove(job)

    def jobs(self, owner: bytes | None) -> list[Job]:
        """Those of this caller, the oldest first."""
        return [job for job in self._jobs if owner is not None and job.owner == owner]
