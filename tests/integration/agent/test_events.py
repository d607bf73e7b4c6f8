"""GET /api/tasks/ID/events: the record as Server-Sent Events."""

from __future__ import annotations

import asyncio

import pytest

from agent.api import tasks
from tests.integration.agent import graphs
from tests.integration.agent.conversation import events
from tests.integration.agent.service import Agent, take

pytestmark = pytest.mark.real


async def test_stream_begins_at_once_and_ends_with_the_final_record(agent: Agent) -> None:
    task_id = await agent.begin(graphs.stepping(steps=20))
    seen = await take(events(agent, task_id))
    assert len(seen) > 3
    assert seen[0]["state"] in ("queued", "running")
    assert seen[-1]["state"] == "succeeded"
    assert [r["state"] for r in seen].count("succeeded") == 1
    progress = [r["progress"] for r in seen]
    assert progress == sorted(progress)
    assert progress[-1] == 1
    assert seen[-1] == await agent.task(task_id)
    assert all("results" not in node for r in seen for node in r["nodes"].values())


async def test_stream_of_a_finished_task_is_its_record(agent: Agent) -> None:
    await agent.run(graphs.painted(), "over")
    assert await take(events(agent, "over")) == [await agent.task("over")]


async def test_stream_of_a_failing_task_ends_with_the_error(agent: Agent) -> None:
    task_id = await agent.begin(graphs.raising())
    seen = await take(events(agent, task_id))
    assert seen[-1]["error"]["code"] == "NodeFailed"


async def test_stream_of_a_cancelled_task_ends(agent: Agent) -> None:
    task_id = await agent.begin(graphs.stepping(steps=500))
    reader = asyncio.create_task(take(events(agent, task_id)))
    await agent.running(task_id)
    await agent.cancel(task_id)
    assert (await reader)[-1]["state"] == "cancelled"


async def test_stream_of_an_unknown_task_is_a_plain_404(agent: Agent) -> None:
    (await agent.get("/api/tasks/nobody/events")).error(404, "TaskNotFound")


async def test_reader_who_leaves_does_not_end_the_task(agent: Agent) -> None:
    task_id = await agent.begin(graphs.stepping(steps=20))
    async for _ in events(agent, task_id):
        break
    await agent.succeeded(task_id)


async def test_several_readers_see_the_same_end(agent: Agent) -> None:
    task_id = await agent.begin(graphs.stepping(steps=10))
    ends = [seen[-1] for seen in await asyncio.gather(*(take(events(agent, task_id)) for _ in range(5)))]
    assert all(end == ends[0] for end in ends)
    assert ends[0]["state"] == "succeeded"


async def test_silent_stream_shows_that_it_lives(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "HEARTBEAT_SECONDS", 0.05)
    task_id = await agent.begin(graphs.sleeping(0.5))
    async with agent.http.get(f"/api/tasks/{task_id}/events") as response:
        assert b"\n: " in b"\n" + await response.read()


async def test_stream_may_not_be_kept_by_boxes_on_the_way(agent: Agent) -> None:
    await agent.run(graphs.painted(), "headers")
    headers = (await agent.get("/api/tasks/headers/events")).headers
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Accel-Buffering"] == "no"
    assert headers["Content-Type"].startswith("text/event-stream")
