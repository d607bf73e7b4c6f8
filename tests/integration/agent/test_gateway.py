"""Behind a platform that answered 202 itself: the run happens inside the delivery, and refusals are kept."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import pytest_asyncio

from agent.api.keys import RUNNER
from tests.integration.agent import graphs
from tests.integration.agent.pictures import color_of
from tests.integration.agent.service import Agent, MakeAgent, settings_of
from tests.integration.agent.test_bad_input import UI_EXPORT


@pytest_asyncio.fixture(loop_scope="session")
async def behind(make_agent: MakeAgent) -> Agent:
    return await make_agent(invocation="gateway")


@pytest.mark.real
async def test_async_header_changes_nothing_the_run_is_inside_the_request(behind: Agent) -> None:
    answer = await behind.submit(graphs.painted(graphs.RED), "inside")
    assert color_of(*answer.results("2")) == (255, 0, 0)
    assert "x-fc-status" not in answer.headers
    assert (await behind.task("inside"))["state"] == "succeeded"


REJECTED: dict[str, tuple[Any, int, str]] = {
    "not JSON": (b"{", 400, "InvalidJson"),
    "editor export": (UI_EXPORT, 400, "InvalidWorkflow"),
    "unknown class": (graphs.painted() | {"3": graphs.node("NoSuchNode")}, 400, "UnknownNodeClass"),
    "missing input": (graphs.chain(graphs.node("SaveImage", filename_prefix="x")), 400, "WorkflowRejected"),
    "bad input picture": (graphs.loaded("nope.png"), 400, "InvalidInput"),
    "bad option": ({"prompt": graphs.painted(), "wrong": 1}, 400, "InvalidOptions"),
    "node raises": (graphs.raising(), 500, "NodeFailed"),
}


@pytest.mark.parametrize(("body", "status", "code"), REJECTED.values(), ids=REJECTED)
async def test_permanent_failure_is_kept_under_its_id_and_never_tried_again(
    behind: Agent, body: Any, status: int, code: str
) -> None:
    answer = await behind.submit(body, "rejected")
    answer.error(status, code)
    assert answer.headers["x-fc-status"] == "200"
    record = await behind.task("rejected")
    assert (record["state"], record["error"]["code"]) == ("failed", code)
    (await behind.status("rejected")).error(status, code)
    async with behind.engine.asked(0):
        again = await behind.submit(body, "rejected")
    again.error(status, code)
    assert again.headers["x-fc-status"] == "200"


async def test_body_over_the_limit_is_kept_under_its_id(make_agent: MakeAgent) -> None:
    small = await make_agent(invocation="gateway", max_body_bytes=100)
    (await small.submit(graphs.painted(), "too-large")).error(413, "BodyTooLarge")
    assert (await small.task("too-large"))["error"]["code"] == "BodyTooLarge"


async def test_refusal_because_the_queue_is_full_asks_for_redelivery_and_that_runs(
    make_agent: MakeAgent,
) -> None:
    full = await make_agent(invocation="gateway", queue_size=0, concurrency=1)
    holder = asyncio.create_task(full.submit(graphs.stepping(), "holder"))
    await full.running_later("holder")
    graph = graphs.painted(graphs.BLUE)
    answer = await full.submit(graph, "patient")
    answer.error(429, "QueueFull")
    assert answer.headers["x-fc-status"] == "404"
    assert (await full.task("patient"))["error"]["code"] == "QueueFull"
    await full.cancel("holder")
    (await holder).error(410, "TaskCancelled")
    assert color_of(*(await full.submit(graph, "patient")).results("2")) == (0, 0, 255)
    assert (await full.task("patient"))["state"] == "succeeded"


async def test_failure_that_may_pass_asks_for_redelivery_and_that_runs(
    make_agent: MakeAgent,
) -> None:
    agent = await make_agent(invocation="gateway", engine=[], max_attempts=3)
    await agent.engine.fault("oom@node=1,times=2")
    graph = graphs.painted(graphs.GREEN)
    answer = await agent.submit(graph, "oom")
    answer.error(500, "OutOfMemory")
    assert answer.headers["x-fc-status"] == "404"


async def test_last_attempt_leaves_no_time_for_another_delivery(make_agent: MakeAgent) -> None:
    agent = await make_agent(invocation="gateway", engine=[], max_attempts=2)
    await agent.engine.fault("die@node=1")
    run = asyncio.create_task(agent.submit(graphs.stepping(), "last"))
    await agent.running_later("last")
    record = await agent.until("last", lambda r: len(r["attempts"]) == 2 and r["state"] == "running")
    assert record["deliver_until"] is None
    await agent.cancel("last")
    (await run).error(410, "TaskCancelled")


async def test_redelivery_after_success_returns_the_stored_result(behind: Agent) -> None:
    graph = graphs.painted(prefix="stored")
    first = await behind.submit(graph, "twice")
    async with behind.engine.asked(0):
        again = await behind.submit(graph, "twice")
    assert again.body == first.body


async def test_other_workflow_under_a_known_id_is_a_conflict_that_leaves_the_task_alone(
    behind: Agent,
) -> None:
    await behind.submit(graphs.painted(), "taken")
    answer = await behind.submit(graphs.painted(), "taken")
    answer.error(409, "TaskConflict")
    assert answer.headers["x-fc-status"] == "200"
    assert (await behind.task("taken"))["state"] == "succeeded"


async def test_refused_request_without_an_id_is_only_answered(behind: Agent) -> None:
    (await behind.submit(b"{")).error(400, "InvalidJson")
    assert (await behind.get("/api/tasks")).ok()["tasks"] == []


@pytest.mark.parametrize("task_id", ["no spaces", "x" * 129, ""])
async def test_request_whose_id_is_none_is_not_delivered_again(behind: Agent, task_id: str) -> None:
    answer = await behind.submit(graphs.painted(), task_id)
    answer.error(400, "InvalidTaskId")
    assert answer.headers["x-fc-status"] == "200"
    assert (await behind.get("/api/tasks")).ok()["tasks"] == []


async def test_request_without_a_key_is_not_delivered_again_and_writes_nothing(make_agent: MakeAgent) -> None:
    agent = await make_agent(invocation="gateway", api_keys=["k3y"])
    answer = await agent.submit(graphs.painted(), "keyless")
    answer.error(401, "Unauthorized")
    assert answer.headers["x-fc-status"] == "200"
    (await agent.call("GET", "/api/tasks/keyless", headers={"X-Api-Key": "k3y"})).error(404, "TaskNotFound")


async def test_body_that_is_announced_too_large_is_kept_under_its_id(make_agent: MakeAgent) -> None:
    small = await make_agent(invocation="gateway", max_body_bytes=100)
    reader, writer = await asyncio.open_connection("127.0.0.1", small.port)
    head = "POST /api/run HTTP/1.1\r\nHost: x\r\ntask-id: announced\r\nContent-Length: 1000\r\n\r\n"
    writer.write(head.encode())  # and never the body
    answer = (await reader.readuntil(b"\r\n\r\n")).lower()
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"http/1.1 413")
    assert b"x-fc-status: 200" in answer
    assert (await small.task("announced"))["error"]["code"] == "BodyTooLarge"


async def test_crash_is_kept_under_its_id_like_any_failure(
    make_agent: MakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = await make_agent(invocation="gateway")

    async def crash(*_: object, **__: object) -> None:
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr(agent._runner.app[RUNNER], "run", crash)
    answer = await agent.submit(graphs.painted(), "crashed")
    answer.error(500, "InternalError")
    assert answer.headers["x-fc-status"] == "200"
    assert (await agent.task("crashed"))["error"]["code"] == "InternalError"


async def test_refusal_that_cannot_be_kept_asks_for_redelivery(make_agent: MakeAgent) -> None:
    agent = await make_agent(invocation="gateway", redis_url="redis://127.0.0.1:1/0")
    answer = await agent.submit(b"{", "unkept")
    answer.error(400, "InvalidJson")
    assert answer.headers["x-fc-status"] == "404"


async def test_outside_a_gateway_the_header_is_never_set(agent: Agent) -> None:
    for body in (b"{", graphs.raising()):
        assert "x-fc-status" not in (await agent.run(body)).headers


async def test_headers_of_the_platform_are_not_echoed_or_stored(behind: Agent) -> None:
    secrets = {"x-fc-access-key-secret": "s3cret-key", "x-fc-security-token": "s3cret-token"}
    answer = await behind.submit(graphs.painted(), "secrets", **secrets)
    assert answer.status == 200
    record = await behind.get("/api/tasks/secrets")
    assert "s3cret" not in f"{answer.headers}{answer.body!r}{record.headers}{record.body!r}"


@pytest.mark.parametrize(
    ("environment", "is_behind"),
    [
        ({"FC_FUNCTION_NAME": "f", "FC_INSTANCE_ID": "i"}, True),
        ({"FC_FUNCTION_NAME": "f"}, False),
        ({}, False),
    ],
)
def test_platform_is_known_by_its_variables(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], is_behind: bool
) -> None:
    for name in ("FC_FUNCTION_NAME", "FC_INSTANCE_ID"):
        monkeypatch.delenv(name, raising=False)
    settings = settings_of(invocation="auto")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert settings.behind_gateway is is_behind
