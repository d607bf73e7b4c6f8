"""Two instances, each with an engine of its own, on one real Redis or in one folder: either answers for the other's
tasks."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest
import pytest_asyncio

from tests.integration.agent import graphs
from tests.integration.agent.conversation import conversation, events
from tests.integration.agent.pictures import color_of
from tests.integration.agent.service import PATIENCE_SECONDS, Agent, MakeAgent, eventually, take
from tests.redis_server import RedisServer

Pair = tuple[Agent, Agent]


@pytest_asyncio.fixture(loop_scope="session", params=["redis", "directory"])
async def pair(
    request: pytest.FixtureRequest,
    make_agent: MakeAgent,
    redis_server: RedisServer,
    redis_prefix: str,
    tmp_path: Path,
) -> Pair:
    shared = {"redis_url": redis_server.url, "redis_prefix": redis_prefix}
    if request.param == "directory":
        (tmp_path / "nas").mkdir()
        shared = {"store_dir": str(tmp_path / "nas")}
    one, two = await asyncio.gather(make_agent(engine=[], **shared), make_agent(engine=[], **shared))
    return one, two


async def test_task_of_one_is_followed_streamed_and_fetched_from_the_other(pair: Pair) -> None:
    one, two = pair
    async with two.engine.asked(0):
        task_id = await one.begin(graphs.stepping(steps=40, color=graphs.RED))
        reader = asyncio.create_task(take(events(two, task_id)))
        halfway = await two.until(task_id, lambda r: 0 < r["progress"] < 1)
        assert halfway["current_node"]["id"] == "2"
        assert (await two.status(task_id)).ok()["2"]["max"] == 40
        await two.succeeded(task_id)
        seen = await reader
    assert seen[-1] == await one.task(task_id) == await two.task(task_id)
    progress = [r["progress"] for r in seen]
    assert progress == sorted(progress)
    assert len(set(progress)) > 2
    for agent in pair:
        got = await agent.output(task_id, 0)
        assert (color_of(got.body), got.headers["Content-Type"]) == ((255, 0, 0), "image/png")
        assert (await agent.status(task_id)).results("3") == [got.body]
    assert [t["id"] for t in (await two.get("/api/tasks")).ok()["tasks"]] == [task_id]


async def test_stream_from_the_other_instance_begins_at_once(pair: Pair) -> None:
    one, two = pair
    task_id = await one.begin(graphs.stepping())
    async with asyncio.timeout(PATIENCE_SECONDS), contextlib.aclosing(events(two, task_id)) as records:
        assert (await anext(records))["state"] in ("queued", "running")
    await one.cancel(task_id)


async def test_running_task_is_cancelled_from_the_other_instance(pair: Pair) -> None:
    one, two = pair
    task_id = await one.begin(graphs.stepping(steps=1000))
    neighbour = await one.begin(graphs.painted(graphs.BLUE))
    await one.running(task_id)
    assert (await two.cancel(task_id)).ok()["state"] == "cancelled"
    await eventually(one.engine.is_idle)
    assert (await one.task(task_id))["state"] == "cancelled"
    assert (await two.succeeded(neighbour))["state"] == "succeeded"


async def test_caller_of_one_is_told_when_the_other_cancels(pair: Pair) -> None:
    one, two = pair
    caller = asyncio.create_task(one.run(graphs.stepping(steps=1000), "told"))
    await two.running_later("told")
    await two.cancel("told")
    (await caller).error(410, "TaskCancelled")


async def test_other_workflow_under_a_known_id_is_refused_by_the_other_instance(pair: Pair) -> None:
    one, two = pair
    await one.begin(graphs.stepping(), "mine")
    for agent in pair:
        (await agent.run(graphs.painted(), "mine")).error(409, "TaskConflict")
    await two.cancel("mine")
    (await two.run(graphs.painted(), "mine")).error(409, "TaskConflict")


async def test_five_deliveries_to_both_instances_run_once(pair: Pair) -> None:
    one, two = pair
    graph = graphs.stepping(steps=15)
    before = [await agent.engine.number() for agent in pair]
    answers = await asyncio.gather(*(agent.run(graph, "five") for agent in (one, two, one, two, one)))
    answers += [await one.run(graph, "five"), await two.run(graph, "five")]
    assert len({answer.body for answer in answers}) == 1
    assert len(answers[0].results("3")) == 1
    after = [await agent.engine.number() for agent in pair]
    assert sum(after) - sum(before) - 2 == 1


async def test_socket_on_the_other_instance_shows_progress_and_result(pair: Pair) -> None:
    one, two = pair
    graph = graphs.stepping(steps=40, color=graphs.GREEN)
    await one.begin(graph, "watched")
    async with conversation(two, graph, **{"task-id": "watched"}) as talk:
        assert color_of(*await talk.results("3")) == (0, 255, 0)
    assert len({m["data"]["2"]["value"] for m in talk.seen}) > 2


async def test_burst_does_not_pass_the_limit_of_the_queue(
    make_agent: MakeAgent, redis_server: RedisServer, redis_prefix: str
) -> None:
    """Claiming a task takes a moment on Redis; requests that arrive within it count too."""
    small = await make_agent(
        redis_url=redis_server.url, redis_prefix=redis_prefix, concurrency=1, queue_size=2
    )
    answers = await asyncio.gather(*(small.submit(graphs.stepping(steps=1000)) for _ in range(20)))
    statuses = sorted(answer.status for answer in answers)
    assert statuses == [202] * 3 + [429] * 17
    for answer in answers:
        if answer.status == 202:
            await small.cancel(answer.headers["task-id"])


async def test_redis_outage_does_not_end_synchronous_runs_and_refuses_async_ones(
    make_agent: MakeAgent, private_redis: RedisServer
) -> None:
    agent = await make_agent(redis_url=private_redis.url)
    assert (await agent.run(graphs.painted(), "before")).status == 200
    private_redis.stop()
    assert color_of(*(await agent.run(graphs.painted(graphs.RED))).results("2")) == (255, 0, 0)
    async with agent.engine.asked(0):
        refused = await agent.submit(graphs.painted())
    refused.error(503, "StoreUnavailable")
    assert (await agent.get("/healthz")).status == 200
    for path in (
        "/api/tasks/before",
        "/api/tasks",
        "/api/tasks/before/events",
        "/api/tasks/before/outputs/0",
    ):
        (await agent.get(path)).error(503, "StoreUnavailable")
    (await agent.status("before")).error(503, "StoreUnavailable")
    (await agent.cancel("before")).error(503, "StoreUnavailable")

    private_redis.start()

    async def is_back() -> bool:
        return (await agent.get("/api/tasks/before")).status == 200

    await eventually(is_back)
    task_id = await agent.begin(graphs.painted())
    await agent.succeeded(task_id)


async def test_run_during_which_redis_goes_away_succeeds(
    make_agent: MakeAgent, private_redis: RedisServer
) -> None:
    agent = await make_agent(redis_url=private_redis.url)
    caller = asyncio.create_task(agent.run(graphs.stepping(steps=40, color=graphs.GREEN), "lonely"))
    await agent.running_later("lonely")
    private_redis.stop()
    assert color_of(*(await caller).results("3")) == (0, 255, 0)


async def test_background_task_that_ends_while_redis_is_away_is_stored_when_it_is_back(
    make_agent: MakeAgent, private_redis: RedisServer
) -> None:
    agent = await make_agent(redis_url=private_redis.url)
    task_id = await agent.begin(graphs.stepping(steps=20, color=graphs.GREEN))
    await agent.running(task_id)
    private_redis.stop()
    await eventually(agent.engine.is_idle)
    private_redis.start()

    async def is_stored() -> bool:
        answer = await agent.get(f"/api/tasks/{task_id}")
        return answer.status == 200 and answer.json["state"] == "succeeded"

    await eventually(is_stored)
    assert color_of(*(await agent.status(task_id)).results("3")) == (0, 255, 0)


async def test_redis_that_is_silent_holds_up_a_synchronous_run_only_for_a_while(
    make_agent: MakeAgent, private_redis: RedisServer
) -> None:
    agent = await make_agent(redis_url=private_redis.url, redis_timeout_seconds=0.5)
    assert (await agent.run(graphs.painted())).status == 200
    private_redis.pause()
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert (await agent.run(graphs.painted())).status == 200
        assert (await agent.get("/healthz")).status == 200
    private_redis.resume()
