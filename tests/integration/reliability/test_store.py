"""Redis is slow, restarted, away, full, read-only, emptied: what goes on, what is refused, what arrives later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from tests.integration.agent.graphs import Graph, fresh_color, rgb
from tests.integration.agent.pictures import color_of
from tests.integration.agent.service import PATIENCE_SECONDS, Answer, eventually
from tests.integration.reliability.fleet import AgentProcess, Clock, outcomes, ready, slow, until
from tests.integration.reliability.proxy import TcpProxy
from tests.redis_server import RedisServer

#: A silent Redis is given up after 1.5 times this.
TIMEOUT_SECONDS = 1.2

#: Longer than any outage here, except where a test says so.
LEASE_SECONDS = 4


@dataclass
class Stand:
    """Two agents on a Redis of their own, reached through a proxy."""

    a: AgentProcess
    b: AgentProcess
    redis: RedisServer
    proxy: TcpProxy
    client: Redis

    async def works(self) -> bool:
        """Whether both agents reach Redis."""
        return [(await agent.get("/api/tasks")).status for agent in (self.a, self.b)] == [200, 200]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared_stand(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stand]:
    folder: Path = tmp_path_factory.mktemp("stand")
    redis = RedisServer(folder, durable=True)
    redis.start()
    try:
        async with TcpProxy(redis.port) as proxy:
            environment = {
                "REDIS_URL": f"redis://127.0.0.1:{proxy.port}/0",
                "AGENT_REDIS_TIMEOUT_SECONDS": str(TIMEOUT_SECONDS),
                "AGENT_LEASE_SECONDS": str(LEASE_SECONDS),
            }
            a, b = AgentProcess(folder / "a", **environment), AgentProcess(folder / "b", **environment)
            async with a, b, Redis.from_url(redis.url) as client:
                await ready(a, b)
                yield Stand(a, b, redis, proxy, client)
    finally:
        redis.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def stand(shared_stand: Stand) -> AsyncIterator[Stand]:
    yield shared_stand
    shared_stand.proxy.resume()
    shared_stand.proxy.silenced = b""
    shared_stand.proxy.refuses = False
    await eventually(shared_stand.works)
    for agent in (shared_stand.a, shared_stand.b):
        await agent.freed()


def check(answer: Answer, color: int) -> None:
    assert color_of(answer.results("3")[0]) == rgb(color)


async def test_restart_of_redis_during_a_run_is_not_noticed_by_the_caller(stand: Stand) -> None:
    color = fresh_color()
    run = asyncio.create_task(stand.a.run(slow(60, color=color), "restarted"))
    await stand.a.running("restarted")
    await asyncio.to_thread(stand.redis.stop)
    await asyncio.to_thread(stand.redis.start)
    check(await run, color)
    record = await stand.b.until("restarted", lambda r: r["state"] == "succeeded")
    assert outcomes(record) == ["succeeded"]
    check(await stand.b.status("restarted"), color)


async def test_without_redis_a_run_without_an_id_succeeds_and_every_other_is_refused(
    stand: Stand,
) -> None:
    """Nobody could say whether another instance runs the named one too, nor keep the other's result."""
    await asyncio.to_thread(stand.redis.stop)
    try:
        color = fresh_color()
        answer = await stand.a.run(slow(5, color=color))
        check(answer, color)
        unrecorded = answer.headers["task-id"]
        assert stand.a.logged("task.not_recorded")[-1]["task_id"] == unrecorded
        for refused in (await stand.a.submit(slow(5), "refused"), await stand.a.run(slow(5), "refused")):
            assert refused.error(503, "StoreUnavailable")["transient"]
        (await stand.a.get("/api/tasks/refused")).error(503, "StoreUnavailable")
        (await stand.a.cancel("refused")).error(503, "StoreUnavailable")
        assert (await stand.a.get("/healthz")).status == 200
        assert (await stand.a.get("/readyz")).status == 200
        assert (await stand.a.get("/api/queue")).status == 200
    finally:
        await asyncio.to_thread(stand.redis.start)
    # Redis is back: what its caller was answered is recorded after all, and others may ask for it.
    await recorded(stand, unrecorded, color)
    color = fresh_color()
    await stand.a.begin(slow(5, color=color), "after")
    await stand.b.succeeded("after")


async def test_redis_that_goes_away_during_a_synchronous_run_costs_the_caller_nothing(stand: Stand) -> None:
    color = fresh_color()
    run = asyncio.create_task(stand.a.run(slow(30, color=color), "gone-sync"))
    await stand.a.running("gone-sync")
    await asyncio.to_thread(stand.redis.stop)
    try:
        check(await asyncio.wait_for(run, PATIENCE_SECONDS), color)
        assert stand.a.logged("task.not_stored_yet")[-1]["task_id"] == "gone-sync"
        await asyncio.sleep(LEASE_SECONDS)  # the outage: longer than the lease
    finally:
        await asyncio.to_thread(stand.redis.start)
    await recorded(stand, "gone-sync", color)


