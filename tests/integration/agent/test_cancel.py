"""Cancelling: exactly the one task, wherever it is, and nothing of its neighbours."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from agent.runner import CANCEL_SECONDS
from tests.integration.agent import graphs
from tests.integration.agent.pictures import color_of
from tests.integration.agent.service import PATIENCE_SECONDS, Agent, MakeAgent, eventually, settings_of
from tests.integration.inputs.conftest import MediaServer

pytestmark = pytest.mark.real


async def test_running_task_is_interrupted(agent: Agent) -> None:
    task_id = await agent.begin(graphs.stepping(steps=500))
    await agent.running(task_id)
    record = (await agent.cancel(task_id)).ok()
    assert (record["state"], record["error"]["code"]) == ("cancelled", "TaskCancelled")
    assert record["finished_at"] is not None
    await eventually(agent.engine.is_idle)
    assert (await agent.task(task_id))["state"] == "cancelled"
    (await agent.status(task_id)).error(410, "TaskCancelled")


async def test_task_in_a_sampler_is_interrupted(agent: Agent) -> None:
    task_id = await agent.begin(graphs.sampled(steps=1000))
    await agent.until(task_id, lambda r: r["nodes"]["5"]["value"] > 0)
    assert (await agent.cancel(task_id)).ok()["state"] == "cancelled"
    await eventually(agent.engine.is_idle)


async def test_queued_task_never_starts_and_its_neighbours_go_on(make_agent: MakeAgent) -> None:
    agent = await make_agent(concurrency=2)
    before = await agent.begin(graphs.stepping(steps=25, color=graphs.RED))
    await agent.running(before)
    # One that waits in the engine's queue, one that waits in ours, and one after them.
    waiting = [await agent.begin(graphs.stepping(steps=500)) for _ in range(2)]
    after = await agent.begin(graphs.painted(graphs.BLUE))
    await eventually(agent.engine.pending)
    for task_id in waiting:
        record = (await agent.cancel(task_id)).ok()
        assert (record["state"], record["started_at"]) == ("cancelled", None)
    await agent.succeeded(before)
    await agent.succeeded(after)
    assert color_of(*(await agent.status(before)).results("3")) == (255, 0, 0)
    assert color_of(*(await agent.status(after)).results("2")) == (0, 0, 255)
    await eventually(agent.engine.is_idle)


async def test_finished_task_stays_as_it_is(agent: Agent) -> None:
    answer = await agent.run(graphs.painted(), "finished")
    record = (await agent.cancel("finished")).ok()
    assert (record["state"], record["error"]) == ("succeeded", None)
    assert (await agent.status("finished")).results("2") == answer.results("2")


async def test_cancelling_twice_and_at_the_same_time_gives_the_same_answer(agent: Agent) -> None:
    task_id = await agent.begin(graphs.stepping())
    await agent.running(task_id)
    first, second = await asyncio.gather(agent.cancel(task_id), agent.cancel(task_id))
    third = await agent.cancel(task_id)
    assert first.ok() == second.ok() == third.ok()


async def test_unknown_task_cannot_be_cancelled(agent: Agent) -> None:
    (await agent.cancel("nobody")).error(404, "TaskNotFound")


async def test_synchronous_caller_of_a_cancelled_task_is_told(agent: Agent) -> None:
    caller = asyncio.create_task(agent.run(graphs.stepping(), "told"))
    await agent.running_later("told")
    await agent.cancel("told")
    answer = await caller
    answer.error(410, "TaskCancelled")
    assert answer.headers["task-id"] == "told"


async def test_synchronous_caller_who_hangs_up_cancels_the_run(agent: Agent) -> None:
    caller = asyncio.create_task(agent.run(graphs.stepping(steps=500), "hung-up"))
    await agent.running_later("hung-up")
    caller.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await caller
    record = await agent.finished("hung-up")
    assert (record["state"], record["error"]["code"]) == ("cancelled", "CallerGone")
    await eventually(agent.engine.is_idle)


async def test_caller_who_lost_the_connection_may_ask_again(agent: Agent) -> None:
    """Unlike a DELETE, a broken connection is nobody's decision against the task."""
    graph = graphs.stepping(steps=20)
    caller = asyncio.create_task(agent.run(graph, "asked-again"))
    await agent.running_later("asked-again")
    caller.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await caller
    await agent.finished("asked-again")
    assert len((await agent.run(graph, "asked-again")).results("3")) == 1
    record = await agent.task("asked-again")
    assert [attempt["outcome"] for attempt in record["attempts"]] == ["cancelled", "succeeded"]


