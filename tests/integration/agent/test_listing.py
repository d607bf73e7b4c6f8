"""GET /api/tasks and /api/queue, and what happens when the queue is full."""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio

from agent.api.keys import BOARD
from agent.tasks.record import TaskRecord
from tests.integration.agent import graphs
from tests.integration.agent.conversation import conversation
from tests.integration.agent.service import Agent, MakeAgent, check_error, eventually
from tests.redis_server import RedisServer


@pytest_asyncio.fixture(loop_scope="session", params=["memory", "redis"])
async def fresh(
    request: pytest.FixtureRequest, make_agent: MakeAgent, redis_server: RedisServer, redis_prefix: str
) -> Agent:
    """An agent that has run nothing yet."""
    store = {"redis_url": redis_server.url, "redis_prefix": redis_prefix} if request.param == "redis" else {}
    return await make_agent(**store)


async def walk(agent: Agent, **query: str) -> list[str]:
    """All ids, page by page."""
    ids: list[str] = []
    more: dict[str, str] = {}
    for _ in range(50):
        page = (await agent.get("/api/tasks", params={**query, **more})).ok()
        assert page.keys() == {"tasks", "next"}
        ids += [task["id"] for task in page["tasks"]]
        if page["next"] is None:
            return ids
        more = {"before": page["next"]}
    raise AssertionError("the pages do not end")


async def test_tasks_are_listed_newest_first_and_page_by_page(fresh: Agent) -> None:
    assert await walk(fresh) == []
    made = [(await fresh.run(graphs.painted(), f"t{n}")).headers["task-id"] for n in range(7)]
    newest_first = made[::-1]
    assert await walk(fresh) == newest_first
    for limit in ("1", "2", "3", "7", "200"):
        assert await walk(fresh, limit=limit) == newest_first
    first = (await fresh.get("/api/tasks", params={"limit": "1"})).ok()["tasks"][0]
    assert first == await fresh.task("t6")


async def test_urls_of_all_tasks_of_a_page_are_signed_at_once(
    fresh: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What signs them may be silent until its time limit: that is waited for once, not once for each task."""
    for number in range(3):
        await fresh.run(graphs.painted(), f"signed-{number}")
    asked: list[str] = []
    all_asked = asyncio.Event()

    async def links(record: TaskRecord) -> dict[int, str]:
        asked.append(record.id)
        if len(asked) == 3:
            all_asked.set()
        await all_asked.wait()
        return {}

    monkeypatch.setattr(fresh.parts[BOARD], "links", links)
    page = (await fresh.get("/api/tasks", params={"limit": "3"})).ok()
    assert [task["id"] for task in page["tasks"]] == ["signed-2", "signed-1", "signed-0"]


async def test_tasks_are_listed_by_state(fresh: Agent) -> None:
    await fresh.run(graphs.painted(), "good")
    await fresh.run(graphs.raising(), "bad")
    running = await fresh.begin(graphs.stepping(), "busy")
    await fresh.running(running)

    async def is_listed() -> bool:  # progress is written a few times a second
        return await walk(fresh, state="running") == ["busy"]

    await eventually(is_listed)
    assert await walk(fresh, state="succeeded") == ["good"]
    assert await walk(fresh, state="failed") == ["bad"]
    assert await walk(fresh, state="cancelled") == []
    await fresh.cancel(running)
    assert await walk(fresh, state="cancelled") == ["busy"]
    assert await walk(fresh, state="running") == []


@pytest.mark.parametrize(
    "query",
    [
        {"state": "done"},
        {"state": ""},
        {"limit": "0"},
        {"limit": "-1"},
        {"limit": "201"},
        {"limit": "x"},
        {"limit": ""},
        {"limit": "1e2"},
        {"limit": "9" * 5000},
        {"before": "nonsense"},
        {"before": ""},
        {"before": "\x00"},
        {"before": "(1"},
        {"before": "é" * 300},
        {"before": "1732170000.5:t"},
        {"before": "0001732170000.500000:"},
        {"before": "0001732170000.500000:t\n"},
    ],
)
async def test_wrong_query_is_refused(fresh: Agent, query: dict[str, str]) -> None:
    await fresh.run(graphs.painted())
    error = (await fresh.get("/api/tasks", params=query)).error(400, "InvalidQuery")
    assert error["parameter"] == next(iter(query))


@pytest.mark.real
async def test_queue_shows_what_runs_what_waits_and_how_much_fits(make_agent: MakeAgent) -> None:
    agent = await make_agent(concurrency=1, queue_size=5)
    assert (await agent.get("/api/queue")).ok() == {"running": [], "queued": [], "capacity": 6}
    first, second = await agent.begin(graphs.stepping()), await agent.begin(graphs.painted())
    await agent.running(first)
    queue = (await agent.get("/api/queue")).ok()
    assert (queue["running"], queue["queued"]) == ([first], [second])
    await agent.cancel(first)
    await agent.succeeded(second)
    assert (await agent.get("/api/queue")).ok()["running"] == []


@pytest.mark.real
async def test_full_queue_refuses_with_429_and_when_to_come_back(make_agent: MakeAgent) -> None:
    agent = await make_agent(concurrency=1, queue_size=1)
    ids = [await agent.begin(graphs.stepping()) for _ in range(2)]
    for answer in (await agent.run(graphs.painted()), await agent.submit(graphs.painted())):
        answer.error(429, "QueueFull")
        assert int(answer.headers["Retry-After"]) > 0
    async with conversation(agent, graphs.painted()) as talk:
        check_error((await talk.hear_out())["data"], "QueueFull")
    joined = asyncio.create_task(agent.run(graphs.painted(), "nobody"))
    (await joined).error(429, "QueueFull")
    assert (await agent.get("/api/tasks/nobody")).status == 404
    for task_id in ids:
        await agent.cancel(task_id)
    assert (await agent.run(graphs.painted())).status == 200


async def test_finished_task_is_answered_even_when_the_queue_is_full(make_agent: MakeAgent) -> None:
    agent = await make_agent(concurrency=1, queue_size=0)
    graph = graphs.painted()
    first = await agent.run(graph, "finished")
    holder = await agent.begin(graphs.stepping())
    async with agent.engine.asked(0):
        assert (await agent.run(graph, "finished")).body == first.body
    await agent.cancel(holder)
