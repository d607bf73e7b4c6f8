"""The engine dies, hangs, runs out of memory or breaks its GPU: the task runs again on a fresh one, or says why not."""

from __future__ import annotations

import asyncio
import signal

import pytest

from tests.integration.agent.graphs import BLUE, GREEN, RED, fresh_color, rgb
from tests.integration.agent.pictures import color_of
from tests.integration.agent.service import PATIENCE_SECONDS, eventually
from tests.integration.reliability.conftest import MakeAgent
from tests.integration.reliability.fleet import AgentProcess, is_alive, outcomes, slow, until


async def errors(agent: AgentProcess, task_id: str) -> list[str | None]:
    """What each attempt ended with."""
    attempts = (await agent.task(task_id))["attempts"]
    return [(attempt["error"] or {}).get("code") for attempt in attempts]


async def test_task_survives_two_deaths_of_its_engine(make_agent: MakeAgent) -> None:
    agent = await make_agent()
    caller = asyncio.create_task(agent.run(slow(30, color=RED), "killed"))
    other = asyncio.create_task(agent.run(slow(5, color=BLUE), "waiting"))
    await agent.running("killed")
    first = agent.signal_engine(signal.SIGKILL)
    await agent.until("killed", lambda r: r["state"] == "running" and len(r["attempts"]) == 2)
    second = agent.signal_engine(signal.SIGKILL)
    answer = await asyncio.wait_for(caller, PATIENCE_SECONDS)
    assert color_of(answer.results("3")[0]) == rgb(RED)
    assert await errors(agent, "killed") == ["EngineDied", "EngineDied", None]
    assert color_of((await other).results("3")[0]) == rgb(BLUE)
    assert not is_alive(first)
    assert not is_alive(second)
    assert (await agent.get("/readyz")).ok()["engine"]["restarts"] == 2


async def test_engine_that_stops_answering_is_replaced_and_the_task_runs_again(make_agent: MakeAgent) -> None:
    agent = await make_agent(AGENT_ENGINE_HANG_SECONDS=1.5)
    caller = asyncio.create_task(agent.run(slow(30, color=GREEN), "hung"))
    await agent.running("hung")
    hung = agent.signal_engine(signal.SIGSTOP)
    answer = await asyncio.wait_for(caller, PATIENCE_SECONDS)
    assert color_of(answer.results("3")[0]) == rgb(GREEN)
    record = await agent.task("hung")
    assert outcomes(record) == ["failed", "succeeded"]
    assert "has not answered" in record["attempts"][0]["error"]["detail"]
    assert not is_alive(hung)


async def test_dead_worker_thread_is_noticed_and_the_task_runs_again(make_agent: MakeAgent) -> None:
    agent = await make_agent(AGENT_ENGINE_STALL_SECONDS=1)
    await agent.engine.fault("hang@node=2")
    hung = agent.engine_pid
    assert hung is not None
    answer = await asyncio.wait_for(agent.run(slow(5, color=RED), "stalled"), PATIENCE_SECONDS)
    assert color_of(answer.results("3")[0]) == rgb(RED)
    assert await errors(agent, "stalled") == ["EngineStalled", None]
    await until(lambda: not is_alive(hung))


async def test_frozen_engine_process_is_noticed_by_its_silence(make_agent: MakeAgent) -> None:
    agent = await make_agent(AGENT_ENGINE_HANG_SECONDS=1.5)
    await agent.engine.fault("freeze@node=2")
    answer = await asyncio.wait_for(agent.run(slow(5, color=BLUE), "freezing"), PATIENCE_SECONDS)
    assert color_of(answer.results("3")[0]) == rgb(BLUE)
    assert await errors(agent, "freezing") == ["EngineDied", None]


async def test_crash_loop_is_told_by_health_and_by_every_task(make_agent: MakeAgent) -> None:
    agent = await make_agent("--fault", "die@start", wait=False)
    await eventually(lambda: has_failed(agent))
    for path in ("/readyz", "/healthz"):
        error = (await agent.get(path)).error(503, "EngineUnavailable")
        assert "failed to start 3 times in a row" in error["detail"]
        assert "\n" not in error["detail"], "the engine's own output is for the log"
        assert error["engine"]["restarts"] >= 3
    refused = await agent.run(slow(), "hopeless")
    assert "exited with code 1" in refused.error(503, "EngineUnavailable")["detail"]
    assert (await agent.task("hopeless"))["state"] == "failed"
    assert refused.error(503, "EngineUnavailable")["transient"]


async def has_failed(agent: AgentProcess) -> bool:
    try:
        answer = await agent.get("/readyz")
    except OSError:
        return False  # it does not listen yet
    return answer.status == 503 and answer.json["error"]["engine"]["state"] == "failed"


@pytest.mark.parametrize(("times", "expected"), [(1, ["OutOfMemory", None]), (2, ["OutOfMemory"] * 2)])
async def test_memory_that_was_short_is_freed_once_and_tried_again(
    pair: tuple[AgentProcess, AgentProcess], times: int, expected: list[str | None]
) -> None:
    agent, _ = pair
    await agent.engine.fault(f"oom@node=2,times={times}")
    task_id = f"memory-{times}"
    color = fresh_color()
    answer = await agent.run(slow(3, color=color), task_id)
    if times == 1:
        assert color_of(answer.results("3")[0]) == rgb(color)
    else:
        error = answer.error(500, "OutOfMemory")
        assert error["node_id"] == "2"
        assert error["exception_type"] == "torch.OutOfMemoryError"
    assert await errors(agent, task_id) == expected


@pytest.mark.parametrize("fault", ["missing-output", "corrupt-output", "empty-output"])
async def test_output_that_is_no_picture_is_made_again(
    pair: tuple[AgentProcess, AgentProcess], fault: str
) -> None:
    agent, _ = pair
    await agent.engine.fault(f"{fault},times=1")
    color = fresh_color()
    answer = await agent.run(slow(3, color=color), fault)
    assert color_of(answer.results("3")[0]) == rgb(color)
    code = "OutputMissing" if fault == "missing-output" else "OutputCorrupt"
    assert await errors(agent, fault) == [code, None]


async def test_engine_that_refuses_everything_is_an_error_and_not_a_hang(
    pair: tuple[AgentProcess, AgentProcess],
) -> None:
    agent, _ = pair
    await agent.engine.fault("reject-all")
    error = (await agent.run(slow(), "misbehaved")).error(502, "EngineMisbehaved")
    assert error["transient"]


async def test_engine_that_floods_its_log_does_not_stop(pair: tuple[AgentProcess, AgentProcess]) -> None:
    agent, _ = pair
    await agent.engine.fault("stderr-flood,times=3")
    for color in (RED, GREEN, BLUE):
        assert color_of((await agent.run(slow(2, color=color))).results("3")[0]) == rgb(color)
