"""The task store that instances share: Redis 6.2 or later, or what speaks its protocol.

Keys, behind the prefix; all of one task carry its id as hash tag, so that each script stays within one slot:

    {ID}:task            hash: the task (see redis_scripts)
    {ID}:lease           string: the owner, while its lease is alive
    {ID}:output:N:INDEX  string: bytes of an output of attempt N
    {ID}:preview         string: the latest picture of the task at work
    parked:SHA256        string: a part of a request that is on its way
    {index}:position     sorted set: all tasks, in order of creation
    {index}:expiry       sorted set: when they leave the index
    {index}:due          sorted set: ids of tasks that owe an end or a message, by when others must see to them

and channels: `{ID}:changes` carries each stored record, `cancels:OWNER` ids of tasks to cancel.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from agent.errors import StoreUnavailable
from agent.tasks.record import State, TaskRecord
from agent.tasks.redis_feed import Feed
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

CONNECT_SECONDS = 2
CONNECTIONS = 32  # per process; a managed Redis counts them, and instances are many
OUTPUT_PATIENCE = 4  # outputs are large: how much longer they may take than other calls
BATCH = 100  # index entries that `page` looks at in one go
BATCHES = 20  # goes a call

Command = tuple[str | int | bytes, ...]


class Call(NamedTuple):
    """A script to run."""

    script: Script
    keys: tuple[str, ...]
    args: tuple[str | int | bytes, ...] = ()

    @property
    def by_name(self) -> Command:
        return ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.args)

    @property
    def in_full(self) -> Command:
        return ("EVAL", self.script.lua, len(self.keys), *self.keys, *self.args)


class Snapshot(NamedTuple):
    """A task as a script returns and publishes it. The version grows each time the record is stored."""

    version: int
    stored: Stored


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
        self._prefix = prefix
        self._record_ttl_ms = _milliseconds(record_ttl_seconds)
        self._output_ttl_ms = _milliseconds(output_ttl_seconds)
        self._timeout_seconds = timeout_seconds
        self._reread_seconds = reread_seconds
        self._index = (f"{prefix}{{index}}:position", f"{prefix}{{index}}:expiry")
        self._due = f"{prefix}{{index}}:due"
        self._client = _client(url, connections=CONNECTIONS, retries=1)
        self._feed = Feed(_client(url, connections=1, retries=0))
        self._closed = False
        self._is_stale = False
        self._dropping = asyncio.Lock()

    async def ping(self) -> None:
        await self._send(("PING",))

    def renew(self) -> None:
        self._is_stale = True
        self._feed.renew()

    async def close(self) -> None:
        self._closed = True
        await self._feed.close()
        await self._client.aclose()

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
        return _to_snapshot(reply).stored

    async def write(self, claim: Claim, record: TaskRecord) -> None:
        await self._write(claim, record, ends=record.state.is_final)

    async def amend(self, record: TaskRecord, *, fence: int) -> bool:
        return bool(await self._store(AMEND, record, fence))

    async def release(self, claim: Claim, record: TaskRecord) -> None:
        await self._write(claim, record, ends=True)

    async def extend(self, claim: Claim) -> bool:
        args = (claim.fence, claim.owner, _milliseconds(claim.lease_seconds), self._record_ttl_ms)
        reply, _ = await self._run(
            Call(EXTEND, self._keys(claim.task_id), args),
            self._see_to(claim.task_id, LEASES_OF_GRACE * claim.lease_seconds, "GT"),
        )
        if reply == -1:
            raise ClaimLost(claim.task_id)
        return bool(reply)

    async def request_cancel(self, task_id: str) -> Stored | None:
        (reply,) = await self._run(Call(CANCEL, self._keys(task_id), (task_id, self._cancels(""))))
        return _to_snapshot(reply).stored if reply else None

    async def cancels(self, owner: str) -> AsyncGenerator[str, None]:
        # Not bounded: requests name this owner's tasks only, and it reads them as they come.
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._refuse_if_closed()
        with self._feed.listen(self._cancels(owner), queue.put_nowait):
            while True:
                task_id = await queue.get()
                self._refuse_if_closed()
                if task_id is not None:
                    yield task_id.decode()

    async def watch(self, task_id: str) -> AsyncGenerator[Stored, None]:
        seen = await self._snapshot(task_id)
        if seen is None:
            return
        yield seen.stored
        notice = _Latest()
        with self._feed.listen(self._changes(task_id), notice.put):
            while not seen.stored.record.state.is_final:
                message = await notice.get(self._reread_seconds)
                if message is None:
                    news = await self._snapshot_if_reachable(task_id, seen)
                else:
                    news = _read_message(message)
                if news is None:
                    return
                if message is not None and news.version <= seen.version:
                    continue  # a read on the other connection has overtaken it
                if news.stored != seen.stored:
                    yield news.stored
                seen = news

    async def overdue(self, *, limit: int, put_off_seconds: float) -> list[Stored]:
        args = (limit, _milliseconds(put_off_seconds))
        (ids,) = await self._run(Call(OVERDUE, (self._due,), args))
        if not ids:
            return []
        replies = await self._run(*(Call(READ, self._keys(task_id.decode())) for task_id in ids))
        tasks = [_to_snapshot(reply).stored if reply else None for reply in replies]
        # The set says only whom to look at; what is so of a task its record knows.
        found, clear = [], []
        for task_id, task in zip(ids, tasks, strict=True):
            due = due_in(task.record) if task is not None else None
            if task is None or due is None:
                clear.append(task_id)
            elif due > 0:
                await self._run(self._see_to(task_id, due))
            elif task.owner is None:
                found.append(task)
        if clear:
            await self._send(("ZREM", self._due, *clear))
        return found

    async def page(
        self, *, states: Collection[State] | None = None, limit: int = 50, before: str | None = None
    ) -> Page:
        found: list[Stored] = []
        for _ in range(BATCHES):
            positions = await self._positions(before)
            matching = await self._matching(positions, states)
            while matching and (missing := limit + 1 - len(found)):
                found += await self._tasks(matching[:missing], states)
                matching = matching[missing:]
            if len(found) > limit:
                return Page(tuple(found[:limit]), position(found[limit - 1].record))
            if len(positions) < BATCH:
                return Page(tuple(found), None)
            before = positions[-1]
        return Page(tuple(found), before)

    async def put_output(self, claim: Claim, index: int, data: bytes) -> None:
        key = self._output(claim.task_id, claim.fence, index)
        await self._send(("SET", key, data, "PX", self._output_ttl_ms), patience=OUTPUT_PATIENCE)

    async def get_output(self, task_id: str, attempt: int, index: int) -> bytes | None:
        (data,) = await self._send(("GET", self._output(task_id, attempt, index)), patience=OUTPUT_PATIENCE)
        return data  # type: ignore[no-any-return]

    async def put_preview(self, claim: Claim, data: bytes) -> None:
        await self._send(("SET", self._preview(claim.task_id), data, "EX", PREVIEW_SECONDS))

    async def get_preview(self, task_id: str) -> bytes | None:
        (data,) = await self._send(("GET", self._preview(task_id)))
        return data  # type: ignore[no-any-return]

    async def put_parked(self, digest: str, data: bytes) -> None:
        key = self._parked(digest)
        await self._send(("SET", key, data, "PX", self._record_ttl_ms), patience=OUTPUT_PATIENCE)

    async def get_parked(self, digest: str) -> bytes | None:
        (data,) = await self._send(("GET", self._parked(digest)), patience=OUTPUT_PATIENCE)
        return data  # type: ignore[no-any-return]

    # --- Tasks ----------------------------------------------------------------------------------------------------

    async def _snapshot(self, task_id: str) -> Snapshot | None:
        (reply,) = await self._run(Call(READ, self._keys(task_id)))
        return _to_snapshot(reply) if reply else None

    async def _snapshot_if_reachable(self, task_id: str, otherwise: Snapshot) -> Snapshot | None:
        try:
            return await self._snapshot(task_id)
        except StoreUnavailable:
            self._refuse_if_closed()
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
        where, ttl_ms, channel = position(record), self._record_ttl_ms, self._changes(record.id)
        stored = (record.model_dump_json(), record.state, where, ttl_ms, channel)
        due = due_in(record, grace_seconds=grace_seconds)
        due_ms = "" if due is None else _milliseconds(due)
        reply, _ = await self._run(
            Call(script, self._keys(record.id), (*args, *stored)),
            Call(INDEX, (*self._index, self._due), (where, ttl_ms, record.id, due_ms)),
        )
        if not reply or isinstance(reply, list):
            await self._run(self._see_to(record.id, grace_seconds))
        return reply

    def _see_to(self, task_id: str | bytes, seconds: float, how: str = "CH") -> Call:
        """Has somebody look at the task after so long; `how` GT: not earlier than was said before."""
        return Call(SEE_TO, (self._due,), (task_id, _milliseconds(seconds), self._record_ttl_ms, how))

    # --- The index ------------------------------------------------------------------------------------------------

    async def _positions(self, before: str | None) -> list[str]:
        newest = "+" if before is None else f"({before}"
        (found,) = await self._send(("ZREVRANGEBYLEX", self._index[0], newest, "-", "LIMIT", 0, BATCH))
        return [entry.decode() for entry in found]

    async def _matching(self, positions: list[str], states: Collection[State] | None) -> list[str]:
        """Those positions whose task has one of these states. Those whose task has expired leave the index."""
        tasks = await self._fields(positions, "position", "state")
        # An expired task whose id is used again left an entry that now leads to the new task.
        if gone := [entry for entry in positions if tasks[entry][0] != entry.encode()]:
            await self._send(*(("ZREM", key, *gone) for key in self._index))
        is_wanted = {
            entry: states is None or (tasks[entry][1] or b"").decode() in states for entry in positions
        }
        return [entry for entry in positions if entry not in gone and is_wanted[entry]]

    async def _tasks(self, positions: list[str], states: Collection[State] | None) -> list[Stored]:
        """These tasks, without those that have expired or changed their state by now."""
        replies = await self._run(*(Call(READ, self._keys(_id_at(entry))) for entry in positions))
        tasks = [_to_snapshot(reply).stored for reply in replies if reply]
        return [task for task in tasks if states is None or task.record.state in states]

    async def _fields(self, positions: list[str], *names: str) -> dict[str, list[bytes | None]]:
        """These fields of the tasks at these positions, in one round trip."""
        commands = (("HMGET", self._keys(_id_at(entry))[0], *names) for entry in positions)
        return dict(zip(positions, await self._send(*commands), strict=True))

    # --- Names ----------------------------------------------------------------------------------------------------

    def _keys(self, task_id: str) -> tuple[str, str]:
        return f"{self._prefix}{{{task_id}}}:task", f"{self._prefix}{{{task_id}}}:lease"

    def _output(self, task_id: str, attempt: int, index: int) -> str:
        return f"{self._prefix}{{{task_id}}}:output:{attempt}:{index}"

    def _preview(self, task_id: str) -> str:
        return f"{self._prefix}{{{task_id}}}:preview"

    def _parked(self, digest: str) -> str:
        return f"{self._prefix}parked:{digest}"

    def _changes(self, task_id: str) -> str:
        return f"{self._prefix}{{{task_id}}}:changes"

    def _cancels(self, owner: str) -> str:
        return f"{self._prefix}cancels:{owner}"

    # --- Redis ----------------------------------------------------------------------------------------------------

    async def _run(self, *calls: Call) -> list[Any]:
        """Run scripts in one round trip; those that Redis does not know yet are sent again in full."""
        with self._translated_errors():
            replies = await self._exchange([call.by_name for call in calls], self._timeout_seconds)
            for i, reply in enumerate(replies):
                if isinstance(reply, NoScriptError):
                    (replies[i],) = await self._exchange([calls[i].in_full], self._timeout_seconds)
            return _without_errors(replies)

    async def _send(self, *commands: Command, patience: float = 1) -> list[Any]:
        """Send plain commands in one round trip, and wait `patience` times as long as usual."""
        with self._translated_errors():
            return _without_errors(await self._exchange(commands, patience * self._timeout_seconds))

    async def _exchange(self, commands: Sequence[Command], timeout_seconds: float) -> list[Any]:
        self._refuse_if_closed()
        if self._is_stale:
            await self._drop_stale()
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._exchange_once(commands)
        except TimeoutError:
            # While the instance was frozen all its connections may have died without a sign. A new one tells.
            await self._client.connection_pool.disconnect(inuse_connections=False)
            async with asyncio.timeout(timeout_seconds / 2):
                return await self._exchange_once(commands)
        finally:
            if self._closed:  # meanwhile: the call may have connected once more
                await self._client.aclose()

    async def _drop_stale(self) -> None:
        """Close the idle connections; those in use have their own timeouts."""
        async with self._dropping:
            if self._is_stale:
                await self._client.connection_pool.disconnect(inuse_connections=False)
                self._is_stale = False

    async def _exchange_once(self, commands: Sequence[Command]) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return await pipeline.execute(raise_on_error=False)

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise StoreUnavailable("The task store is closed.")

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Turn whatever Redis or the network answers into StoreUnavailable."""
        try:
            yield
        except (RedisError, OSError) as exc:
            self.failures += 1
            # Neither redis-py nor Redis puts the URL or the password into its messages. A TimeoutError has none.
            cause = str(exc) or "it does not answer."
            raise StoreUnavailable(f"The task store (Redis) cannot be used now: {cause}") from exc


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