async def test_claim_whose_answer_was_lost_is_found_during_the_run(stand: Stand) -> None:
    color = fresh_color()
    run, task_id = await begin_with_a_lost_answer(stand, slow(300, color=color))
    await hear_again(stand)
    record = await stand.b.until(task_id, lambda r: r["state"] == "running" and r["current_node"])
    assert record["error"] is None
    assert stand.a.logged("task.recorded_late")[-1]["task_id"] == task_id
    check(await run, color)
    await recorded(stand, task_id, color)


async def test_claim_whose_answer_was_lost_is_found_after_the_run(stand: Stand) -> None:
    color = fresh_color()
    run, task_id = await begin_with_a_lost_answer(stand, slow(10, color=color))
    check(await run, color)
    assert stand.a.logged("task.not_stored_yet")[-1]["task_id"] == task_id
    await eventually(lambda: lease_is_gone(stand, task_id))
    await hear_again(stand)
    await recorded(stand, task_id, color)


async def test_named_run_whose_claim_was_not_answered_runs_when_it_is_sent_again(stand: Stand) -> None:
    color = fresh_color()
    await silence(stand)
    (await stand.a.run(slow(5, color=color), "unanswered")).error(503, "StoreUnavailable")
    assert not await lease_is_gone(stand, "unanswered")
    await hear_again(stand)
    check(await stand.b.run(slow(5, color=color), "unanswered"), color)
    assert outcomes(await stand.a.task("unanswered")) == ["lost", "succeeded"]


async def begin_with_a_lost_answer(stand: Stand, graph: Graph) -> tuple[asyncio.Task[Answer], str]:
    """Start a run whose claim comes through to Redis, which from then on says nothing; also its id."""
    await silence(stand)
    known = len(stand.a.logged("task.not_recorded"))
    run = asyncio.create_task(stand.a.run(graph))
    await until(lambda: len(stand.a.logged("task.not_recorded")) > known)
    task_id = str(stand.a.logged("task.not_recorded")[-1]["task_id"])
    assert not await lease_is_gone(stand, task_id)
    return run, task_id


async def silence(stand: Stand) -> None:
    """From now on commands come through to Redis, and none of its answers."""
    warm_up = fresh_color()  # after it Redis knows the scripts, and a connection is open
    check(await stand.a.run(slow(1, color=warm_up)), warm_up)
    stand.proxy.silenced = b"*"  # how every command begins


async def hear_again(stand: Stand) -> None:
    stand.proxy.silenced = b""
    stand.proxy.cut()
    await eventually(stand.works)


async def recorded(stand: Stand, task_id: str, color: int) -> None:
    """The task has one successful attempt and its pictures, for whoever asks whichever instance."""
    await eventually(stand.works)
    for agent in (stand.b, stand.a):
        record = await agent.until(task_id, lambda r: r["state"] == "succeeded")
        assert outcomes(record) == ["succeeded"]
        check(await agent.status(task_id), color)


async def test_result_of_an_asynchronous_run_arrives_when_redis_is_back(stand: Stand) -> None:
    color = fresh_color()
    await stand.a.begin(slow(30, color=color, prefix="gone"), "gone-async")
    await stand.a.running("gone-async")
    await asyncio.to_thread(stand.redis.stop)
    try:
        await until(lambda: stand.a.executed_saves("gone"))
        await eventually(stand.a.engine.is_idle)
        await asyncio.sleep(0.5)  # the agent fetches the picture, and tells nobody that it has it
        # Asked to cancel while its result cannot be stored: an answer comes, not a hang.
        clock = Clock()
        answer = await stand.a.cancel("gone-async")
        assert answer.status == 200
        assert clock.seconds < PATIENCE_SECONDS
    finally:
        await asyncio.to_thread(stand.redis.start)
    record = await stand.b.until("gone-async", lambda r: r["state"] in ("succeeded", "cancelled"))
    assert record["state"] == "succeeded", "it was over when the cancel came"
    assert outcomes(record) == ["succeeded"]
    check(await stand.b.status("gone-async"), color)


async def test_silent_redis_is_given_up_in_bounded_time(stand: Stand) -> None:
    stand.redis.pause()
    try:
        color = fresh_color()
        clock = Clock()
        check(await stand.a.run(slow(5, color=color)), color)
        assert clock.seconds < PATIENCE_SECONDS
        clock = Clock()
        (await stand.a.submit(slow(5), "silent-async")).error(503, "StoreUnavailable")
        assert clock.seconds < PATIENCE_SECONDS
        assert (await stand.a.get("/healthz")).status == 200
    finally:
        stand.redis.resume()


