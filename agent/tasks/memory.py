"""The task store of a single process: everything is gone when it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Collection
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from agent.errors import StoreUnavailable
from agent.tasks.followers import registered, wait_for_change
from agent.tasks.record import State, TaskRecord
from agent.tasks.store import (
    LEASES_OF_GRACE,
    PREVIEW_SECONDS,
    Claim,
    ClaimLost,
    Page,
    Stored,
    TaskStore,
    due_in,
    position,
)

#: Stands for attempt and index where the key of an output is the digest of something parked.
PARKED = (-1, -1)


class _Expiring(Protocol):
    @property
    def expires_at(self) -> float: ...


@dataclass(slots=True)
class _Task:
    record: TaskRecord
    fence: int
    holder: str | None  #: owner of the claim; None once it has ended
    taken: TaskRecord | None  #: the record of the take, by which a repeated one is recognised
    lease_ends_at: float
    expires_at: float
    due_at: float | None = None  #: when somebody must see to it
    cancel_requested: bool = False


@dataclass(frozen=True, slots=True)
class _Output:
    data: bytes
    expires_at: float


_Key = TypeVar("_Key")
_Value = TypeVar("_Value", bound=_Expiring)


class _Shelf(dict[_Key, _Value], Generic[_Key, _Value]):
    """Things that all live equally long, in the order in which they expire."""

    def renew(self, key: _Key, value: _Value) -> None:
        self.pop(key, None)
        self[key] = value

    def drop_oldest(self) -> _Value:
        return self.pop(next(iter(self)))

    def sweep(self, now: float) -> list[_Value]:
        """Drop what has expired, and return it."""
        dropped = []
        while self and self[next(iter(self))].expires_at <= now:
            dropped.append(self.drop_oldest())
        return dropped


class MemoryStore(TaskStore):
    """Keeps records, not copies: at most about `max_tasks`, the latest ones that are over, beside those that are not;
    and of outputs at most `max_output_bytes`, the latest ones.

    `clock` gives seconds and never goes back; leases and expiry go by it, while `reread_seconds`, how long an expired
    lease or record may escape a watcher, is real time. No background task: whatever has expired is freed at the next
    call.
    """

    is_shared = False

    def __init__(
        self,
        *,
        record_ttl_seconds: float,
        output_ttl_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        reread_seconds: float = 12,
        max_output_bytes: int = 256 * 2**20,
        max_tasks: int = 1000,
    ) -> None:
        self._max_tasks = max_tasks
        self._max_output_bytes, self._output_bytes = max_output_bytes, 0
        self._record_ttl = record_ttl_seconds
        self._output_ttl = output_ttl_seconds
        self._clock = clock
        self._reread_seconds = reread_seconds
        self._tasks: _Shelf[str, _Task] = _Shelf()
        self._previews: _Shelf[str, _Output] = _Shelf()
        self._outputs: _Shelf[tuple[str, int, int], _Output] = _Shelf()
        self._watchers: dict[str, set[asyncio.Event]] = {}
        self._cancels: dict[str, set[asyncio.Queue[str | None]]] = {}
        self._closed = False

    async def ping(self) -> None:
        self._enter()

    async def close(self) -> None:
        self._closed = True
        self._tasks.clear()
        self._outputs.clear()
        self._previews.clear()
        self._output_bytes = 0
        for task_id in self._watchers:
            self._publish(task_id)
        for queues in self._cancels.values():
            for queue in queues:
                queue.put_nowait(None)

    async def read(self, task_id: str) -> Stored | None:
        now = self._enter()
        task = self._tasks.get(task_id)
        return self._stored(task, now) if task else None

    async def take(
        self, record: TaskRecord, *, expected_fence: int, owner: str, lease_seconds: float
    ) -> Claim | Stored:
        now = self._enter()
        task, fence = self._tasks.get(record.id), expected_fence + 1
        holder = None if record.state.is_final else owner
        if task and (task.fence, task.holder, task.taken) == (fence, holder, record):
            task.lease_ends_at = now + lease_seconds
            return Claim(record.id, fence, owner, lease_seconds)
        if task and (task.fence != expected_fence or self._owner(task, now)):
            return self._stored(task, now)
        task = _Task(record, fence, holder, record, now + lease_seconds, now + self._record_ttl)
        task.due_at = _due_at(record, now, LEASES_OF_GRACE * lease_seconds)
        self._tasks.renew(record.id, task)
        self._forget_oldest()
        self._publish(record.id)
        return Claim(record.id, fence, owner, lease_seconds)

    async def write(self, claim: Claim, record: TaskRecord) -> None:
        self._write(claim, record, ends=record.state.is_final)

    async def amend(self, record: TaskRecord, *, fence: int) -> bool:
        now = self._enter()
        task = self._tasks.get(record.id)
        if task is None or (task.holder, task.fence, task.record.state) != (None, fence, record.state):
            return False
        task.record, task.expires_at, task.due_at = record, now + self._record_ttl, _due_at(record, now)
        self._tasks.renew(record.id, task)
        self._publish(record.id)
        return True

    async def release(self, claim: Claim, record: TaskRecord) -> None:
        self._write(claim, record, ends=True)

    async def extend(self, claim: Claim) -> bool:
        now = self._enter()
        task = self._held(claim)
        if task is None:
            return False
        task.lease_ends_at, task.expires_at = now + claim.lease_seconds, now + self._record_ttl
        task.due_at = _due_at(task.record, now, LEASES_OF_GRACE * claim.lease_seconds)
        self._tasks.renew(claim.task_id, task)
        return task.cancel_requested

    async def request_cancel(self, task_id: str) -> Stored | None:
        now = self._enter()
        task = self._tasks.get(task_id)
        if task is None:
            return None
        task.cancel_requested = True
        for queue in self._cancels.get(self._owner(task, now) or "", ()):
            queue.put_nowait(task_id)
        return self._stored(task, now)

    async def cancels(self, owner: str) -> AsyncGenerator[str, None]:
        self._enter()
        # Not bounded: requests name this owner's tasks only, and it reads them as they come.
        queue: asyncio.Queue[str | None] = asyncio.Queue()
        with registered(self._cancels, owner, queue):
            while (task_id := await queue.get()) is not None:
                yield task_id
        self._enter()

    async def watch(self, task_id: str) -> AsyncGenerator[Stored, None]:
        changed, seen = asyncio.Event(), None
        with registered(self._watchers, task_id, changed):
            while (stored := await self.read(task_id)) is not None:
                if stored != seen:
                    yield stored
                if stored.record.state.is_final:
                    return
                seen = stored
                await wait_for_change(changed, self._reread_seconds)

    async def overdue(self, *, limit: int, put_off_seconds: float) -> list[Stored]:
        now = self._enter()
        due = [task for task in self._tasks.values() if task.due_at is not None and task.due_at <= now]
        for task in due[:limit]:
            task.due_at = now + put_off_seconds
        return [self._stored(task, now) for task in due[:limit] if self._owner(task, now) is None]

    async def page(
        self, *, states: Collection[State] | None = None, limit: int = 50, before: str | None = None
    ) -> Page:
        now = self._enter()
        tasks = [task for task in self._tasks.values() if states is None or task.record.state in states]
        tasks = [task for task in tasks if before is None or position(task.record) < before]
        tasks.sort(key=lambda task: position(task.record), reverse=True)
        chosen = tuple(self._stored(task, now) for task in tasks[:limit])
        return Page(chosen, position(chosen[-1].record) if len(tasks) > limit else None)

    async def put_output(self, claim: Claim, index: int, data: bytes) -> None:
        self._keep_output((claim.task_id, claim.fence, index), data)

    async def get_output(self, task_id: str, attempt: int, index: int) -> bytes | None:
        self._enter()
        output = self._outputs.get((task_id, attempt, index))
        return output.data if output else None

    async def put_preview(self, claim: Claim, data: bytes) -> None:
        self._previews.renew(claim.task_id, _Output(data, self._enter() + PREVIEW_SECONDS))

    async def get_preview(self, task_id: str) -> bytes | None:
        self._enter()
        preview = self._previews.get(task_id)
        return preview.data if preview else None

    async def put_parked(self, digest: str, data: bytes) -> None:
        self._keep_output((digest, *PARKED), data)

    async def get_parked(self, digest: str) -> bytes | None:
        return await self.get_output(digest, *PARKED)

    def _keep_output(self, key: tuple[str, int, int], data: bytes) -> None:
        now = self._enter()
        if before := self._outputs.get(key):
            self._output_bytes -= len(before.data)
        self._outputs.renew(key, _Output(data, now + self._output_ttl))
        self._output_bytes += len(data)
        while self._output_bytes > self._max_output_bytes and len(self._outputs) > 1:
            self._output_bytes -= len(self._outputs.drop_oldest().data)

    def _forget_oldest(self) -> None:
        """Make room by one task: the oldest that is over."""
        if len(self._tasks) > self._max_tasks:
            over = (task_id for task_id, task in self._tasks.items() if task.record.state.is_final)
            if (oldest := next(over, None)) is not None:
                del self._tasks[oldest]

    def _enter(self) -> float:
        """Begin a call: refuse it after close, free what has expired, and say what time it is."""
        if self._closed:
            raise StoreUnavailable("The task store is closed.")
        now = self._clock()
        self._tasks.sweep(now)
        self._previews.sweep(now)
        self._output_bytes -= sum(len(output.data) for output in self._outputs.sweep(now))
        return now

    def _write(self, claim: Claim, record: TaskRecord, *, ends: bool) -> None:
        now = self._enter()
        known = self._tasks.get(claim.task_id)
        if ends and known and (known.fence, known.holder, known.record) == (claim.fence, None, record):
            return
        task = self._held(claim) or _Task(
            record, claim.fence, claim.owner, None, now + claim.lease_seconds, now
        )
        task.record, task.expires_at = record, now + self._record_ttl
        task.due_at = _due_at(record, now, claim.lease_seconds * (LEASES_OF_GRACE - ends))
        if ends:
            task.holder = None
        self._tasks.renew(claim.task_id, task)
        self._publish(claim.task_id)

    def _held(self, claim: Claim) -> _Task | None:
        task = self._tasks.get(claim.task_id)
        if task and (task.fence, task.holder) != (claim.fence, claim.owner):
            raise ClaimLost(claim.task_id)
        return task

    def _stored(self, task: _Task, now: float) -> Stored:
        return Stored(task.record, task.fence, self._owner(task, now), task.cancel_requested)

    def _owner(self, task: _Task, now: float) -> str | None:
        return task.holder if now < task.lease_ends_at else None

    def _publish(self, task_id: str) -> None:
        for changed in self._watchers.get(task_id, ()):
            changed.set()


def _due_at(record: TaskRecord, now: float, grace_seconds: float = 0) -> float | None:
    seconds = due_in(record, grace_seconds=grace_seconds)
    return None if seconds is None else now + seconds
