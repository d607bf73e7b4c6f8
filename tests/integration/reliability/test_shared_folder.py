"""Agents without Redis that share a folder (AGENT_STORE_DIR): an instance dies, the folder goes away."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.integration.agent.graphs import RED, fresh_color, rgb
from tests.integration.agent.pictures import color_of
from tests.integration.agent.service import eventually
from tests.integration.reliability.conftest import MakeAgent
from tests.integration.reliability.fleet import AgentProcess, instances, outcomes, slow

#: Generous: the machine may be busy with other things.
PATIENCE_SECONDS = 25


async def fleet(make_agent: MakeAgent, folder: Path, count: int) -> list[AgentProcess]:
    folder.mkdir()
    starts = (make_agent(REDIS_URL="", AGENT_STORE_DIR=folder) for _ in range(count))
    return await asyncio.gather(*starts)


async def test_task_of_a_killed_instance_shows_as_lost_and_runs_when_sent_again(
    make_agent: MakeAgent, tmp_path: Path
) -> None:
    first, second = await fleet(make_agent, tmp_path / "nas", 2)
    graph = slow(500, color=RED)
    await first.begin(graph, "lost")
    await second.running("lost")
    await first.kill()
    record = await second.until("lost", lambda r: r["state"] == "failed", PATIENCE_SECONDS)
    assert record["error"]["code"] == "InstanceLost"
    assert outcomes(record) == ["lost"]

    again = asyncio.create_task(second.run(graph, "lost"))
    record = await second.running("lost")
    assert outcomes(record) == ["lost", None]
    assert len(set(instances(record))) == 2
    await second.cancel("lost")
    (await again).error(410, "TaskCancelled")


async def test_instance_that_wakes_after_its_lease_gives_way_to_the_new_owner(
    make_agent: MakeAgent, tmp_path: Path
) -> None:
    first, second = await fleet(make_agent, tmp_path / "nas", 2)
    color = fresh_color()
    graph = slow(30, color=color)
    caller = asyncio.create_task(first.run(graph, "frozen"))
    await first.running("frozen")
    first.pause()
    await second.until("frozen", lambda r: r["state"] == "failed", PATIENCE_SECONDS)
    answer = await second.run(graph, "frozen")
    final = await second.task("frozen")
    first.resume()
    late = await asyncio.wait_for(caller, PATIENCE_SECONDS)
    assert late.body == answer.body, "the first caller gets the new owner's result"
    assert color_of(late.results("3")[0]) == rgb(color)
    await first.freed()
    assert await first.task("frozen") == await second.task("frozen") == final


async def test_without_the_folder_a_run_without_an_id_succeeds_and_a_background_one_waits_for_it(
    make_agent: MakeAgent, tmp_path: Path
) -> None:
    nas = tmp_path / "nas"
    first, second = await fleet(make_agent, nas, 2)
    colors = [fresh_color(), fresh_color()]
    await first.begin(slow(30, color=colors[0]), "background")
    await first.running("background")
    away = nas.rename(tmp_path / "away")
    try:
        answer = await first.run(slow(5, color=colors[1]))
        assert color_of(answer.results("3")[0]) == rgb(colors[1])
        assert first.logged("task.not_recorded")[-1]["task_id"] == answer.headers["task-id"]
        (await first.run(slow(5), "refused")).error(503, "StoreUnavailable")
        detail = (await first.submit(slow(5), "refused")).error(503, "StoreUnavailable")["detail"]
        assert "AGENT_STORE_DIR" in detail
        (await second.get("/api/tasks/background")).error(503, "StoreUnavailable")
        (await second.get("/api/tasks")).error(503, "StoreUnavailable")
        assert (await second.get("/healthz")).status == 200
        await eventually(first.engine.is_idle, PATIENCE_SECONDS)
    finally:
        away.rename(nas)
    await second.until("background", lambda r: r["state"] == "succeeded", PATIENCE_SECONDS)
    assert color_of((await second.output("background", 0)).body) == rgb(colors[0])
