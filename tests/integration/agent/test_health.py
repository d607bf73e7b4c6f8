"""Alive and ready, while the engine starts, works, is dead, or cannot be started."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from tests.integration.agent import graphs
from tests.integration.agent.conversation import conversation
from tests.integration.agent.pictures import color_of
from tests.integration.agent.service import PATIENCE_SECONDS, Agent, MakeAgent, check_error, eventually
from tests.integration.simulator.process import Simulator
from tests.ports import free_port


async def is_alive(agent: Agent) -> None:
    """Whatever state the engine is in short of being given up, and without waiting for it."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        body = (await agent.get("/healthz")).ok()
    assert body["status"] == "ok"
    assert body["engine"]["state"] in ("starting", "ready", "restarting")
    assert isinstance(body["engine"]["restarts"], int)


async def has_given_up(agent: Agent) -> bool:
    return (await agent.get("/healthz")).status == 503


@pytest.mark.real
async def test_agent_with_an_engine_is_alive_and_ready(agent: Agent) -> None:
    await is_alive(agent)
    assert (await agent.get("/readyz")).ok()["status"] == "ready"


async def test_port_is_open_and_runs_wait_while_the_engine_starts(make_agent: MakeAgent) -> None:
    agent = await make_agent(engine=["--startup-seconds", "1"], wait=False)
    await is_alive(agent)
    answer = await agent.get("/readyz")
    assert "loading" in answer.error(503, "EngineUnavailable")["detail"]
    assert int(answer.headers["Retry-After"]) > 0
    task_id = await agent.begin(graphs.painted(graphs.BLUE))
    assert (await agent.task(task_id))["state"] == "queued"
    assert color_of(*(await agent.run(graphs.painted(graphs.RED))).results("2")) == (255, 0, 0)
    await agent.succeeded(task_id)
    assert (await agent.get("/readyz")).status == 200


async def test_bad_request_need_not_wait_for_the_engine(make_agent: MakeAgent) -> None:
    agent = await make_agent(engine=["--startup-seconds", "300"], wait=False)
    async with asyncio.timeout(PATIENCE_SECONDS):
        (await agent.run(b"{")).error(400, "InvalidJson")
        (await agent.run(graphs.cycle())).error(400, "InvalidWorkflow")


async def test_run_that_waits_for_the_engine_can_be_cancelled(make_agent: MakeAgent) -> None:
    agent = await make_agent(engine=["--startup-seconds", "300"], wait=False)
    task_id = await agent.begin(graphs.painted())
    assert (await agent.cancel(task_id)).ok()["state"] == "cancelled"


async def test_dead_engine_is_not_ready_but_the_agent_is_alive_and_it_comes_back(
    make_agent: MakeAgent,
) -> None:
    agent = await make_agent(engine=[])
    assert (await agent.run(graphs.painted())).status == 200
    pid = agent.engine_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)

    async def is_noticed() -> bool:
        await is_alive(agent)
        return (await agent.get("/readyz")).status == 503

    await eventually(is_noticed)
    await agent.ready()
    engine = (await agent.get("/healthz")).ok()["engine"]
    assert engine == {"state": "ready", "restarts": 1, "simulated": True}
    assert agent.engine_pid != pid
    assert color_of(*(await agent.run(graphs.painted(graphs.GREEN))).results("2")) == (0, 255, 0)


async def test_engine_that_cannot_start_ends_runs_with_the_reason_in_bounded_time(
    make_agent: MakeAgent,
) -> None:
    agent = await make_agent(comfyui_command="false", wait=False, engine_start_seconds=5)
    started = time.monotonic()
    answer = await agent.run(graphs.painted())
    error = answer.error(503, "EngineUnavailable")
    assert "exit code 1" in error["detail"] or "code 1" in error["detail"], error
    assert time.monotonic() - started < PATIENCE_SECONDS
    for path in ("/readyz", "/healthz"):
        told = (await agent.get(path)).error(503, "EngineUnavailable")
        assert told["engine"]["state"] == "failed"
        assert "code 1" in told["detail"]
        assert "\n" not in told["detail"]


async def test_attached_engine_that_was_given_up_makes_the_agent_unhealthy_until_it_is_there(
    make_agent: MakeAgent, tmp_path: Path
) -> None:
    port = free_port()
    agent = await make_agent(
        comfyui_url=f"http://127.0.0.1:{port}", wait=False, engine_start_seconds=0.5, engine_hang_seconds=60
    )
    await is_alive(agent)
    await eventually(lambda: has_given_up(agent))
    simulator = await Simulator(tmp_path, port=port).start()
    try:
        await agent.ready()
        await is_alive(agent)
    finally:
        await simulator.stop()


async def test_engine_that_does_not_get_ready_ends_runs_in_bounded_time(make_agent: MakeAgent) -> None:
    agent = await make_agent(engine=["--startup-seconds", "300"], wait=False, engine_start_seconds=0.5)
    async with asyncio.timeout(PATIENCE_SECONDS):
        (await agent.run(graphs.painted())).error(503, "EngineUnavailable")
        async with conversation(agent, graphs.painted()) as talk:
            check_error((await talk.hear_out())["data"], "EngineUnavailable")


async def test_command_that_does_not_exist_is_told(make_agent: MakeAgent) -> None:
    agent = await make_agent(comfyui_command="/no/such/program --port {port}", wait=False)
    error = (await agent.run(graphs.painted())).error(503, "EngineUnavailable")
    assert "/no/such/program" in error["detail"]
