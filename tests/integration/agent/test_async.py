"""Asynchronous runs where nobody in front of the agent answers 202: start, poll, fetch."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.agent import graphs
from tests.integration.agent.pictures import color_of
from tests.integration.agent.service import Agent, MakeAgent, eventually


@pytest.mark.real
async def test_async_run_answers_202_with_the_callers_id_and_where_to_look(agent: Agent) -> None:
    answer = await agent.submit(graphs.painted(), "async-1")
    assert answer.status == 202
    assert answer.json == {"task_id": "async-1", "state": "queued"}
    assert answer.headers["task-id"] == "async-1"
    assert answer.headers["Location"] == "/api/tasks/async-1"
    assert (await agent.get(answer.headers["Location"])).ok()["id"] == "async-1"
    await agent.succeeded("async-1")


@pytest.mark.real
async def test_async_run_without_id_tells_the_one_it_made(agent: Agent) -> None:
    answer = await agent.submit(graphs.painted())
    task_id = answer.headers["task-id"]
    assert answer.json["task_id"] == task_id
    assert task_id[0].isalpha()
    await agent.succeeded(task_id)


@pytest.mark.parametrize("value", ["Async", "async", "ASYNC"])
async def test_header_is_understood_in_any_case(agent: Agent, value: str) -> None:
    answer = await agent.run(graphs.painted(), headers={"X-Fc-Invocation-Type": value})
    assert answer.status == 202
    await agent.succeeded(answer.headers["task-id"])


async def test_header_that_asks_for_a_synchronous_run_gets_one(agent: Agent) -> None:
    answer = await agent.run(graphs.painted(), headers={"X-Fc-Invocation-Type": "Sync"})
    assert len(answer.results("2")) == 1


@pytest.mark.real
async def test_both_polling_routes_follow_the_task_to_its_end(agent: Agent) -> None:
    task_id = await agent.begin(graphs.stepping(steps=20, color=graphs.RED))
    seen, steps = [], []
    while True:
        record, status = await agent.task(task_id), await agent.status(task_id)
        seen.append(record["progress"])
        steps.append(status.ok()["2"]["value"])
        if record["state"] == "succeeded":
            break
        assert "results" not in record["nodes"]["3"]
        await asyncio.sleep(0.02)  # a poller's pause
    assert seen == sorted(seen)
    assert 0 <= seen[0] < 1
    assert seen[-1] == 1
    assert any(0 < progress < 1 for progress in seen)
    assert any(0 < step < 20 for step in steps)
    assert color_of(*(await agent.status(task_id)).results("3")) == (255, 0, 0)


@pytest.mark.real
async def test_record_of_a_running_task_names_the_node_it_is_at(agent: Agent) -> None:
    task_id = await agent.begin(graphs.stepping(steps=50))
    record = await agent.until(task_id, lambda r: (r["current_node"] or {}).get("value", 0) > 1)
    node = record["current_node"]
    assert (node["id"], node["title"], node["class_type"], node["max"]) == (
        "2",
        "The slow one",
        "LabSteps",
        50,
    )
    assert record["state"] == "running"
    assert record["started_at"] >= record["created_at"]
    assert record["finished_at"] is None
    await agent.cancel(task_id)


@pytest.mark.real
async def test_record_of_a_finished_task_is_complete(agent: Agent) -> None:
    task_id = await agent.begin(graphs.painted(prefix="record"))
    record = await agent.succeeded(task_id)
    fields = "id state progress queue_position current_node attempts nodes outputs warnings error timings"
    assert set(fields.split()) | {"created_at", "started_at", "finished_at"} <= record.keys()
    assert (record["error"], record["current_node"], record["queue_position"]) == (None, None, None)
    assert record["created_at"] <= record["started_at"] <= record["finished_at"]
    (attempt,) = record["attempts"]
    assert (attempt["number"], attempt["outcome"]) == (1, "succeeded")
    (output,) = record["outputs"]
    assert output["url"] == f"/api/tasks/{task_id}/outputs/0"
    assert {
        "index",
        "node_id",
        "filename",
        "subfolder",
        "type",
        "media_type",
        "bytes",
        "url",
    } <= output.keys()
    assert "results" not in record["nodes"]["2"]


@pytest.mark.real
async def test_failed_task_tells_node_class_and_exception_on_both_routes(agent: Agent) -> None:
    task_id = await agent.begin(graphs.raising("kaputt: ü"))
    record = await agent.finished(task_id)
    assert record["state"] == "failed"
    error = record["error"]
    assert error["code"] == "NodeFailed"
    wanted = {"node_id": "2", "node_class": "LabRaise", "node_title": "Troublemaker"}
    wanted |= {"exception_type": "RuntimeError", "exception_message": "kaputt: ü"}
    assert {key: error[key] for key in wanted} == wanted
    answered = (await agent.status(task_id)).error(500, "NodeFailed")
    assert {key: answered[key] for key in wanted} == wanted


@pytest.mark.real
async def test_waiting_tasks_know_their_place_in_the_queue(make_agent: MakeAgent) -> None:
    agent = await make_agent(concurrency=1)
    first = await agent.begin(graphs.stepping())
    await agent.running(first)
    waiting = [await agent.begin(graphs.painted()) for _ in range(3)]
    assert [(await agent.task(t))["queue_position"] for t in waiting] == [1, 2, 3]
    queue = (await agent.get("/api/queue")).ok()
    assert (queue["running"], queue["queued"]) == ([first], waiting)
    await agent.cancel(waiting[0])
    assert [(await agent.task(t))["queue_position"] for t in waiting[1:]] == [1, 2]
    await agent.cancel(first)
    for task_id in waiting[1:]:
        await agent.succeeded(task_id)


async def test_caller_who_left_after_202_does_not_end_the_task(agent: Agent) -> None:
    task_id = await agent.begin(graphs.stepping(steps=10))
    await agent.http._connector.close()  # type: ignore[union-attr]
    agent.http._connector = type(agent.http._connector)()  # type: ignore[call-arg,misc]
    assert (await agent.succeeded(task_id))["state"] == "succeeded"


async def test_finished_tasks_are_forgotten_after_their_time(make_agent: MakeAgent) -> None:
    agent = await make_agent(task_ttl_seconds=1)
    await agent.run(graphs.painted(), "short-lived")
    assert (await agent.task("short-lived"))["state"] == "succeeded"

    async def is_gone() -> bool:
        return (await agent.get("/api/tasks/short-lived")).status == 404

    await eventually(is_gone)
    (await agent.output("short-lived", 0)).error(404, "TaskNotFound")
    assert (await agent.run(graphs.painted(), "short-lived")).status == 200, "the id is free again"