async def test_task_that_waits_for_its_inputs_is_cancelled(agent: Agent, media: MediaServer) -> None:
    asked, never = asyncio.Event(), asyncio.Event()

    async def keep_waiting(_server: MediaServer, _head: str, _writer: asyncio.StreamWriter) -> None:
        asked.set()
        await never.wait()

    media.handlers["/never"] = keep_waiting
    async with agent.engine.asked(0):
        task_id = await agent.begin(graphs.loaded(media.url("/never")))
        await asyncio.wait_for(asked.wait(), PATIENCE_SECONDS)
        assert (await agent.cancel(task_id)).ok()["state"] == "cancelled"


async def test_cancelled_task_can_not_be_delivered_again(agent: Agent) -> None:
    graph = graphs.stepping()
    task_id = await agent.begin(graph)
    await agent.cancel(task_id)
    async with agent.engine.asked(0):
        (await agent.run(graph, task_id)).error(410, "TaskCancelled")


async def test_slow_node_that_cannot_be_interrupted_delays_only_the_engine(agent: Agent) -> None:
    """ComfyUI looks at an interrupt only between nodes; the caller need not wait for that."""
    task_id = await agent.begin(
        graphs.chain(
            graphs.empty(), graphs.node("LabSleep", image=..., seconds=CANCEL_SECONDS + 1), graphs.preview()
        )
    )
    await agent.until(task_id, lambda r: (r["current_node"] or {}).get("id") == "2")
    assert (await agent.cancel(task_id)).ok()["state"] == "cancelled", "what it knows when it waited in vain"
    assert color_of(*(await agent.run(graphs.painted(graphs.GREEN))).results("2")) == (0, 255, 0)


async def test_many_cancels_leave_room_for_as_many_runs(make_agent: MakeAgent) -> None:
    """A slot that a cancelled task does not give back would block the instance for good."""
    agent = await make_agent(concurrency=2)
    for _ in range(5):
        ids = [await agent.begin(graphs.stepping()) for _ in range(3)]
        await agent.running(ids[0])
        await asyncio.gather(*(agent.cancel(task_id) for task_id in reversed(ids)))
    assert (await agent.run(graphs.painted())).status == 200
    assert (await agent.get("/api/queue")).ok()["running"] == []


async def test_agent_that_ends_takes_its_prompts_out_of_an_engine_that_goes_on(agent: Agent) -> None:
    async with Agent(settings_of(comfyui_url=agent.engine.url, shutdown_seconds=0)) as ending:
        await ending.ready()
        ids = [await ending.begin(graphs.stepping(steps=1000)) for _ in range(2)]
        await ending.running(ids[0])
        await eventually(agent.engine.pending)
    await eventually(agent.engine.is_idle)


@pytest.mark.parametrize("seconds", [0, 0.003, 0.006, 0.008, 0.01, 0.015])
async def test_cancel_just_before_the_agent_ends_still_reaches_the_engine(
    agent: Agent, seconds: float
) -> None:
    """The agent ends while it takes the prompt out of the engine, at whatever stage of its start that is."""
    async with Agent(settings_of(comfyui_url=agent.engine.url)) as ending:
        await ending.ready()
        task_id = await ending.begin(graphs.stepping(steps=1000))
        await asyncio.sleep(seconds)  # the stage
        await ending.cancel(task_id)
    await eventually(agent.engine.is_idle)
