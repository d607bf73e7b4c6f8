"""Round trips to Redis, each of which ends in bounded time: with replies, or with StoreUnavailable."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from agent.errors import StoreUnavailable
from agent.tasks.redis_scripts import Script

CONNECT_SECONDS = 2
CONNECTIONS = 32  # per process; a managed Redis counts them, and instances are many

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


class Connection:
    """Connects when it is first used, and again whenever it has to. Calls may run at the same time.

    A call to a Redis that refuses connections fails at once. One to a silent Redis gets a second chance on a new
    connection after `timeout_seconds` and fails after 1.5 times that. All failures are StoreUnavailable.
    Raises ValueError for a URL that is none.
    """

    def __init__(self, url: str, *, timeout_seconds: float) -> None:
        #: Calls that raised StoreUnavailable so far, but for those after `close`.
        self.failures = 0
        self._timeout_seconds = timeout_seconds
        self._client = open_client(url, connections=CONNECTIONS, retries=1)
        self._closed = False
        self._is_stale = False
        self._dropping = asyncio.Lock()

    async def run(self, *calls: Call) -> list[Any]:
        """Run scripts in one round trip; those that Redis does not know yet are sent again in full."""
        with self._translated_errors():
            replies = await self._exchange([call.by_name for call in calls], self._timeout_seconds)
            for i, reply in enumerate(replies):
                if isinstance(reply, NoScriptError):
                    (replies[i],) = await self._exchange([calls[i].in_full], self._timeout_seconds)
            return _without_errors(replies)

    async def send(self, *commands: Command, patience: float = 1) -> list[Any]:
        """Send plain commands in one round trip, and wait `patience` times as long as usual."""
        with self._translated_errors():
            return _without_errors(await self._exchange(commands, patience * self._timeout_seconds))

    def renew(self) -> None:
        """Have the idle connections closed before the next call: they may have died without a sign."""
        self._is_stale = True

    async def close(self) -> None:
        """Refuse every further call."""
        self._closed = True
        await self._client.aclose()

    def refuse_if_closed(self) -> None:
        """Raise StoreUnavailable after `close`."""
        if self._closed:
            raise StoreUnavailable("The task store is closed.")

    async def _exchange(self, commands: Sequence[Command], timeout_seconds: float) -> list[Any]:
        self.refuse_if_closed()
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

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Turn whatever Redis or the network answers into StoreUnavailable."""
        try:
            yield
        except (RedisError, OSError) as exc:
            self.failures += 1
            raise StoreUnavailable(f"The task store (Redis) cannot be used now: {_reason(exc)}") from exc


def _reason(exc: RedisError | OSError) -> str:
    """Why, in words for callers. Neither redis-py nor Redis puts the URL or the password into its messages; host and
    port, which it names where a connection fails, need not be known outside, and are logged by the feed."""
    if isinstance(exc, TimeoutError | RedisTimeoutError):
        return "it does not answer."
    is_lost = type(exc) is RedisConnectionError or isinstance(exc, OSError)
    return "it cannot be reached." if is_lost else str(exc)


def _without_errors(replies: list[Any]) -> list[Any]:
    for reply in replies:
        if isinstance(reply, ResponseError):
            raise reply
    return replies


def open_client(url: str, *, connections: int, retries: int) -> Redis:
    """A client that does not connect yet and, once it has, waits for answers as long as its caller does.
    Raises ValueError for a URL that is none.

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
