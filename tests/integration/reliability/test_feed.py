"""The WebSocket to the engine breaks, falls silent or is stolen: the run ends all the same."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.integration.agent.graphs import RED, fresh_color, rgb
from tests.integration.agent.pictures import color_of
from tests.integration.agent.service import PATIENCE_SECONDS
from tests.integration.reliability.fleet import AgentProcess, Clock, ready, slow
from tests.integration.reliability.proxy import TcpProxy
from tests.integration.simulator.process import Simulator
from tests.redis_server import RedisServer

FEED = b"GET /ws?"


@dataclass
class Attached:
    """An agent whose engine is a process of its own, behind a proxy."""

    agent: AgentProcess
    proxy: TcpProxy


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared_attached(
    tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer
) -> AsyncIterator[Attached]:
    folder: Path = tmp_path_factory.mktemp("attached")
    simulator = Simulator(folder / "engine", ("--lab-nodes", "--step-seconds", "0.01"))
    await simulator.start()
    try:
        async with TcpProxy(simulator.port) as proxy:
            settings = {
                "COMFYUI_URL": proxy.url,
                "REDIS_URL": redis_server.url,
                "AGENT_REDIS_PREFIX": "attached:",
                "AGENT_ENGINE_HANG_SECONDS": "2",
                "AGENT_ENGINE_START_SECONDS": "20",
            }
            async with AgentProcess(folder / "agent", **settings) as agent:
                await ready(agent)
                yield Attached(agent, proxy)
    finally:
        await simulator.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def attached(shared_attached: Attached) -> AsyncIterator[Attached]:
    yield shared_attached
    proxy, agent = shared_attached.proxy, shared_attached.agent
    proxy.silenced, proxy.refuses = b"", False
    proxy.resume()
    await ready(agent)
    await agent.engine.fault()
    await agent.freed()


async def test_result_comes_although_the_socket_is_cut_at_any_message(
    pair: tuple[AgentProcess, AgentProcess],
) -> None:
    agent, _ = pair
    cuts = random.Random(3).sample(range(2, 40), 6)
    clock = Clock()
    for message in cuts:
        color = fresh_color()
        # Messages are counted from the engine's start, so "the next but N" is said with an event that repeats.
        event = ("progress", "executing", "executed", "execution_success")[message % 4]
        await agent.engine.fault(f"drop-socket@event={event},times={1 + message % 3}")
        assert color_of((await agent.run(slow(10, color=color))).results("3")[0]) == rgb(color)
    assert clock.seconds < PATIENCE_SECONDS * len(cuts)


async def test_sockets_that_a_box_on_the_way_resets_cost_no_result(attached: Attached) -> None:
    agent, proxy = attached.agent, attached.proxy
    for _ in range(4):
        color = fresh_color()
        run = asyncio.create_task(agent.run(slow(20, color=color)))
        await asyncio.sleep(0.15)  # somewhere in the middle; any moment is a good one
        proxy.cut(FEED)
        assert color_of((await asyncio.wait_for(run, PATIENCE_SECONDS)).results("3")[0]) == rgb(color)


async def test_half_open_socket_is_found_out_and_replaced(attached: Attached) -> None:
    agent, proxy = attached.agent, attached.proxy
    proxy.silenced = FEED  # neither data nor the end of the connection comes back
    color = fresh_color()
    clock = Clock()
    answer = await asyncio.wait_for(agent.run(slow(10, color=color)), PATIENCE_SECONDS)
    assert color_of(answer.results("3")[0]) == rgb(color)
    assert clock.seconds < PATIENCE_SECONDS
    proxy.silenced = b""
    proxy.cut(FEED)
    color = fresh_color()
    assert color_of((await agent.run(slow(10, color=color))).results("3")[0]) == rgb(color)


async def test_every_connection_of_the_engine_cut_at_once_costs_an_attempt_at_most(
    attached: Attached,
) -> None:
    agent, proxy = attached.agent, attached.proxy
    color = fresh_color()
    run = asyncio.create_task(agent.run(slow(30, color=color), "all-cut"))
    await agent.running("all-cut")
    proxy.cut()
    assert color_of((await asyncio.wait_for(run, PATIENCE_SECONDS)).results("3")[0]) == rgb(color)


async def test_engine_behind_a_stalled_network_is_lost_and_comes_back(attached: Attached) -> None:
    agent, proxy = attached.agent, attached.proxy
    color = fresh_color()
    run = asyncio.create_task(agent.run(slow(30, color=color), "stalled-net"))
    await agent.running("stalled-net")
    proxy.stall()
    await agent.until("stalled-net", lambda r: len(r["attempts"]) == 2)
    assert (await agent.get("/healthz")).status == 200
    proxy.resume()
    assert color_of((await asyncio.wait_for(run, PATIENCE_SECONDS)).results("3")[0]) == rgb(color)


async def test_stolen_client_id_costs_no_result(pair: tuple[AgentProcess, AgentProcess]) -> None:
    agent, _ = pair
    color = fresh_color()
    run = asyncio.create_task(agent.run(slow(50, color=color), "stolen"))
    await agent.running("stolen")
    (item,) = (await agent.engine.get("/queue"))["queue_running"]
    client_id = item[3]["client_id"]
    async with agent.engine.http.ws_connect("/ws", params={"clientId": client_id}) as thief:
        stolen = await thief.receive_json(timeout=PATIENCE_SECONDS)
        assert stolen["type"] == "status"
        answer = await asyncio.wait_for(run, PATIENCE_SECONDS)
    assert color_of(answer.results("3")[0]) == rgb(color)
    # The agent has taken its place again.
    color = fresh_color()
    assert color_of((await agent.run(slow(10, color=color))).results("3")[0]) == rgb(color)


@pytest.mark.parametrize("event", ["executing", "execution_success", "executed", "progress_state"])
async def test_message_that_is_never_sent_costs_no_result(
    pair: tuple[AgentProcess, AgentProcess], event: str
) -> None:
    agent, _ = pair
    await agent.engine.fault(f"lose-event={event}")
    color = fresh_color()
    answer = await asyncio.wait_for(agent.run(slow(5, color=color)), PATIENCE_SECONDS)
    assert color_of(answer.results("3")[0]) == rgb(color)


async def test_history_that_comes_late_is_waited_for(pair: tuple[AgentProcess, AgentProcess]) -> None:
    agent, _ = pair
    await agent.engine.fault("late-history=0.3", "drop-socket@event=executed,times=1")
    answer = await asyncio.wait_for(agent.run(slow(5, color=RED), "late-history"), PATIENCE_SECONDS)
    assert color_of(answer.results("3")[0]) == rgb(RED)


async def test_prompt_that_somebody_clears_from_the_queue_is_submitted_again(
    pair: tuple[AgentProcess, AgentProcess],
) -> None:
    agent, _ = pair
    blocker = asyncio.create_task(agent.run(slow(40), "blocker"))
    await agent.running("blocker")
    color = fresh_color()
    cleared = asyncio.create_task(agent.run(slow(3, color=color), "cleared"))
    while not await agent.engine.pending():
        await asyncio.sleep(0.01)  # the engine tells nobody
    async with agent.engine.http.post("/queue", json={"clear": True}) as response:
        assert response.status == 200
    assert color_of((await cleared).results("3")[0]) == rgb(color)
    record = await agent.task("cleared")
    assert [(a["error"] or {}).get("code") for a in record["attempts"]] == ["EngineLostPrompt", None]
    (await blocker).ok()


async def test_prompt_that_somebody_else_interrupts_is_an_error_of_its_own(
    pair: tuple[AgentProcess, AgentProcess],
) -> None:
    agent, _ = pair
    run = asyncio.create_task(agent.run(slow(200), "interrupted"))
    await agent.running("interrupted")
    async with agent.engine.http.post("/interrupt", json={}) as response:
        assert response.status == 200
    (await run).error(500, "PromptInterrupted")