@lru_cache(maxsize=32)
def _read_message(message: bytes) -> Snapshot:
    """What a published message says. All who watch a task get the same one, so it is read once for all of them."""
    return _to_snapshot(message.split(b"\n", 4))


def _to_snapshot(reply: list[bytes]) -> Snapshot:
    version, fence, owner, cancel, record = reply
    stored = Stored(
        TaskRecord.model_validate_json(record),
        int(fence),
        owner.decode() or None,
        cancel_requested=bool(cancel),
    )
    return Snapshot(int(version), stored)


def _without_errors(replies: list[Any]) -> list[Any]:
    for reply in replies:
        if isinstance(reply, ResponseError):
            raise reply
    return replies


def _id_at(place: str) -> str:
    return place.split(":", 1)[1]


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _client(url: str, *, connections: int, retries: int) -> Redis:
    """A client that does not connect yet and, once it has, waits for answers as long as its caller does.

    Without `socket_timeout`: it would go through `asyncio.wait_for`, which on Python 3.11 may swallow a
    cancellation (https://github.com/python/cpython/issues/86296).
    """
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=connections,
            timeout=None,
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=None,
            retry=Retry(NoBackoff(), retries),
            protocol=2,  # which every Redis and its relatives speak
        )
    except (ValueError, TypeError):
        # The message of the cause can hold a part of the password.
        raise ValueError(
            "REDIS_URL must look like redis://user:password@host:6379/0 (rediss:// for TLS),"
            " with special characters of the password percent-encoded."
        ) from None
    return Redis.from_pool(pool)
