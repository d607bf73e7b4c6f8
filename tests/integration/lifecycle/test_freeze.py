"""A frozen and thawed instance: every connection of it may be dead, and the time that it slept is nobody's fault.

The instances are stopped with SIGSTOP, agent and engine together, as the platform does between two requests. Timeouts
that would repair a dead connection are set far beyond what a test may take, so that only what the thaw does can help.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest_asyncio
from redis.asyncio import Redis

from agent.freeze import LONGEST_PAUSE_SECONDS, TICK_SECONDS
from tests.integration.agent.graphs import BLUE, GREEN, RED, fresh_color, rgb
from tests.integration.agent.pictures import color_of
from tests.integration.reliability.conftest import MakeAgent
from tests.integration.reliability.fleet import AgentProcess, outcomes, ready, slow, until
from tests.integration.reliability.proxy import TcpProxy
from tests.integration.simulator.process import Simulator
from tests.redis_server import RedisServer

#: Longer than what is taken for a busy event loop.
FREEZE_SECONDS = TICK_SECONDS + LONGEST_PAUSE_SECONDS + 0.5

#: No step of a thawed instance takes longer, not on a busy machine either.
SOON_SECONDS = 20

#: What a dead connection would cost by itself: more than SOON_SECONDS.
FAR_SECONDS = 60

Pair = tuple[AgentProcess, AgentProcess]


@dataclass
class Instance:
    """An agent whose Redis and whose engine lie behind proxies."""

    agent: AgentProcess
    engine: Simulator
    to_redis: TcpProxy
    to_engine: TcpProxy

    async def sleep(self) -> None:
        """Freeze the whole instance; meanwhile its connections die without a sign."""
        processes = (self.agent.process.pid, self.engine.process.pid)
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        assert self.to_redis.drop() > 0
        assert self.to_engine.drop() > 0
        await asyncio.sleep(FREEZE_SECONDS)  # the freeze itself
        for pid in processes:
            os.kill(pid, signal.SIGCONT)


@pytest_asyncio.fixture(loop_scope="session")
async def instance(tmp_path: Path, redis_server: RedisServer, redis_prefix: str) -> AsyncIterator[Instance]:
    engine = Simulator(tmp_path / "engine", ("--lab-nodes", "--step-seconds", "0.01"))
    await engine.start()
    try:
        async with TcpProxy(redis_server.port) as to_redis, TcpProxy(engine.port) as to_engine:
            settings = {
                "REDIS_URL": f"redis://127.0.0.1:{to_redis.port}/0",
                "AGENT_REDIS_PREFIX": redis_prefix,
                "COMFYUI_URL": to_engine.url,
                "AGENT_REDIS_TIMEOUT_SECONDS": str(FAR_SECONDS),
                "AGENT_ENGINE_SILENCE_SECONDS": str(FAR_SECONDS),
                "AGENT_LEASE_SECONDS": str(3 * FAR_SECONDS),
            }
            async with AgentProcess(tmp_path / "agent", **settings) as agent:
                await ready(agent)
                yield Instance(agent, engine, to_redis, to_engine)
    finally:
        await engine.stop()


async def test_first_run_after_a_freeze_meets_no_dead_connection(instance: Instance) -> None:
    agent = instance.agent
    for color in (RED, GREEN):
        assert color_of((await agent.run(slow(3, color=color))).results("3")[0]) == rgb(color)
        await instance.sleep()
    async with asyncio.timeout(SOON_SECONDS):
        answer = await agent.run(slow(3, color=BLUE), "thawed")
        assert color_of(answer.results("3")[0]) == rgb(BLUE)
        # The record was kept, and other connections of the pool are as good.
        records = await asyncio.gather(*(agent.task("thawed") for _ in range(8)))
    assert all(record["state"] == "succeeded" for record in records)
    assert outcomes(records[0]) == ["succeeded"]
    assert len(agent.logged("agent.thawed")) == 2
    assert not agent.logged("task.not_recorded")
    assert not agent.logged("engine.lost")


async def test_stream_and_cancel_work_after_a_freeze(instance: Instance, make_agent: MakeAgent) -> None:
    """Both come over the subscription of the store, which is the connection that is open for longest."""
    thawed = instance.agent
    other = await make_agent(AGENT_REDIS_PREFIX=thawed.environment["AGENT_REDIS_PREFIX"])
    await instance.sleep()
    async with asyncio.timeout(SOON_SECONDS):
        await other.begin(slow(20, color=RED), "streamed")
        async with thawed.http.get("/api/tasks/streamed/events") as stream:
            events = [line async for line in stream.content if line.startswith(b"data: ")]
        assert json.loads(events[-1][6:])["state"] == "succeeded"
        run = asyncio.create_task(thawed.run(slow(900), "cancelled"))
        await thawed.running("cancelled")
        assert (await other.cancel("cancelled")).status == 200
        (await run).error(410, "TaskCancelled")
    assert len(thawed.logged("redis.feed_renewed")) == 1


async def test_run_that_was_frozen_with_its_connections_ends_with_its_pictures(instance: Instance) -> None:
    """It cannot have been asleep behind a platform, which freezes no open request; a background run elsewhere can."""
    agent = instance.agent
    color = fresh_color()
    await agent.begin(slow(50, color=color), "slept")
    await agent.running("slept")
    await instance.sleep()
    record = await agent.until("slept", lambda r: r["state"] == "succeeded", 2 * SOON_SECONDS)
    assert outcomes(record) == ["succeeded"]
    assert color_of((await agent.status("slept")).results("3")[0]) == rgb(color)
    assert len(agent.logged("feed.dead")) == 1


async def test_freeze_is_neither_a_hang_nor_a_stall_of_the_engine(make_agent: MakeAgent) -> None:
    limits = {"AGENT_ENGINE_HANG_SECONDS": 2, "AGENT_ENGINE_STALL_SECONDS": 3, "AGENT_LEASE_SECONDS": 60}
    agent = await make_agent(**limits)
    color = fresh_color()
    await agent.begin(slow(50, color=color), "slept")
    await agent.running("slept")
    agent.signal_engine(signal.SIGSTOP)
    agent.pause()
    await asyncio.sleep(FREEZE_SECONDS)  # the freeze itself
    agent.resume()
    agent.signal_engine(signal.SIGCONT)
    assert outcomes(await agent.succeeded("slept")) == ["succeeded"]
    assert color_of((await agent.status("slept")).results("3")[0]) == rgb(color)
    assert (await agent.get("/readyz")).ok()["engine"]["restarts"] == 0
    assert len(agent.logged("agent.thawed")) == 1


async def test_lease_that_ran_out_in_a_freeze_is_noticed_at_once(
    make_agent: MakeAgent, pair: Pair, redis_server: RedisServer
) -> None:
    second, _ = pair
    first = await make_agent(**second.fleet, AGENT_LEASE_SECONDS=3 * FAR_SECONDS)
    graph = slow(900, color=RED)
    caller = asyncio.create_task(first.run(graph, "overslept"))
    await first.running("overslept")
    first.pause()
    # As if it had slept for longer than its lease.
    async with Redis.from_url(redis_server.url) as redis:
        await redis.delete(f"{second.environment['AGENT_REDIS_PREFIX']}{{overslept}}:lease")
    taken = asyncio.create_task(second.run(graph, "overslept"))
    await second.until("overslept", lambda r: len(r["attempts"]) == 2 and r["state"] == "running")
    await asyncio.sleep(FREEZE_SECONDS)  # the rest of the freeze
    first.resume()
    await until(lambda: first.logged("task.taken_over"), SOON_SECONDS)
    await second.cancel("overslept")
    for run in (taken, caller):
        (await run).error(410, "TaskCancelled")
