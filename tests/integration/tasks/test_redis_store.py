"""What only the Redis store has: keys that live by Redis' clock, a shared connection, and a server that can fail."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Self

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot

from agent.errors import StoreUnavailable
from agent.tasks import redis_feed
from agent.tasks.record import State
from agent.tasks.redis import RedisStore
from agent.tasks.store import Claim, Stored, TaskStore
from tests.integration.tasks.steps import (
    CALLS,
    STEP_SECONDS,
    WAIT_SECONDS,
    Follower,
    claim_of,
    eventually,
    lease_to_end,
    make_task,
)
from tests.redis_server import RedisServer

MakeStore = Callable[..., RedisStore]
NO_REREAD = 600  # seconds: what a watcher sees, it was told

WRITING = ["take", "write", "release", "extend", "request_cancel", "put_output"]
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@pytest.fixture
def make_store(opened: Callable[[TaskStore], TaskStore], redis_prefix: str) -> MakeStore:
    def make(url: str, **options: float) -> RedisStore:
        options = {"record_ttl_seconds": 60, "output_ttl_seconds": 60, **options}
        store = RedisStore(url, prefix=redis_prefix, **options)
        opened(store)
        return store

    return make


@asynccontextmanager
async def admin_of(server: RedisServer) -> AsyncIterator[Redis]:
    async with Redis.from_url(server.url, decode_responses=True, protocol=2) as admin:
        yield admin


class TestKeys:
    async def test_every_key_expires(
        self, make_store: MakeStore, redis_server: RedisServer, redis_prefix: str
    ) -> None:
        store = make_store(redis_server.url, record_ttl_seconds=50, output_ttl_seconds=40)
        for end in State:
            claim = await claim_of(store, make_task(f"task-{end}"), lease_seconds=30)
            await store.put_output(claim, 0, b"data")
            await store.extend(claim)
            await store.request_cancel(claim.task_id)
            await store.write(claim, make_task(claim.task_id, state=end))
        await store.release(await claim_of(store, make_task("released")), make_task("released"))
        async with admin_of(redis_server) as admin:
            ttls = {
                key: await admin.ttl(key) async for key in admin.scan_iter(count=1000) if redis_prefix in key
            }
        assert len(ttls) == 16  # 3 of the index, 6 tasks, 2 live leases, 5 outputs
        assert all(0 < ttl <= 50 for ttl in ttls.values()), ttls

    async def test_keys_of_a_task_share_a_slot(
        self, make_store: MakeStore, redis_server: RedisServer, redis_prefix: str
    ) -> None:
        store = make_store(redis_server.url)
        claim = await claim_of(store, make_task("a.b_c:d-e"))
        await store.put_output(claim, 0, b"data")
        async with admin_of(redis_server) as admin:
            keys = [key async for key in admin.scan_iter(count=1000) if redis_prefix in key]
        slots = {key_slot(key.encode()) for key in keys if "{a.b_c:d-e}" in key}
        assert len(slots) == 1
        assert len({key_slot(key.encode()) for key in keys if "{index}" in key}) == 1

    async def test_lease_lives_in_redis(
        self, make_store: MakeStore, redis_server: RedisServer, redis_prefix: str
    ) -> None:
        claim = await claim_of(make_store(redis_server.url), make_task(), lease_seconds=30)
        async with admin_of(redis_server) as admin:
            lease = f"{redis_prefix}{{task-1}}:lease"
            assert 29_000 < await admin.pttl(lease) <= 30_000
            # Redis lets it end: the instance has no say.
            await admin.pexpire(lease, 1)
        store = make_store(redis_server.url)
        await lease_to_end(store)
        assert (await claim_of(store, make_task(), fence=claim.fence, owner="b")).fence == 2

    async def test_index_stays_small_although_nobody_lists(
        self, make_store: MakeStore, redis_server: RedisServer, redis_prefix: str
    ) -> None:
        store = make_store(redis_server.url, record_ttl_seconds=0.3)
        for i in range(50):
            await claim_of(store, make_task(f"old-{i}"))

        async def trimmed() -> bool:
            await claim_of(store, make_task(f"new-{time.time()}"))
            return all(
                [await admin.zcard(f"{redis_prefix}{{index}}:{name}") < 45 for name in ("position", "expiry")]
            )

        async with admin_of(redis_server) as admin:
            await eventually(trimmed)

    async def test_evicted_task_leaves_the_index(
        self, make_store: MakeStore, redis_server: RedisServer, redis_prefix: str
    ) -> None:
        store = make_store(redis_server.url)
        await claim_of(store, make_task())
        async with admin_of(redis_server) as admin:
            await admin.delete(f"{redis_prefix}{{task-1}}:task")
            assert (await store.page()).records == ()
            assert [
                await admin.zcard(f"{redis_prefix}{{index}}:{name}") for name in ("position", "expiry")
            ] == [0, 0]

    async def test_scripts_are_loaded_again_when_redis_lost_them(
        self, make_store: MakeStore, private_redis: RedisServer
    ) -> None:
        store = make_store(private_redis.url)
        claim = await claim_of(store, make_task())
        async with admin_of(private_redis) as admin:
            await admin.script_flush()
        await store.write(claim, make_task(state=State.SUCCEEDED))
        assert (await store.page()).records[0].state is State.SUCCEEDED

    async def test_each_step_is_one_round_trip(
        self, make_store: MakeStore, redis_server: RedisServer
    ) -> None:
        async with _Relay(redis_server.port) as relay:
            store = make_store(f"redis://127.0.0.1:{relay.port}")
            await _warm_up(store)

            async def cost(step: Awaitable[object]) -> int:
                before = relay.requests
                await step
                return relay.requests - before

            assert await cost(store.take(make_task(), expected_fence=0, owner="a", lease_seconds=30)) == 1
            claim = Claim("task-1", 1, "a", 30)
            assert await cost(store.write(claim, make_task(progress=0.5))) == 1
            assert await cost(store.extend(claim)) == 1
            assert await cost(store.read("task-1")) == 1
            assert await cost(store.request_cancel("task-1")) == 1
            assert await cost(store.write(claim, make_task(state=State.SUCCEEDED))) == 1


class TestFollowing:
    async def test_two_hundred_watchers_share_one_connection(
        self, make_store: MakeStore, private_redis: RedisServer
    ) -> None:
        store, other = make_store(private_redis.url), make_store(private_redis.url)
        claims = [await claim_of(store, make_task(f"task-{i}")) for i in range(50)]
        followers = [Follower(other, f"task-{i % 50}") for i in range(200)]
        async with admin_of(private_redis) as admin:

            async def all_subscribed() -> bool:
                return len(await admin.pubsub_channels()) == 50

            await eventually(all_subscribed)
            assert len(await admin.client_list(_type="pubsub")) == 1
            await asyncio.gather(
                *(store.write(c, make_task(c.task_id, state=State.SUCCEEDED)) for c in claims)
            )
            assert {await follower.to_end() for follower in followers} == {State.SUCCEEDED}

            async def none_subscribed() -> bool:
                return not await admin.pubsub_channels()

            await eventually(none_subscribed)

    async def test_closed_store_leaves_no_connection(
        self, make_store: MakeStore, private_redis: RedisServer
    ) -> None:
        store = make_store(private_redis.url)
        await claim_of(store, make_task())
        follower = Follower(store)
        await follower.until(lambda stored: stored.owner == "a")
        await asyncio.gather(*(store.read("task-1") for _ in range(20)))
        await store.close()
        with pytest.raises(StoreUnavailable):
            await follower.to_end()
        async with admin_of(private_redis) as admin:

            async def only_admin() -> bool:
                return len(await admin.client_list()) == 1

            await eventually(only_admin)

    async def test_call_under_way_at_close_leaves_no_connection(
        self, make_store: MakeStore, private_redis: RedisServer
    ) -> None:
        store = make_store(private_redis.url)
        await claim_of(store, make_task())
        for pause in range(20):
            store = make_store(private_redis.url)
            calls = [asyncio.create_task(store.read("task-1")) for _ in range(20)]
            for _ in range(pause):
                await asyncio.sleep(0)
            await store.close()
            answers = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(answer) for answer in answers} <= {Stored, StoreUnavailable}
        await asyncio.sleep(0)
        async with admin_of(private_redis) as admin:

            async def only_admin() -> bool:
                return len(await admin.client_list()) == 2  # and the first store's

            await eventually(only_admin, 2)

    async def test_store_closes_while_its_connection_breaks(
        self, make_store: MakeStore, private_redis: RedisServer
    ) -> None:
        # Each round closes a little later after the break. On Python 3.11 a TaskGroup whose child fails at the
        # moment when it is cancelled forgets the cancellation.
        for pause in range(40):
            store = make_store(private_redis.url)
            async with _hearing_cancels(store, private_redis), admin_of(private_redis) as admin:
                await admin.client_kill_filter(_type="pubsub")
                for _ in range(pause):
                    await asyncio.sleep(0)
                async with asyncio.timeout(WAIT_SECONDS):
                    await store.close()

    async def test_news_come_by_message_not_by_rereading(
        self, make_store: MakeStore, redis_server: RedisServer
    ) -> None:
        store, other = make_store(redis_server.url), make_store(redis_server.url, reread_seconds=NO_REREAD)
        claim = await claim_of(store, make_task())
        follower = Follower(other)
        await follower.until(lambda stored: stored.owner == "a")
        await store.write(claim, make_task(state=State.SUCCEEDED))
        await follower.to_end()

    @pytest.mark.parametrize("is_shared", [False, True], ids=["first watcher", "second watcher"])
    async def test_write_between_read_and_subscription_is_seen(
        self, make_store: MakeStore, redis_server: RedisServer, is_shared: bool
    ) -> None:
        store, other = make_store(redis_server.url), make_store(redis_server.url, reread_seconds=NO_REREAD)
        claim = await claim_of(store, make_task())
        async with aclosing(other.watch("task-1")) as changes, asyncio.timeout(WAIT_SECONDS):
            await anext(changes)  # has read, and subscribes with the next step
            first = Follower(other) if is_shared else None
            if first:
                await _told_of_changes(first, store, claim)
            await store.write(claim, make_task(progress=0.5))
            if first:
                await first.until(lambda stored: stored.record.progress == 0.5)
            assert (await anext(changes)).record.progress == 0.5
            if first:
                await first.leave()

    async def test_overtaken_message_is_ignored(
        self, make_store: MakeStore, redis_server: RedisServer, redis_prefix: str
    ) -> None:
        store, other = make_store(redis_server.url), make_store(redis_server.url)
        claim = await claim_of(store, make_task())
        follower = Follower(other)
        channel = f"{redis_prefix}{{task-1}}:changes"
        async with admin_of(redis_server) as admin, admin.pubsub(ignore_subscribe_messages=True) as pubsub:
            await pubsub.subscribe(channel)
            await pubsub.get_message(timeout=1)
            for progress in (0.1, 0.2):
                await store.write(claim, make_task(progress=progress))
                await follower.until(lambda stored, now=progress: stored.record.progress == now)
            old = await pubsub.get_message(timeout=1)
            assert '"progress":0.1' in old["data"]
            await admin.publish(channel, old["data"])
        await store.write(claim, make_task(state=State.SUCCEEDED, progress=1))
        await follower.to_end()
        shown = [stored.record.progress for stored in follower.seen]
        assert shown == sorted(shown)

    async def test_cancel_is_heard_at_once(self, make_store: MakeStore, redis_server: RedisServer) -> None:
        store, other = make_store(redis_server.url), make_store(redis_server.url)
        await claim_of(store, make_task(), owner="a")
        async with _hearing_cancels(store, redis_server) as heard:
            await other.request_cancel("task-1")
            assert await asyncio.wait_for(heard, WAIT_SECONDS) == "task-1"

    async def test_watch_goes_on_after_a_restart(
        self, make_store: MakeStore, private_redis: RedisServer
    ) -> None:
        store = make_store(private_redis.url)
        other = make_store(private_redis.url, reread_seconds=NO_REREAD)
        claim = await claim_of(store, make_task())
        follower = Follower(other)
        await follower.until(lambda stored: stored.owner == "a")
        private_redis.stop()
        with pytest.raises(StoreUnavailable):
            await store.write(claim, make_task(state=State.RUNNING))
        private_redis.start()
        # Written as soon as Redis is back: before or after the watcher is.
        await store.write(claim, make_task(state=State.SUCCEEDED))
        assert await follower.to_end() is State.SUCCEEDED

    async def test_watch_outlasts_a_silent_redis(
        self, make_store: MakeStore, private_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(redis_feed, "IDLE_SECONDS", 0.1)
        monkeypatch.setattr(redis_feed, "ANSWER_SECONDS", 0.1)
        store = make_store(private_redis.url)
        other = make_store(private_redis.url, reread_seconds=NO_REREAD)
        claim = await claim_of(store, make_task())
        follower = Follower(other)
        await follower.until(lambda stored: stored.owner == "a")
        async with admin_of(private_redis) as admin:
            # None or two at a bad moment: on a busy machine a connection may be found silent before it is.
            before = {client["id"] for client in await admin.client_list(_type="pubsub")}
            private_redis.pause()
            await asyncio.sleep(0.5)  # longer than it may be silent
            private_redis.resume()

            async def connected_anew() -> bool:
                ids = {client["id"] for client in await admin.client_list(_type="pubsub")}
                return bool(ids - before)

            await eventually(connected_anew)
        await store.write(claim, make_task(state=State.SUCCEEDED))
        assert await follower.to_end() is State.SUCCEEDED

    async def test_cancel_reaches_owner_after_a_restart(
        self, make_store: MakeStore, private_redis: RedisServer
    ) -> None:
        store, other = make_store(private_redis.url), make_store(private_redis.url)
        claim = await claim_of(store, make_task(), owner="a")
        async with _hearing_cancels(store, private_redis) as heard:
            await other.request_cancel("task-1")
            await asyncio.wait_for(heard, WAIT_SECONDS)
        private_redis.stop()
        private_redis.start()
        assert await store.extend(claim) is True
        async with _hearing_cancels(store, private_redis) as heard:
            await other.request_cancel("task-1")
            assert await asyncio.wait_for(heard, WAIT_SECONDS) == "task-1"


class TestFaults:
    @every_call
    async def test_absent_redis_is_said_at_once(
        self, make_store: MakeStore, call: Callable[[TaskStore], Awaitable[object]]
    ) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
            store = make_store(f"redis://user:sEcret@127.0.0.1:{port}/0")
            began = time.monotonic()
            with pytest.raises(StoreUnavailable, match="cannot be reached") as error:
                await call(store)
            assert time.monotonic() - began < WAIT_SECONDS
            assert not any(secret in error.value.detail for secret in ("sEcret", "127.0.0.1", str(port)))

    @every_call
    async def test_silent_redis_is_given_up(
        self,
        make_store: MakeStore,
        private_redis: RedisServer,
        call: Callable[[TaskStore], Awaitable[object]],
    ) -> None:
        store = make_store(private_redis.url, timeout_seconds=0.1)
        await _warm_up(store)
        private_redis.pause()
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="does not answer"):
            await call(store)
        assert time.monotonic() - began < WAIT_SECONDS
        private_redis.resume()
        await eventually(lambda: _answers(store))

    async def test_same_store_works_when_redis_comes_up_later(
        self, make_store: MakeStore, private_redis: RedisServer
    ) -> None:
        private_redis.stop()
        store = make_store(private_redis.url)
        with pytest.raises(StoreUnavailable):
            await store.ping()
        private_redis.start()
        await store.ping()
        private_redis.stop()
        with pytest.raises(StoreUnavailable):
            await store.ping()
        private_redis.start()
        await claim_of(store, make_task())

    async def test_restart_between_calls_is_not_noticed(
        self, make_store: MakeStore, private_redis: RedisServer
    ) -> None:
        store = make_store(private_redis.url)
        claim = await claim_of(store, make_task())
        await asyncio.gather(*(store.read("task-1") for _ in range(20)))  # several connections, all dead soon
        private_redis.stop()
        private_redis.start()
        await asyncio.gather(*(store.extend(claim) for _ in range(20)))

    async def test_connections_that_died_without_a_sign_cost_one_timeout(
        self, make_store: MakeStore, redis_server: RedisServer
    ) -> None:
        # As after a freeze, when a gateway on the way has forgotten the connections.
        async with _Relay(redis_server.port) as relay:
            store = make_store(f"redis://127.0.0.1:{relay.port}", timeout_seconds=5)
            await asyncio.gather(*(store.ping() for _ in range(10)))
            relay.forget_connections()
            await store.ping()
            began = time.monotonic()
            await asyncio.gather(*(store.ping() for _ in range(10)))
            assert time.monotonic() - began < 5

    async def test_take_whose_answer_got_lost_is_still_a_claim(
        self, make_store: MakeStore, redis_server: RedisServer
    ) -> None:
        async with _Relay(redis_server.port) as relay:
            store = make_store(f"redis://127.0.0.1:{relay.port}")
            await _warm_up(store)
            relay.cut_before_next_answer()
            assert await claim_of(store, make_task(), owner="a") == Claim("task-1", 1, "a", 30)
            relay.cut_before_next_answer()
            await store.write(Claim("task-1", 1, "a", 30), make_task(state=State.SUCCEEDED, created_at=1000))
            assert relay.cuts == 2

    @pytest.mark.parametrize("name", WRITING)
    async def test_read_only_replica_is_said(
        self, make_store: MakeStore, private_redis: RedisServer, name: str
    ) -> None:
        store = make_store(private_redis.url)
        await claim_of(store, make_task(), owner="a")
        async with admin_of(private_redis) as admin:
            await admin.execute_command("REPLICAOF", "127.0.0.1", "1")
            with pytest.raises(StoreUnavailable, match="read only replica"):
                await CALLS[name](store)
            assert await store.read("task-1")
            await admin.execute_command("REPLICAOF", "NO", "ONE")
        await CALLS[name](store)

    @pytest.mark.parametrize("name", ["take", "write", "put_output"])
    async def test_full_redis_is_said_and_changes_nothing(
        self, make_store: MakeStore, private_redis: RedisServer, name: str
    ) -> None:
        store = make_store(private_redis.url)
        await claim_of(store, make_task(), owner="a")
        before = await store.read("task-1")
        async with admin_of(private_redis) as admin:
            await admin.config_set("maxmemory", 1)
            with pytest.raises(StoreUnavailable, match="maxmemory"):
                await CALLS[name](store)
            assert await store.read("task-1") == before
            await admin.config_set("maxmemory", 0)
        await CALLS[name](store)

    async def test_wrong_password_is_said_but_not_shown(self, make_store: MakeStore, tmp_path) -> None:
        server = RedisServer(tmp_path, password="right-one")
        server.start()
        try:
            store = make_store(f"redis://:wrong-one@127.0.0.1:{server.port}")
            with pytest.raises(StoreUnavailable, match="password") as error:
                await store.ping()
            assert "-one" not in str(error.value)
            await make_store(server.url).ping()
        finally:
            server.stop()

    @pytest.mark.parametrize("url", ["redis://:pa/ss@host:1", "http://:pass@host", "", "host:6379"])
    async def test_malformed_url_is_refused_without_showing_it(self, make_store: MakeStore, url: str) -> None:
        with pytest.raises(ValueError, match="REDIS_URL must look like") as error:
            make_store(url)
        assert "pa" not in str(error.value).replace("password", "")

    async def test_tls_url_needs_nothing_special(
        self, make_store: MakeStore, redis_server: RedisServer
    ) -> None:
        store = make_store(redis_server.url.replace("redis://", "rediss://"), timeout_seconds=0.2)
        with pytest.raises(StoreUnavailable):  # this server speaks no TLS
            await store.ping()

    async def test_cancelled_call_does_not_disturb_the_next(
        self, make_store: MakeStore, private_redis: RedisServer
    ) -> None:
        store = make_store(private_redis.url)
        await claim_of(store, make_task(), owner="a")
        private_redis.pause()
        calls = [asyncio.create_task(store.read("task-1")) for _ in range(10)]
        await asyncio.sleep(0.05)  # until they wait for the answer
        for call in calls:
            call.cancel()
        assert all(
            isinstance(e, asyncio.CancelledError)
            for e in await asyncio.gather(*calls, return_exceptions=True)
        )
        private_redis.resume()
        assert await store.get_output("task-1", 1, 0) is None
        assert await store.read("task-1")


async def _warm_up(store: TaskStore) -> None:
    """Open a connection and let Redis learn the scripts."""
    claim = await claim_of(store, make_task("warm-up"))
    await store.extend(claim)
    await store.request_cancel("warm-up")
    await store.write(claim, make_task("warm-up", state=State.SUCCEEDED))
    await store.read("warm-up")


async def _told_of_changes(follower: Follower, store: TaskStore, claim: Claim) -> None:
    """Change the task until the follower sees it: then it is subscribed."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not (follower.seen and follower.seen[-1].record.progress):
            await store.write(claim, make_task(progress=0.1))
            await asyncio.sleep(STEP_SECONDS)


