"""The task store that instances share: Redis 6.2 or later, or what speaks its protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection
from typing import Any

from agent.errors import StoreUnavailable
from agent.tasks.record import State, TaskRecord
from agent.tasks.redis_connection import Call, Connection, open_client
from agent.tasks.redis_feed import Feed
from agent.tasks.redis_index import Index
from agent.tasks.redis_keys import Keys
from agent.tasks.redis_scripts import (
    AMEND,
    CANCEL,
    EXTEND,
    INDEX,
    OVERDUE,
    READ,
    SEE_TO,
    TAKE,
    WRITE,
    Script,
)
from agent.tasks.redis_snapshot import Snapshot, read_message, to_snapshot
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

OUTPUT_PATIENCE = 4  # outputs are large: how much longer they may take than other calls


class RedisStore(TaskStore):
    """Connects when it is first used, and again whenever it has to.

    A call to a Redis that refuses connections fails at once. One to a silent Redis gets a second chance on a new
    connection after `timeout_seconds` and fails after 1.5 times that; with outputs, which are large, after four
    times as long. `reread_seconds` is how long a lost message or an expired lease may escape a watcher.
    Raises ValueError for a URL that is none.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str,
        record_ttl_seconds: float,
        output_ttl_seconds: float,
        timeout_seconds: float = 5,
        reread_seconds: float = 12,
    ) -> None:
        self._keys = Keys(prefix)
        self._record_ttl_ms = _milliseconds(record_ttl_seconds)
        self._output_ttl_ms = _milliseconds(output_ttl_seconds)
        self._reread_seconds = reread_seconds
        self._connection = Connection(url, timeout_seconds=timeout_seconds)
        self._index = Index(self._connection, self._keys)
        self._feed = Feed(open_client(url, connections=1, retries=0))

    @property
    def failures(self) -> int:
        return self._connection.failures

    async def ping(self) -> None:
        await self._connection.send(("PING",))

    def renew(self) -> None:
        self._connection.renew()
        self._feed.renew()

    async def close(self) -> None:
        await self._connection.close()
        await self._feed.close()  # wakes the watchers, who find the connection closed

    async def read(self, task_id: str) -> Stored | None:
        snapshot = await self._snapshot(task_id)
        return snapshot.stored if snapshot else None

    async def take(
        self, record: TaskRecord, *, expected_fence: int, owner: str, lease_seconds: float
    ) -> Claim | Stored:
        args = (expected_fence, owner, _milliseconds(lease_seconds), int(record.state.is_final))
        reply = await self._store(TAKE, record, *args, grace_seconds=LEASES_OF_GRACE * lease_seconds)
        if isinstance(reply, int):
            return Claim(record.id, reply, owner, lease_seconds)
        return to_snapshot(reply).stored

    async def write(self, claim: Claim, record: TaskRecord) -> None:
        await self._write(claim, record, ends=record.state.is_final)

    async def amend(self, record: TaskRecord, *, fence: int) -> bool:
        return bool(await self._store(AMEND, record, fence))

    async def release(self, claim: Claim, record: TaskRecord) -> None:
        await self._write(claim, record, ends=True)

    async def extend(self, claim: Claim) -> bool:
        args = (claim.fence, claim.owner, _milliseconds(claim.lease_seconds), self._record_ttl_ms)
        reply, _ = await self._connection.run(
            Call(EXTEND, self._keys.task(claim.task_id), args),
            self._see_to(claim.task_id, LEASES_OF_GRACE * claim.lease_seconds, "GT"),
        )
        if reply == -1:
            raise ClaimLost(claim.task_id)
        return bool(reply)

    async def request_cancel(self, task_id: str) -> Stored | None:
        (reply,) = await self._connection.run(
            Call(CANCEL, self._keys.task(task_id), (task_id, self._keys.cancels("")))
        )
        return to_snapshot(reply).stored if reply else None

    async def cancels(self, owner: str) -> AsyncGenerator[str, None]:
        # Not bounded: requests name this owner's tasks only, and it reads them as they come.
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._connection.refuse_if_closed()
        with self._feed.listen(self._keys.cancels(owner), queue.put_nowait):
            while True:
                task_id = await queue.get()
                self._connection.refuse_if_closed()
                if task_id is not None:
                    yield task_id.decode()

    async def watch(self, task_id: str) -> AsyncGenerator[Stored, None]:
        seen = await self._snapshot(task_id)
        if seen is None:
            return
        yield seen.stored
        notice = _Latest()
        with self._feed.listen(self._keys.changes(task_id), notice.put):
            while not seen.stored.record.state.is_final:
                message = await notice.get(self._reread_seconds)
                if message is None:
                    news = await self._snapshot_if_reachable(task_id, seen)
                else:
                    news = read_message(message)
                if news is None:
                    return
                if message is not None and news.version <= seen.version:
                    continue  # a read on the other connection has overtaken it
                if news.stored != seen.stored:
                    yield news.stored
                seen = news

    async def overdue(self, *, limit: int, put_off_seconds: float) -> list[Stored]:
        args = (limit, _milliseconds(put_off_seconds))
        (ids,) = await self._connection.run(Call(OVERDUE, (self._keys.due,), args))
        if not ids:
            return []
        replies = await self._connection.run(
            *(Call(READ, self._keys.task(task_id.decode())) for task_id in ids)
        )
        tasks = [to_snapshot(reply).stored if reply else None for reply in replies]
        # The set says only whom to look at; what is so of a task its record knows.
        found, clear = [], []
        for task_id, task in zip(ids, tasks, strict=True):
            due = due_in(task.record) if task is not None else None
            if task is None or due is None:
                clear.append(task_id)
            elif due > 0:
                await self._connection.run(self._see_to(task_id, due))
            elif task.owner is None:
                found.append(task)
        if clear:
            await self._connection.send(("ZREM", self._keys.due, *clear))
        return found

    async def page(
        self, *, states: Collection[State] | None = None, limit: int = 50, before: str | None = None
    ) -> Page:
        return await self._index.page(states, limit, before)

    async def put_output(self, claim: Claim, index: int, data: bytes) -> None:
        key = self._keys.output(claim.task_id, claim.fence, index)
        await self._connection.send(("SET", key, data, "PX", self._output_ttl_ms), patience=OUTPUT_PATIENCE)

    async def get_output(self, task_id: str, attempt: int, index: int) -> bytes | None:
        key = self._keys.output(task_id, attempt, index)
        (data,) = await self._connection.send(("GET", key), patience=OUTPUT_PATIENCE)
        return data  # type: ignore[no-any-return]

    async def put_preview(self, claim: Claim, data: bytes) -> None:
        await self._connection.send(("SET", self._keys.preview(claim.task_id), data, "EX", PREVIEW_SECONDS))

    async def get_preview(self, task_id: str) -> bytes | None:
        (data,) = await self._connection.send(("GET", self._keys.preview(task_id)))
        return data  # type: ignore[no-any-return]

    async def put_parked(self, digest: str, data: bytes) -> None:
        key = self._keys.parked(digest)
        await self._connection.send(("SET", key, data, "PX", self._record_ttl_ms), patience=OUTPUT_PATIENCE)

    async def get_parked(self, digest: str) -> bytes | None:
        (data,) = await self._connection.send(("GET", self._keys.parked(digest)), patience=OUTPUT_PATIENCE)
        return data  # type: ignore[no-any-return]

    async def _snapshot(self, task_id: str) -> Snapshot | None:
        (reply,) = await self._connection.run(Call(READ, self._keys.task(task_id)))
        return to_snapshot(reply) if reply else None

    async def _snapshot_if_reachable(self, task_id: str, otherwise: Snapshot) -> Snapshot | None:
        try:
            return await self._snapshot(task_id)
        except StoreUnavailable:
            self._connection.refuse_if_closed()
            return otherwise

    async def _write(self, claim: Claim, record: TaskRecord, *, ends: bool) -> None:
        lease_ms = _milliseconds(claim.lease_seconds)
        args = (claim.fence, claim.owner, lease_ms, int(ends))
        grace_seconds = claim.lease_seconds * (LEASES_OF_GRACE - ends)
        if not await self._store(WRITE, record, *args, grace_seconds=grace_seconds):
            raise ClaimLost(claim.task_id)

    async def _store(
        self, script: Script, record: TaskRecord, *args: str | int, grace_seconds: float = 0
    ) -> Any:
        """Run a script that stores the record, and index the task in the same round trip.

        When the script refused, the record is another one, and so is when it is due: somebody looks.
        """
        where, ttl_ms, channel = position(record), self._record_ttl_ms, self._keys.changes(record.id)
        stored = (record.model_dump_json(), record.state, where, ttl_ms, channel)
        due = due_in(record, grace_seconds=grace_seconds)
        due_ms = "" if due is None else _milliseconds(due)
        reply, _ = await self._connection.run(
            Call(script, self._keys.task(record.id), (*args, *stored)),
            Call(INDEX, self._keys.index, (where, ttl_ms, record.id, due_ms)),
        )
        if not reply or isinstance(reply, list):
            await self._connection.run(self._see_to(record.id, grace_seconds))
        return reply

    def _see_to(self, task_id: str | bytes, seconds: float, how: str = "CH") -> Call:
        """Has somebody look at the task after so long; `how` GT: not earlier than was said before."""
        return Call(SEE_TO, (self._keys.due,), (task_id, _milliseconds(seconds), self._record_ttl_ms, how))


class _Latest:
    """Room for the latest message; None stands for messages that may have been missed."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue(1)

    def put(self, message: bytes | None) -> None:
        if self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(message)

    async def get(self, seconds: float) -> bytes | None:
        """Wait for the next message; None also when none came in time."""
        try:
            async with asyncio.timeout(seconds):
                return await self._queue.get()
        except TimeoutError:
            return None


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
