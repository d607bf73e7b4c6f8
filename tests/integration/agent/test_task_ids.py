"""Which names a task may have."""

from __future__ import annotations

import pytest
from yarl import URL

from tests.integration.agent import graphs
from tests.integration.agent.service import Agent

GOOD = ["a", "0", "_", "A-z_0.9:x", "9" * 128, "b--..", "not.a.path..", "COM1"]

BAD = {
    "empty": "",
    "slash": "a/b",
    "dots": "..",
    "traversal": "../../etc/passwd",
    "space": "a b",
    "only spaces": "  ",
    "leading hyphen": "-rf",
    "leading dot": ".hidden",
    "non-ASCII": "tâche",
    "non-ASCII digit": "٣",
    "129 characters": "x" * 129,
    "10,000 characters": "x" * 10_000,
    "percent": "a%2Fb",
    "quote": "a'b",
    "tab": "a\tb",
}


@pytest.mark.parametrize("task_id", GOOD)
async def test_good_name_is_kept_and_found_again(agent: Agent, task_id: str) -> None:
    assert (await agent.run(graphs.painted(), task_id)).headers["task-id"] == task_id
    assert (await agent.task(task_id))["id"] == task_id
    assert (await agent.status(task_id)).status == 200


@pytest.mark.parametrize("task_id", BAD.values(), ids=BAD)
async def test_bad_name_is_refused_before_anything_is_queued(agent: Agent, task_id: str) -> None:
    async with agent.engine.asked(0):
        error = (await agent.run(graphs.painted(), task_id)).error(400, "InvalidTaskId")
    assert "128" in error["detail"]


@pytest.mark.parametrize(
    "task_id", [v for v in BAD.values() if v.strip()], ids=[k for k in BAD if BAD[k].strip()]
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/tasks/{}"),
        ("GET", "/api/tasks/{}/events"),
        ("GET", "/api/tasks/{}/outputs/0"),
        ("DELETE", "/api/tasks/{}"),
        ("GET", "/api/status?id={}"),
    ],
)
async def test_bad_name_is_refused_on_every_route(agent: Agent, task_id: str, method: str, path: str) -> None:
    quoted = "".join(f"%{byte:02X}" for byte in task_id.encode()) if len(task_id) < 1000 else task_id
    answer = await agent.call(method, URL(path.format(quoted), encoded=True))  # type: ignore[arg-type]
    answer.error(400, "InvalidTaskId")


@pytest.mark.parametrize("task_id", ["../x", "a b", "x" * 200, "-x"])
async def test_bad_name_is_refused_before_a_websocket_opens(agent: Agent, task_id: str) -> None:
    headers = {"task-id": task_id, "Connection": "Upgrade", "Upgrade": "websocket"}
    headers |= {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
    (await agent.get("/api/run/ws", headers=headers)).error(400, "InvalidTaskId")


async def test_name_of_the_platform_is_used_where_the_caller_gave_none(agent: Agent) -> None:
    theirs = {"x-fc-async-task-id": "platform-1"}
    assert (await agent.run(graphs.painted(), headers=theirs)).headers["task-id"] == "platform-1"
    assert (await agent.run(graphs.painted(), "caller-1", headers=theirs)).headers["task-id"] == "caller-1"


async def test_bad_name_of_the_platform_is_refused_too(agent: Agent) -> None:
    (await agent.run(graphs.painted(), headers={"x-fc-async-task-id": "../x"})).error(400, "InvalidTaskId")


async def test_unknown_task_is_404_on_every_route(agent: Agent) -> None:
    for path in ("/api/tasks/nobody", "/api/tasks/nobody/events", "/api/tasks/nobody/outputs/0"):
        error = (await agent.get(path)).error(404, "TaskNotFound")
        assert error["task_id"] == "nobody"
    (await agent.status("nobody")).error(404, "TaskNotFound")
    (await agent.cancel("nobody")).error(404, "TaskNotFound")


async def test_status_without_an_id_says_how_to_ask(agent: Agent) -> None:
    error = (await agent.get("/api/status")).error(400, "InvalidQuery")
    assert "?id=" in error["detail"]
