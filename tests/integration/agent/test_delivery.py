"""The same task delivered several times: one run, one result."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.integration.agent import graphs
from tests.integration.agent.conversation import conversation
from tests.integration.agent.service import Agent

pytestmark = pytest.mark.real


async def test_second_delivery_while_the_first_runs_gets_the_same_result(agent: Agent) -> None:
    graph = graphs.stepping(steps=20)
    async with agent.engine.asked(1):
        first = asyncio.create_task(agent.run(graph, "joined"))
        await agent.running_later("joined")
        second, third = await agent.run(graph, "joined"), await first
    assert second.body == third.body
    assert len(second.results("3")) == 1


async def test_five_deliveries_at_once_and_one_later_run_once(agent: Agent) -> None:
    graph = graphs.painted(prefix="five")
    async with agent.engine.asked(1):
        answers = await asyncio.gather(*(agent.run(graph, "five") for _ in range(5)))
        answers.append(await agent.run(graph, "five"))
    assert len({answer.body for answer in answers}) == 1
    assert len(answers[0].results("2")) == 1
    assert len((await agent.task("five"))["attempts"]) == 1


async def test_order_of_keys_does_not_make_another_workflow(agent: Agent) -> None:
    graph = graphs.painted()
    turned = {key: dict(reversed(node.items())) for key, node in reversed(graph.items())}
    assert json.dumps(turned) != json.dumps(graph)
    first = await agent.run(graph, "turned")
    async with agent.engine.asked(0):
        assert (await agent.run(turned, "turned")).body == first.body


async def test_delivery_after_success_returns_the_stored_result_in_every_way(agent: Agent) -> None:
    graph = graphs.painted()
    first = await agent.run(graph, "stored-1")
    async with agent.engine.asked(0):
        assert (await agent.run(graph, "stored-1")).body == first.body
        submitted = await agent.submit(graph, "stored-1")
        async with conversation(agent, graph, **{"task-id": "stored-1"}) as talk:
            assert await talk.results("2") == first.results("2")
    assert (submitted.status, submitted.json["state"]) == (202, "succeeded")


async def test_delivery_after_a_permanent_failure_returns_the_stored_failure(agent: Agent) -> None:
    graph = graphs.raising()
    first = (await agent.run(graph, "stored-2")).error(500, "NodeFailed")
    async with agent.engine.asked(0):
        assert (await agent.run(graph, "stored-2")).error(500, "NodeFailed") == first


async def test_other_workflow_under_the_id_of_a_running_task_is_refused(agent: Agent) -> None:
    task_id = await agent.begin(graphs.stepping(), "mine")
    await agent.running(task_id)
    async with agent.engine.asked(0):
        error = (await agent.run(graphs.painted(), "mine")).error(409, "TaskConflict")
        (await agent.submit(graphs.painted(), "mine")).error(409, "TaskConflict")
    assert error["task_id"] == "mine"
    assert (await agent.task(task_id))["state"] in ("queued", "running")
    await agent.cancel(task_id)


async def test_other_workflow_under_the_id_of_a_finished_task_is_refused(agent: Agent) -> None:
    first = await agent.run(graphs.painted(), "done")
    (await agent.run(graphs.painted(), "done")).error(409, "TaskConflict")
    assert (await agent.status("done")).results("2") == first.results("2")


async def test_synchronous_delivery_joins_a_background_task_and_may_leave_it(agent: Agent) -> None:
    graph = graphs.stepping(steps=30)
    await agent.begin(graph, "background")
    await agent.running("background")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(agent.run(graph, "background"), 0.1)
    assert len((await agent.run(graph, "background")).results("3")) == 1


async def test_caller_who_hangs_up_leaves_the_run_to_another_who_waits(agent: Agent) -> None:
    graph = graphs.stepping(steps=30)
    async with agent.engine.asked(1):
        leaver = asyncio.create_task(agent.run(graph, "shared"))
        stayer = asyncio.create_task(agent.run(graph, "shared"))
        await agent.running_later("shared")
        leaver.cancel()
        assert len((await stayer).results("3")) == 1