async def test_redis_that_pauses_during_a_run_loses_nothing(stand: Stand) -> None:
    color = fresh_color()
    await stand.a.begin(slow(30, color=color), "paused")
    await stand.a.running("paused")
    stand.redis.pause()
    try:
        await asyncio.sleep(2 * TIMEOUT_SECONDS)  # the pause itself: the run ends within it
    finally:
        stand.redis.resume()
    record = await stand.b.until("paused", lambda r: r["state"] == "succeeded")
    assert outcomes(record) == ["succeeded"]
    check(await stand.b.status("paused"), color)


async def test_connections_to_redis_that_stall_without_a_sign_are_replaced(stand: Stand) -> None:
    color = fresh_color()
    await stand.a.begin(slow(30, color=color), "stalled")
    await stand.a.running("stalled")
    stand.proxy.stall()
    await asyncio.sleep(TIMEOUT_SECONDS)  # the stall
    stand.proxy.cut()
    stand.proxy.resume()
    record = await stand.b.until("stalled", lambda r: r["state"] == "succeeded")
    assert outcomes(record) == ["succeeded"]
    check(await stand.b.status("stalled"), color)


async def test_connections_to_redis_that_are_cut_again_and_again_lose_nothing(stand: Stand) -> None:
    colors = [fresh_color() for _ in range(8)]
    for number, color in enumerate(colors):
        await stand.a.begin(slow(8, color=color), f"cut-{number}")
    while not await stand.a.is_freed():
        stand.proxy.cut()
        await asyncio.sleep(0.1)  # between two cuts
    for number, color in enumerate(colors):
        await stand.b.succeeded(f"cut-{number}")
        check(await stand.b.status(f"cut-{number}"), color)


async def test_full_redis_refuses_what_must_be_recorded_only(stand: Stand) -> None:
    color, later = fresh_color(), fresh_color()
    await stand.a.begin(slow(30, color=later, prefix="full"), "full-running")
    await stand.a.running("full-running")
    await stand.client.config_set("maxmemory", "1mb")
    await stand.client.config_set("maxmemory-policy", "noeviction")
    try:
        check(await stand.b.run(slow(5, color=color)), color)
        assert (
            "maxmemory"
            in (await stand.b.submit(slow(5), "full-async")).error(503, "StoreUnavailable")["detail"]
        )
        await until(lambda: stand.a.executed_saves("full"))
    finally:
        await stand.client.config_set("maxmemory", "0")
    await stand.b.until("full-running", lambda r: r["state"] == "succeeded")
    check(await stand.b.status("full-running"), later)


async def test_read_only_redis_refuses_what_must_be_recorded_only(stand: Stand) -> None:
    await stand.client.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        color = fresh_color()
        check(await stand.a.run(slow(5, color=color)), color)
        detail = (await stand.a.submit(slow(5), "readonly-async")).error(503, "StoreUnavailable")["detail"]
        assert "read only" in detail
    finally:
        await stand.client.execute_command("REPLICAOF", "NO", "ONE")


async def test_emptied_redis_gets_the_result_of_a_running_task_all_the_same(stand: Stand) -> None:
    color = fresh_color()
    await stand.a.begin(slow(40, color=color), "emptied")
    await stand.a.running("emptied")
    await stand.client.flushall()
    seen: set[str] = set()

    def is_over(record: dict[str, Any]) -> bool:
        seen.add(record["state"])
        return bool(record["state"] == "succeeded")

    record = await stand.b.until("emptied", is_over)
    assert seen <= {"queued", "running", "succeeded"}, "it never looked lost"
    assert outcomes(record) == ["succeeded"]
    check(await stand.b.status("emptied"), color)


async def test_outage_longer_than_the_lease_ends_in_one_result(stand: Stand) -> None:
    """Redis comes back with the lease run out: whoever is first goes on, and nobody overwrites the other."""
    color = fresh_color()
    await stand.a.begin(slow(400, color=color), "outage")
    await stand.a.running("outage")
    stand.proxy.refuses = True
    stand.proxy.cut()
    await eventually(lambda: lease_is_gone(stand, "outage"))
    stand.proxy.refuses = False
    second = asyncio.create_task(stand.b.run(slow(400, color=color), "outage"))
    check(await asyncio.wait_for(second, PATIENCE_SECONDS), color)
    record = await stand.a.until("outage", lambda r: r["state"] == "succeeded")
    assert outcomes(record).count("succeeded") == 1
    await stand.a.freed()
    assert await stand.a.task("outage") == await stand.b.task("outage")


async def lease_is_gone(stand: Stand, task_id: str) -> bool:
    async with Redis.from_url(stand.redis.url) as client:  # of its own: Redis is restarted between two looks
        return not await client.exists(f"comfyui-agent:{{{task_id}}}:lease")
