"""One pub/sub connection of a process, shared by all that listen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

log = structlog.get_logger(__name__)

#: Gets each message of its channel, and None whenever messages may have been missed before: at the start of the
#: subscription and after a lost connection. Must not block.
Listener = Callable[[bytes | None], None]

RECONNECT_SECONDS = 0.5  # a gone Redis shall not be flooded by all instances at once
IDLE_SECONDS = 10  # a connection that is silent this long is asked whether it still lives,
ANSWER_SECONDS = 5  # and has this long to answer: a frozen instance wakes up to dead ones


class _Renewed(Exception):
    """The connection is to be replaced."""


class Feed:
    """Connects at the first `listen` and stays connected until `close`, which also closes the client."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._listeners: dict[str, set[Listener]] = {}
        self._requested: set[str] = set()  # channels that Redis was told
        self._confirmed: set[str] = set()  # those that it confirmed
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._renewal = asyncio.Event()
        self._is_down = False
        self._closed = False

    @contextmanager
    def listen(self, channel: str, listener: Listener) -> Iterator[None]:
        """Call the listener with what comes. Its first call, with None, says that nothing is missed from there."""
        if self._task is None and not self._closed:
            self._task = asyncio.create_task(self._run(), name="redis-feed")
        self._listeners.setdefault(channel, set()).add(listener)
        self._changed.set()
        if self._closed or channel in self._confirmed:
            listener(None)
        try:
            yield
        finally:
            self._listeners[channel].discard(listener)
            if not self._listeners[channel]:
                del self._listeners[channel]
                self._changed.set()

    def renew(self) -> None:
        """Give the connection up for a new one, and tell every listener that it may have missed something."""
        self._renewal.set()

    async def close(self) -> None:
        """Disconnect and wake every listener with None, as is done from now on with each new one."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        await self._client.aclose()
        for channel in list(self._listeners):
            self._tell(channel, None)

    async def _run(self) -> None:
        # Not "while True": a TaskGroup whose child fails at the moment of a cancellation forgets the latter on
        # Python 3.11 (https://github.com/python/cpython/issues/116720).
        while not self._closed:
            try:
                async with self._client.pubsub() as pubsub:
                    await self._serve(pubsub)
            except* _Renewed:
                log.info("redis.feed_renewed")
            except* (RedisError, OSError) as errors:
                self._report_loss(errors.exceptions[0])
            except* Exception:  # whatever it is, the watchers' only news line must not end with it
                log.exception("redis.feed_failed")
            if not self._renewal.is_set():
                await asyncio.sleep(RECONNECT_SECONDS)

    def _report_loss(self, error: BaseException) -> None:
        if not self._is_down:
            self._is_down = True
            log.warning("redis.feed_lost", error=str(error))

    async def _serve(self, pubsub: PubSub) -> None:
        """Keep one connection until it breaks. A broken one is given up, never mended: only a new subscription
        tells the listeners that they may have missed something."""
        self._requested.clear()
        self._confirmed.clear()
        self._changed.set()
        self._renewal.clear()
        async with asyncio.timeout(ANSWER_SECONDS):
            await pubsub.connect()  # type: ignore[no-untyped-call]
        if self._is_down:
            self._is_down = False
            log.info("redis.feed_restored")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._subscribe(pubsub))
            tasks.create_task(self._receive(pubsub))
            tasks.create_task(self._until_renewal())

    async def _until_renewal(self) -> None:
        await self._renewal.wait()
        raise _Renewed

    async def _subscribe(self, pubsub: PubSub) -> None:
        """Bring the subscriptions in line with the listeners, again and again."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if new := self._listeners.keys() - self._requested:
                self._requested |= new
                await pubsub.subscribe(*new)
            if old := self._requested - self._listeners.keys():
                self._requested -= old
                self._confirmed -= old
                await pubsub.unsubscribe(*old)

    async def _receive(self, pubsub: PubSub) -> None:
        asked = False
        while True:
            patience = ANSWER_SECONDS if asked else IDLE_SECONDS
            async with asyncio.timeout(2 * patience):  # it reconnects by itself first, without a limit
                message = await pubsub.get_message(timeout=patience)
            if message is not None:
                asked = False
                self._dispatch(message)
            elif asked:
                raise RedisConnectionError(f"No answer on the pub/sub connection for {ANSWER_SECONDS} s.")
            else:
                asked = True
                await pubsub.ping()

    def _dispatch(self, message: dict[str, Any]) -> None:
        if message["type"] == "message":
            self._tell(message["channel"].decode(), message["data"])
        elif message["type"] == "subscribe" and (channel := message["channel"].decode()) in self._requested:
            self._confirmed.add(channel)
            self._tell(channel, None)

    def _tell(self, channel: str, data: bytes | None) -> None:
        for listener in tuple(self._listeners.get(channel, ())):
            listener(data)
