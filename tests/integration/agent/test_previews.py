"""Live previews: what a sampler is making, for whoever watches its task."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from tests.integration.agent import graphs
from tests.integration.agent.conversation import events
from tests.integration.agent.pictures import look
from tests.integration.agent.service import Agent, MakeAgent, eventually
from tests.redis_server import RedisServer

#: With LONG steps it outlasts each of these tests, which cancel it.
SLOW = ["--step-seconds", "0.2"]
LONG = 500


async def first_preview(agent: Agent, task_id: str) -> bytes:
    await agent.until(task_id, lambda record: record["preview"] > 0)
    answer = await agent.get(f"/api/tasks/{task_id}/preview")
    assert answer.status == 200, answer.body
    assert answer.headers["Content-Type"] == "image/jpeg"
    assert answer.headers["Cache-Control"] == "no-store"
    return answer.body


async def test_running_sampler_shows_previews_that_change(make_agent: MakeAgent) -> None:
    agent = await make_agent(engine=SLOW)
    task_id = await agent.begin(graphs.sampled("v1-5-pruned-emaonly.safetensors", steps=LONG))
    first = await first_preview(agent, task_id)
    assert look(first).format == "JPEG"

    async def has_changed() -> bool:  # two steps of so many may look alike
        answer = await agent.get(f"/api/tasks/{task_id}/preview")
        assert answer.status == 200
        return answer.body != first

    await eventually(has_changed)
    assert (await agent.cancel(task_id)).ok()["preview"] == 0
    (await agent.get(f"/api/tasks/{task_id}/preview")).error(404, "PreviewNotFound")


async def test_event_stream_counts_them(make_agent: MakeAgent) -> None:
    agent = await make_agent(engine=SLOW)
    task_id = await agent.begin(graphs.sampled("v1-5-pruned-emaonly.safetensors", steps=LONG))
    counts = []
    async with asyncio.timeout(20), contextlib.aclosing(events(agent, task_id)) as records:
        async for record in records:
            counts.append(record["preview"])
            if counts[-1] > 2:
                break
    assert counts == sorted(counts)
    await agent.cancel(task_id)


async def test_other_instances_and_fronts_serve_them_too(
    make_agent: MakeAgent, redis_server: RedisServer, redis_prefix: str
) -> None:
    shared = {"redis_url": redis_server.url, "redis_prefix": redis_prefix}
    engine = await make_agent(engine=SLOW, **shared)
    front = await make_agent(role="front", engine_url=engine.url, **shared)
    await front.submit(graphs.sampled("v1-5-pruned-emaonly.safetensors", steps=LONG), "seen-at-the-front")
    await front.running_later("seen-at-the-front")
    assert look(await first_preview(front, "seen-at-the-front")).format == "JPEG"
    await front.cancel("seen-at-the-front")
    await front.finished("seen-at-the-front")
    (await front.get("/api/tasks/seen-at-the-front/preview")).error(404, "PreviewNotFound")


@pytest.mark.parametrize(
    ("task_id", "status", "code"), [("nobody", 404, "TaskNotFound"), ("-", 400, "InvalidTaskId")]
)
async def test_unknown_task_has_none(agent: Agent, task_id: str, status: int, code: str) -> None:
    (await agent.get(f"/api/tasks/{task_id}/preview")).error(status, code)


async def test_pictures_that_are_results_are_no_previews(agent: Agent) -> None:
    graph = graphs.chain(graphs.empty(), graphs.node("SaveImageWebsocket", images=...))
    answer = await agent.run(graph, "streamed")
    assert len(answer.results("2")) == 1
    assert (await agent.task("streamed"))["preview"] == 0
