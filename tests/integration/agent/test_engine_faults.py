"""The engine dies, lies or stalls under a task: the right result or a named error, in bounded time."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable

import pytest

from tests.integration.agent import graphs
from tests.integration.agent.conversation import conversation
from tests.integration.agent.pictures import color_of
from tests.integration.agent.service import PATIENCE_SECONDS, Agent, MakeAgent, check_error, eventually

Faulty = Callable[..., Awaitable[None]]


async def kill_engine(agent: Agent) -> None:
    pid = agent.engine_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


async def test_task_whose_engine_is_killed_is_run_again_on_the_next_one(make_agent: MakeAgent) -> None:
    agent = await make_agent(engine=[])
    caller = asyncio.create_task(agent.run(graphs.stepping(steps=30, color=graphs.RED), "survivor"))
    await agent.running_later("survivor")
    await kill_engine(agent)
    assert color_of(*(await caller).results("3")) == (255, 0, 0)
    record = await agent.task("survivor")
    first, second = record["attempts"]
    assert (first["outcome"], first["error"]["code"]) == ("failed", "EngineDied")
    assert (second["number"], second["outcome"]) == (2, "succeeded")
    assert record["error"] is None


async def test_tasks_that_wait_survive_the_death_of_the_engine_too(make_agent: MakeAgent) -> None:
    agent = await make_agent(engine=[])
    ids = [await agent.begin(graphs.stepping(steps=10)) for _ in range(5)]
    await agent.running(ids[0])
    await kill_engine(agent)
    for task_id in ids:
        await agent.succeeded(task_id)


async def test_task_fails_with_the_reason_when_no_attempt_is_left(make_agent: MakeAgent) -> None:
    agent = await make_agent(engine=[], max_attempts=1)
    task_id = await agent.begin(graphs.stepping())
    await agent.running(task_id)
    await kill_engine(agent)
    record = await agent.finished(task_id)
    assert (record["state"], record["error"]["code"]) == ("failed", "EngineDied")
    (await agent.status(task_id)).error(500, "EngineDied")
    await agent.ready()
    assert (await agent.run(graphs.painted())).status == 200


async def test_workflow_that_kills_the_engine_each_time_is_given_up(make_agent: MakeAgent) -> None:
    agent = await make_agent(engine=["--fault", "die@node=1"], max_attempts=2)
    async with asyncio.timeout(PATIENCE_SECONDS):
        (await agent.run(graphs.painted(), "poison")).error(500, "EngineDied")
    assert len((await agent.task("poison"))["attempts"]) == 2


async def test_socket_follows_over_the_death_of_the_engine(make_agent: MakeAgent) -> None:
    agent = await make_agent(engine=[])
    async with conversation(agent, graphs.stepping(steps=30, color=graphs.BLUE)) as talk:
        await agent.running_later(talk.task_id)
        await kill_engine(agent)
        assert color_of(*await talk.results("3")) == (0, 0, 255)


async def test_short_memory_is_tried_again_once(agent: Agent, faulty: Faulty) -> None:
    await faulty("oom@node=1,times=1")
    color = graphs.fresh_color()  # not one that the test before may have left in the cache
    answer = await agent.run(graphs.painted(color), "oom-once")
    assert color_of(*answer.results("2")) == graphs.rgb(color)
    attempts = (await agent.task("oom-once"))["attempts"]
    assert [a["outcome"] for a in attempts] == ["failed", "succeeded"]
    assert attempts[0]["error"]["code"] == "OutOfMemory"


async def test_memory_that_stays_short_is_named(agent: Agent, faulty: Faulty) -> None:
    await faulty("oom@node=1")
    error = (await agent.run(graphs.painted())).error(500, "OutOfMemory")
    assert error["node_id"] == "1"


async def test_node_that_raises_is_not_tried_again(agent: Agent) -> None:
    async with agent.engine.asked(1):
        error = (await agent.run(graphs.raising("no luck"), "raises")).error(500, "NodeFailed")
    wanted = {"node_id": "2", "node_class": "LabRaise", "node_title": "Troublemaker"}
    wanted |= {"exception_type": "RuntimeError", "exception_message": "no luck"}
    assert {key: error[key] for key in wanted} == wanted
    assert len((await agent.task("raises"))["attempts"]) == 1


#: Faults that must not show in the result at all.
HIDDEN = {
    "end message lost": ["lose-event=executing"],
    "success message lost": ["lose-event=execution_success"],
    "both lost": ["lose-event=execution_success", "lose-event=executing"],
    "start lost": ["lose-event=execution_start"],
    "outputs lost": ["lose-event=executed", "drop-socket@event=progress_state,times=1"],
    "socket cut at the start": ["drop-socket@event=execution_start,times=1"],
    "socket cut in the middle": ["drop-socket@event=progress,times=1"],
    "socket cut at each start": ["drop-socket@event=execution_start"],
    "socket cut at the output": ["drop-socket@event=executed,times=1"],
    "socket cut at success": ["drop-socket@event=execution_success,times=1"],
    "history late": ["late-history=0.3"],
    "history late and socket cut": ["late-history=0.3", "drop-socket@event=execution_success,times=1"],
    "slow file": ["slow-view=0.3"],
    "no room on stderr": ["stderr-flood"],
    "file missing once": ["missing-output,times=1"],
    "file broken once": ["corrupt-output,times=1"],
    "file empty once": ["empty-output,times=1"],
}


@pytest.mark.parametrize("specs", HIDDEN.values(), ids=HIDDEN)
async def test_fault_of_the_engine_does_not_reach_the_caller(
    make_agent: MakeAgent, agent: Agent, faulty: Faulty, specs: list[str]
) -> None:
    hasty = await make_agent(engine_silence_seconds=0.5)
    await faulty(*specs)
    color = graphs.fresh_color()
    graph = graphs.chain(
        graphs.empty(color), graphs.node("LabSteps", image=..., steps=5, seconds=0.01), graphs.save()
    )
    started = time.monotonic()
    answer = await hasty.run(graph)
    assert color_of(*answer.results("3")) == graphs.rgb(color)
    assert time.monotonic() - started < PATIENCE_SECONDS
    assert all(entry["value"] == entry["max"] for entry in answer.json.values())
    assert (await hasty.task(answer.headers["task-id"]))["progress"] == 1


NAMED = {
    "file missing": ("missing-output", "OutputMissing"),
    "file broken": ("corrupt-output", "OutputCorrupt"),
    "file empty": ("empty-output", "OutputCorrupt"),
}


@pytest.mark.parametrize(("spec", "code"), NAMED.values(), ids=NAMED)
async def test_output_that_is_always_bad_is_an_error_that_names_it(
    agent: Agent, faulty: Faulty, spec: str, code: str
) -> None:
    await faulty(spec)
    error = (await agent.run(graphs.painted(prefix="bad"))).error(500, code)
    assert error["node_id"] == "2"
    assert error["filename"].startswith("bad_")


async def test_engine_that_answers_500_to_everything_is_an_error(agent: Agent, faulty: Faulty) -> None:
    await faulty("reject-all")
    async with asyncio.timeout(PATIENCE_SECONDS):
        answer = await agent.run(graphs.painted())
    assert answer.status >= 500
    check_error(answer.json, answer.json["message"])
    await faulty()
    assert (await agent.run(graphs.painted())).status == 200


async def test_engine_that_hangs_in_a_node_is_ended_by_the_limit_and_replaced(make_agent: MakeAgent) -> None:
    agent = await make_agent(engine=["--fault", "hang@node=stuck"], task_timeout_seconds=1)
    graph = {"stuck": graphs.empty(), "2": graphs.save(images=["stuck", 0])}
    async with asyncio.timeout(PATIENCE_SECONDS):
        error = (await agent.run(graph)).error(504, "TaskTimeout")
    assert error["limit"] == 1


async def test_broken_gpu_is_started_anew(make_agent: MakeAgent, tmp_path: object) -> None:
    """Every prompt after a CUDA error fails in the same process; only a new one helps."""
    agent = await make_agent(
        engine=["--fault", "cuda-error@node=1,times=1", "--fault-state", f"{tmp_path}/faults.json"]
    )
    before = agent.engine_pid
    answer = await agent.run(graphs.painted(graphs.GREEN), "cuda")
    assert color_of(*answer.results("2")) == (0, 255, 0)
    assert agent.engine_pid != before
    assert [a["outcome"] for a in (await agent.task("cuda"))["attempts"]] == ["failed", "succeeded"]


async def test_queue_cleared_by_somebody_else_is_no_hang(make_agent: MakeAgent, agent: Agent) -> None:
    hasty = await make_agent(engine_silence_seconds=0.3, max_attempts=1, concurrency=2)
    first = await hasty.begin(graphs.stepping(steps=100))
    await hasty.running(first)
    second = await hasty.begin(graphs.painted())
    await eventually(agent.engine.pending)
    async with agent.engine.http.post("/queue", json={"clear": True}) as response:
        assert response.status == 200
    record = await hasty.finished(second)
    assert record["error"]["code"] == "EngineLostPrompt"
    await hasty.cancel(first)


async def test_interrupt_by_somebody_else_is_named(make_agent: MakeAgent, agent: Agent) -> None:
    task_id = await agent.begin(graphs.stepping())
    await agent.running(task_id)
    async with agent.engine.http.post("/interrupt", json={}) as response:
        assert response.status == 200
    assert (await agent.finished(task_id))["error"]["code"] == "PromptInterrupted"
