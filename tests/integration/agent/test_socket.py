"""GET /api/run/ws: progress on the way, then the result or the error."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from tests.integration.agent import graphs
from tests.integration.agent.conversation import conversation
from tests.integration.agent.pictures import color_of
from tests.integration.agent.service import Agent, MakeAgent, check_error, eventually
from tests.integration.agent.test_bad_input import UI_EXPORT

pytestmark = pytest.mark.real


async def test_progress_messages_come_before_the_result(agent: Agent) -> None:
    async with conversation(agent, graphs.stepping(steps=20, color=graphs.RED)) as talk:
        (data,) = await talk.results("3")
    assert color_of(data) == (255, 0, 0)
    *progress, result = talk.seen
    assert len(progress) > 2
    assert {m["type"] for m in progress} == {"progress"}
    assert all(m["data"].keys() == {"1", "2", "3"} for m in talk.seen)
    steps = [m["data"]["2"]["value"] for m in progress]
    assert steps == sorted(steps)
    assert any(0 < step < 20 for step in steps)
    assert not any("results" in node for m in progress for node in m["data"].values())
    assert result["data"]["2"]["value"] == 20


async def test_task_of_a_socket_is_found_by_its_id(agent: Agent) -> None:
    async with conversation(agent, graphs.painted(), **{"task-id": "by-socket"}) as talk:
        found = await talk.results("2")
    assert talk.task_id == "by-socket"
    assert (await agent.status("by-socket")).results("2") == found


async def test_socket_without_an_id_is_told_the_one_it_got(agent: Agent) -> None:
    async with conversation(agent, {"prompt": graphs.painted()}) as talk:
        await talk.results("2")
    assert (await agent.task(talk.task_id))["state"] == "succeeded"


async def test_binary_first_message_is_taken_too(agent: Agent) -> None:
    async with conversation(agent) as talk:
        await talk.socket.send_bytes(json.dumps(graphs.painted(graphs.GREEN)).encode())
        assert color_of(*await talk.results("2")) == (0, 255, 0)


BAD_FIRST = {
    "not JSON": ("{", "InvalidJson"),
    "list": ("[]", "InvalidWorkflow"),
    "editor export": (json.dumps(UI_EXPORT), "InvalidWorkflow"),
    "unknown class": (json.dumps({"1": graphs.node("NoSuchNode")}), "UnknownNodeClass"),
    "bad picture": (json.dumps(graphs.loaded("nope.png")), "InvalidInput"),
    "not text": (b"\xff\xfe", "InvalidJson"),
}


@pytest.mark.parametrize(("first", "code"), BAD_FIRST.values(), ids=BAD_FIRST)
async def test_bad_first_message_gets_the_error_that_a_request_would_get(
    agent: Agent, first: Any, code: str
) -> None:
    async with agent.engine.asked(0), conversation(agent) as talk:
        await (talk.socket.send_bytes if isinstance(first, bytes) else talk.socket.send_str)(first)
        last = await talk.hear_out()
        assert last["type"] == "error"
        check_error(last["data"], code)
        assert last["data"]["task_id"] == talk.task_id
        assert talk.socket.close_code == 1000


async def test_failing_node_is_an_error_message(agent: Agent) -> None:
    async with conversation(agent, graphs.raising("oh no")) as talk:
        last = await talk.hear_out()
    error = check_error(last["data"], "NodeFailed")
    assert (error["node_id"], error["exception_message"]) == ("2", "oh no")


async def is_cancelled(agent: Agent, task_id: str) -> None:
    assert (await agent.finished(task_id))["state"] == "cancelled"
    await eventually(agent.engine.is_idle)


async def test_close_message_cancels(agent: Agent) -> None:
    async with conversation(agent, graphs.stepping(steps=500)) as talk:
        await agent.running_later(talk.task_id)
        await talk.say({"type": "close"})
        while await talk.hear() is not None:
            pass
        assert {m["type"] for m in talk.seen} <= {"progress", "error"}
    await is_cancelled(agent, talk.task_id)


async def test_closing_the_socket_cancels(agent: Agent) -> None:
    async with conversation(agent, graphs.stepping(steps=500)) as talk:
        await agent.running_later(talk.task_id)
    await is_cancelled(agent, talk.task_id)


async def test_losing_the_connection_cancels(agent: Agent) -> None:
    async with aiohttp.ClientSession(agent.url) as session:
        socket = await session.ws_connect("/api/run/ws", headers={"task-id": "lost"})
        await socket.send_str(json.dumps(graphs.stepping(steps=500)))
        await agent.running_later("lost")
        transport = socket._response.connection.transport  # type: ignore[union-attr]
        transport.abort()  # type: ignore[union-attr]
    await is_cancelled(agent, "lost")


async def test_other_messages_are_ignored(agent: Agent) -> None:
    async with conversation(agent, graphs.stepping(steps=10)) as talk:
        for noise in ("hello", "[]", "5", "null", '{"type": 5}', '{"type": "pause"}'):
            await talk.socket.send_str(noise)
        await talk.socket.send_bytes(b"\x00")
        assert len(await talk.results("3")) == 1


async def test_leaving_before_the_first_message_leaves_nothing_behind(agent: Agent) -> None:
    async with conversation(agent, **{"task-id": "silent"}):
        pass
    assert (await agent.get("/api/tasks/silent")).status == 404


async def test_cancel_by_another_route_ends_the_socket_with_an_error(agent: Agent) -> None:
    async with conversation(agent, graphs.stepping(steps=500)) as talk:
        await agent.running_later(talk.task_id)
        await agent.cancel(talk.task_id)
        check_error((await talk.hear_out())["data"], "TaskCancelled")


async def test_two_sockets_of_one_task_get_the_same_result_and_one_may_leave(agent: Agent) -> None:
    graph = graphs.stepping(steps=30)
    async with agent.engine.asked(1), conversation(agent, graph, **{"task-id": "pair"}) as stays:
        async with conversation(agent, graph, **{"task-id": "pair"}) as leaves:
            await leaves.hear()
        assert len(await stays.results("3")) == 1


async def test_first_message_over_the_limit_closes_with_the_code_for_that(make_agent: MakeAgent) -> None:
    small = await make_agent(max_body_bytes=1000)
    async with conversation(small, {"1": graphs.node("EmptyImage", filler="x" * 2000)}) as talk:
        assert await talk.hear() is None
        assert talk.socket.close_code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG


async def test_slow_reader_gets_the_result_all_the_same(agent: Agent) -> None:
    async with conversation(agent, graphs.stepping(steps=40, seconds=0.01)) as talk:
        await asyncio.sleep(0.6)  # longer than the run: everything waits in the socket's buffers
        assert len(await talk.results("3")) == 1
