"""The workflow that is run before the first caller comes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from agent.api import hooks
from agent.settings import SettingsError
from agent.warm_up import read_warm_up
from tests.integration.agent import graphs
from tests.integration.agent.pictures import color_of
from tests.integration.agent.service import Agent, MakeAgent, eventually, settings_of


def written(folder: Path, graph: Any) -> str:
    path = folder / "warm-up.json"
    path.write_text(json.dumps(graph))
    return str(path)


def slow_one(steps: int = 20) -> graphs.Graph:
    steady = graphs.node("LabSteps", image=..., steps=steps, seconds=0.05)
    return graphs.chain(graphs.empty(graphs.RED), steady, graphs.save("warm-up"))


def pictures(folder: Path) -> int:
    """How many pictures the warm-up's engine has saved: how often it ran."""
    return len(list(folder.rglob("output/warm-up_*.png")))


async def is_warming_up(agent: Agent) -> bool:
    answer = await agent.get("/readyz")
    return answer.status == 503 and "warm-up" in answer.json["error"]["detail"]


async def test_agent_is_ready_when_its_warm_up_is_over_and_nobody_sees_a_task(
    make_agent: MakeAgent, tmp_path: Path
) -> None:
    agent = await make_agent(engine=[], warm_up=written(tmp_path, slow_one()), wait=False)
    assert (await agent.get("/healthz")).status == 200
    await agent.ready()
    assert pictures(tmp_path) == 1
    assert (await agent.get("/api/tasks")).ok()["tasks"] == []
    assert (await agent.get("/api/queue")).ok()["running"] == []

    async def is_forgotten() -> bool:
        return bool(await agent.engine.get("/history") == {})

    await eventually(is_forgotten)  # like every other prompt


async def test_initialize_waits_for_the_one_run_however_often_it_is_called(
    make_agent: MakeAgent, tmp_path: Path
) -> None:
    agent = await make_agent(engine=[], warm_up=written(tmp_path, slow_one()), wait=False)
    at_once = await asyncio.gather(*(agent.call("POST", "/initialize") for _ in range(3)))
    expected = {"status": "ok", "engine": "ready", "warming_up": False}
    assert [answer.ok() for answer in at_once] == [expected] * 3
    assert (await agent.call("POST", "/initialize")).ok() == expected
    assert (await agent.get("/readyz")).status == 200
    assert pictures(tmp_path) == 1


async def test_initialize_answers_in_time_and_the_warm_up_goes_on(
    make_agent: MakeAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = await make_agent(engine=[], warm_up=written(tmp_path, slow_one(1000)), wait=False)
    await eventually(lambda: is_warming_up(agent))
    monkeypatch.setattr(hooks, "INITIALIZE_SECONDS", 0.01)
    for _ in range(2):
        assert (await agent.call("POST", "/initialize")).ok()["warming_up"]
    assert await is_warming_up(agent)


async def test_task_that_comes_meanwhile_runs_behind_it(make_agent: MakeAgent, tmp_path: Path) -> None:
    agent = await make_agent(engine=[], warm_up=written(tmp_path, slow_one()), wait=False)
    assert color_of(*(await agent.run(graphs.painted(graphs.BLUE))).results("2")) == (0, 0, 255)
    await agent.ready()
    assert pictures(tmp_path) == 1


FAILING = {
    "its node raises": (graphs.raising(), {}),
    "it is refused": (graphs.chain(graphs.node("SaveImage", filename_prefix="x")), {}),
    "its class is unknown": ({"1": graphs.node("NoSuchNode")}, {}),
    "it takes too long": (slow_one(1000), {"task_timeout_seconds": 4}),
}


@pytest.mark.parametrize(("graph", "settings"), FAILING.values(), ids=FAILING)
async def test_warm_up_that_fails_costs_nothing(
    make_agent: MakeAgent, tmp_path: Path, graph: graphs.Graph, settings: dict[str, Any]
) -> None:
    agent = await make_agent(engine=[], warm_up=written(tmp_path, graph), **settings)
    assert pictures(tmp_path) == 0
    assert (await agent.call("POST", "/initialize")).ok()["engine"] == "ready"
    assert color_of(*(await agent.run(graphs.painted(graphs.GREEN))).results("2")) == (0, 255, 0)


async def test_engine_that_dies_of_it_is_restarted_without_it(make_agent: MakeAgent, tmp_path: Path) -> None:
    agent = await make_agent(engine=[], warm_up=written(tmp_path, slow_one(1000)), wait=False)
    await eventually(lambda: is_warming_up(agent))
    assert agent.engine_pid is not None
    os.kill(agent.engine_pid, signal.SIGKILL)
    await agent.ready()
    assert color_of(*(await agent.run(graphs.painted(graphs.GREEN))).results("2")) == (0, 255, 0)
    assert pictures(tmp_path) == 0


async def test_pre_stop_gives_it_up(make_agent: MakeAgent, tmp_path: Path) -> None:
    agent = await make_agent(engine=[], warm_up=written(tmp_path, slow_one(1000)), wait=False)
    await eventually(lambda: is_warming_up(agent))
    assert (await agent.get("/pre-stop")).status == 200
    await eventually(agent.engine.is_idle)


WRONG = {
    "no such file": (None, "No such file"),
    "no JSON": (b"{", "not JSON"),
    "no workflow": (b'{"nodes": [], "links": []}', "API"),
    "no text": (b"\xff\xfe", "not JSON"),
}


@pytest.mark.parametrize(("content", "reason"), WRONG.values(), ids=WRONG)
def test_file_that_holds_no_workflow_is_an_error_of_the_settings(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "warm-up.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=f"(?s)AGENT_WARM_UP: {path}.*{reason}"):
        read_warm_up(settings_of(warm_up=str(path)))
