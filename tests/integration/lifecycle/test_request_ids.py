"""Every line that is logged for a request carries its id, and is written before the answer leaves."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.integration.agent.graphs import painted
from tests.integration.reliability.fleet import AgentProcess, slow, until

Pair = tuple[AgentProcess, AgentProcess]


def lines_of(agent: AgentProcess, request_id: str) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in agent.log_text.splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("request_id") == request_id]


def events(agent: AgentProcess, request_id: str) -> list[object]:
    return [line["event"] for line in lines_of(agent, request_id)]


async def test_lines_of_a_run_carry_the_platforms_request_id_and_are_there_when_the_answer_is(
    pair: Pair,
) -> None:
    agent, _ = pair
    await agent.run(painted(), "named", headers={"x-fc-request-id": "1-65a7ddc4-abc"})
    assert events(agent, "1-65a7ddc4-abc") == ["task.admitted", "task.finished", "request.finished"]
    last = lines_of(agent, "1-65a7ddc4-abc")[-1]
    assert (last["method"], last["path"], last["status"]) == ("POST", "/api/run", 200)
    assert list(last)[:3] == ["timestamp", "level", "event"]


async def test_lines_of_a_background_run_carry_the_id_of_the_request_that_began_it(pair: Pair) -> None:
    agent, _ = pair
    await agent.submit(painted(), "later", **{"x-fc-request-id": "req-later"})
    await agent.succeeded("later")
    assert sorted(map(str, events(agent, "req-later"))) == [
        "request.finished",
        "task.admitted",
        "task.finished",
    ]


async def test_requests_of_one_connection_do_not_share_an_id(pair: Pair) -> None:
    agent, _ = pair
    for number in range(3):
        await agent.run(b"{", headers={"x-fc-request-id": f"one-connection-{number}"})
        assert events(agent, f"one-connection-{number}") == ["request.finished"]


@pytest.mark.parametrize("given", ["", "no spaces", "x" * 65, 'FC Invoke End RequestId: "1"'])
async def test_id_that_is_none_is_replaced(pair: Pair, given: str) -> None:
    agent, _ = pair
    before = len(agent.logged("request.finished"))
    await agent.run(b"{", headers={"x-fc-request-id": given})
    (line,) = agent.logged("request.finished")[before:]
    assert line["request_id"].isalnum()
    assert len(line["request_id"]) == 32


async def test_health_and_polls_are_not_logged_and_queries_never(pair: Pair) -> None:
    agent, _ = pair
    before = len(agent.logged("request.finished"))
    for path in ("/healthz", "/readyz", "/api/queue", "/api/tasks?state=failed", "/nothing?key=s3cret"):
        await agent.get(path)
    await agent.call("POST", "/wrong?key=s3cret")
    (line,) = agent.logged("request.finished")[before:]
    assert (line["path"], line["status"]) == ("/wrong", 404)
    assert "s3cret" not in agent.log_text


async def test_caller_who_hangs_up_is_logged_as_such(pair: Pair) -> None:
    agent, _ = pair
    run = agent.run(slow(500), "hung-up", headers={"x-fc-request-id": "hung-up"})
    caller = asyncio.create_task(run)
    await agent.running("hung-up")
    caller.cancel()
    await until(lambda: "request.finished" in events(agent, "hung-up"))
    (line,) = (line for line in lines_of(agent, "hung-up") if line["event"] == "request.finished")
    assert line["status"] == 499
