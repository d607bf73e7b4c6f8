"""Too much work is refused early; shutdown finishes what it can, puts the rest back and leaves no process."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.agent.graphs import BLUE, GREEN, RED, fresh_color, rgb
from tests.integration.agent.pictures import color_of
from tests.integration.agent.service import PATIENCE_SECONDS, eventually
from tests.integration.reliability.conftest import MakeAgent
from tests.integration.reliability.fleet import AgentProcess, Clock, is_alive, outcomes, slow, until

Pair = tuple[AgentProcess, AgentProcess]


async def test_full_queue_refuses_with_429_and_when_to_come_again(make_agent: MakeAgent) -> None:
    agent = await make_agent(AGENT_QUEUE_SIZE=1, AGENT_CONCURRENCY=1)
    first = asyncio.create_task(agent.run(slow(60, color=RED), "one"))
    await agent.running("one")
    await agent.begin(slow(2, color=GREEN), "two")
    refused = await agent.run(slow(2), "three")
    assert refused.error(429, "QueueFull")["transient"]
    assert int(refused.headers["Retry-After"]) > 0
    assert (await agent.get("/api/tasks/three")).status == 404, (
        "a refusal of a caller who hears it is no task"
    )
    # Joining a task that is here already takes no room.
    joined = asyncio.create_task(agent.run(slow(60, color=RED), "one"))
    assert color_of((await first).results("3")[0]) == rgb(RED)
    assert (await joined).body == (await first).body
    await agent.succeeded("two")
    assert color_of((await agent.run(slow(2, color=BLUE), "three")).results("3")[0]) == rgb(BLUE)


async def test_sigterm_lets_running_tasks_finish_and_puts_the_others_back(
    make_agent: MakeAgent, pair: Pair
) -> None:
    second, _ = pair
    first = await make_agent(AGENT_CONCURRENCY=1, AGENT_SHUTDOWN_SECONDS=4, **second.fleet)
    graphs = {"finishes": slow(40, color=RED), "put-back": slow(300, color=GREEN)}
    for name, graph in graphs.items():
        await first.begin(graph, name)
    await first.running("finishes")
    engine = first.engine_pid
    assert engine is not None
    stopping = asyncio.create_task(first.stop())
    assert await stopping == 0
    await until(lambda: not is_alive(engine))
    assert (await second.task("finishes"))["state"] == "succeeded"
    assert color_of((await second.status("finishes")).results("3")[0]) == rgb(RED)
    # It was given back, not abandoned: nobody waits for a lease.
    answer = await second.run(graphs["put-back"], "put-back")
    assert color_of(answer.results("3")[0]) == rgb(GREEN)
    record = await second.task("put-back")
    assert outcomes(record) == ["lost", "succeeded"]
    assert record["attempts"][0]["error"]["code"] == "ShuttingDown"


async def test_sigterm_answers_open_requests_and_refuses_new_ones(make_agent: MakeAgent) -> None:
    agent = await make_agent(AGENT_SHUTDOWN_SECONDS=4)
    short = asyncio.create_task(agent.run(slow(30, color=BLUE), "short"))
    await agent.running("short")
    long = asyncio.create_task(agent.run(slow(900), "long"))
    await agent.until("long", lambda r: r["state"] == "queued")
    agent.process.terminate()
    assert color_of((await short).results("3")[0]) == rgb(BLUE)
    (await long).error(503, "ShuttingDown")
    assert await asyncio.wait_for(agent.process.wait(), PATIENCE_SECONDS) == 0


async def test_pre_stop_drains_and_the_instance_takes_nothing_more(make_agent: MakeAgent, pair: Pair) -> None:
    second, _ = pair
    gateway = {"AGENT_INVOCATION": "gateway", "AGENT_CONCURRENCY": 1, "AGENT_SHUTDOWN_SECONDS": 4}
    first = await make_agent(**gateway, **second.fleet)
    running = asyncio.create_task(first.run(slow(25, color=RED), "runs"))
    await first.running_later("runs")
    waiting = asyncio.create_task(first.run(slow(500, color=GREEN), "waits"))
    await first.until("waits", lambda r: r["state"] == "queued")
    assert (await first.get("/pre-stop")).ok() == {"status": "ok"}
    assert color_of((await running).results("3")[0]) == rgb(RED)
    put_back = await waiting
    put_back.error(503, "ShuttingDown")
    assert put_back.headers["x-fc-status"] == "404"
    refused = await first.run(slow(3), "too-late")
    assert int(refused.headers["Retry-After"]) > 0
    refused.error(503, "ShuttingDown")
    await eventually(first.engine.is_idle)
    record = await second.task("waits")
    assert outcomes(record) == ["lost"]
    assert await first.stop() == 0


async def test_second_sigterm_and_a_dead_engine_do_not_hang_the_shutdown(make_agent: MakeAgent) -> None:
    agent = await make_agent("--fault", "freeze@node=2", AGENT_SHUTDOWN_SECONDS=0.3)
    await agent.begin(slow(500), "stuck")
    await agent.running("stuck")
    engine = agent.engine_pid
    assert engine is not None
    clock = Clock()
    agent.process.terminate()
    assert await agent.stop() == 0
    assert clock.seconds < PATIENCE_SECONDS
    assert not is_alive(engine)


@pytest.mark.parametrize("redis", ["shared", "absent"])
async def test_agent_stops_cleanly_with_and_without_redis(make_agent: MakeAgent, redis: str) -> None:
    agent = await make_agent(**({} if redis == "shared" else {"REDIS_URL": "redis://127.0.0.1:1/0"}))
    color = fresh_color()
    assert color_of((await agent.run(slow(3, color=color))).results("3")[0]) == rgb(color)
    engine = agent.engine_pid
    assert engine is not None
    assert await agent.stop() == 0
    assert not is_alive(engine)
    assert "Traceback" not in agent.log_text