async def _answers(store: TaskStore) -> bool:
    try:
        await store.ping()
    except StoreUnavailable:
        return False
    return True


@asynccontextmanager
async def _hearing_cancels(store: TaskStore, server: RedisServer) -> AsyncIterator[asyncio.Future[str]]:
    """The next cancel that owner "a" hears; Redis knows that it listens."""
    async with aclosing(store.cancels("a")) as cancels, admin_of(server) as admin:
        heard = asyncio.ensure_future(anext(cancels))

        async def listening() -> bool:
            return any(channel.endswith("cancels:a") for channel in await admin.pubsub_channels())

        await eventually(listening)
        yield heard
        heard.cancel()
        await asyncio.gather(heard, return_exceptions=True)


class _Relay:
    """Stands between a store and Redis, counts what it is sent in one piece, and can misbehave."""

    def __init__(self, port: int) -> None:
        self.requests = 0
        self.cuts = 0
        self._redis_port = port
        self._cut = False
        self._generation = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def cut_before_next_answer(self) -> None:
        self._cut = True

    def forget_connections(self) -> None:
        """Swallow from now on what comes on the connections that exist."""
        self._generation += 1

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        generation = self._generation
        redis, to_redis = await asyncio.open_connection("127.0.0.1", self._redis_port)
        try:
            while request := await client.read(2**20):
                self.requests += 1
                if generation != self._generation:
                    continue
                to_redis.write(request)
                answer = await redis.read(2**20)
                if self._cut:
                    self._cut, self.cuts = False, self.cuts + 1
                    return
                to_client.write(answer)
        finally:
            self._tasks.discard(task)
            for writer in (to_redis, to_client):
                writer.close()
