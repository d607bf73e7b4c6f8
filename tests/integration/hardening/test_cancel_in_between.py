"""A cancel that comes in the moment in which a task changes hands is not lost, and loses nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agent.errors import TaskCancelled
from agent.tasks.record import TaskRecord
from agent.tasks.store import Claim, Stored
from tests.integration.agent import graphs
from tests.integration.agent.pictures import color_of
from tests.integration.agent.service import PATIENCE_SECONDS, MakeAgent, eventually
from tests.integration.hardening.conftest import Ghost, board_of

Settings = dict[str, object]


async def test_task_that_an_instance_takes_while_it_is_cancelled_ends_there(
    make_agent: MakeAgent, ghost: Ghost, fleet: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The taker has looked at it before, and the request is forgotten with the take, as one about an earlier run."""
    patient = {**fleet, "lease_seconds": 10}  # neither of them dies, however busy the machine is
    asked, taker = await make_agent(**patient), await make_agent(**patient)
    graph = graphs.stepping(steps=1000)
    await ghost.take("between", graph, lease_seconds=0.1, deliver_until=1e11)
    await eventually(lambda: ghost.is_gone("between"))
    has_looked, is_requested, is_taken = asyncio.Event(), asyncio.Event(), asyncio.Event()
    request_cancel, take = board_of(asked).store.request_cancel, board_of(taker).store.take

    async def take_after_the_request(record: TaskRecord, *, expected_fence: int, **right: Any) -> Any:
        if expected_fence:
            has_looked.set()
            await is_requested.wait()
        taken = await take(record, expected_fence=expected_fence, **right)
        if expected_fence:
            is_taken.set()
        return taken

    async def request_before_the_take(task_id: str) -> Stored | None:
        stored = await request_cancel(task_id)
        is_requested.set()
        await is_taken.wait()
        return stored

    monkeypatch.setattr(board_of(taker).store, "take", take_after_the_request)
    monkeypatch.setattr(board_of(asked).store, "request_cancel", request_before_the_take)
    run = asyncio.create_task(taker.run(graph, "between"))
    async with asyncio.timeout(PATIENCE_SECONDS):
        await has_looked.wait()
        assert (await asked.cancel("between")).ok()["state"] == "cancelled"
        (await run).error(410, "TaskCancelled")
    await eventually(taker.engine.is_idle)
    assert board_of(taker).live == {}


async def test_cancel_that_comes_before_the_work_has_begun_ends_the_task(
    make_agent: MakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An asyncio task that is cancelled before its first step runs nothing, not even what would end ours."""
    agent = await make_agent()
    board = board_of(agent)
    take = board.store.take

    async def take_and_hear_a_cancel(record: TaskRecord, **right: Any) -> Claim | Stored:
        claim = await take(record, **right)
        stop = (
            asyncio.get_running_loop().call_soon
        )  # after the step that begins the work, before the work's own
        stop(lambda: board.live[record.id].stop(TaskCancelled()))
        return claim

    with monkeypatch.context() as patch:
        patch.setattr(board.store, "take", take_and_hear_a_cancel)
        async with asyncio.timeout(PATIENCE_SECONDS):
            (await agent.run(graphs.painted(), "early")).error(410, "TaskCancelled")
    assert board.live == {}
    assert (await agent.task("early"))["state"] == "cancelled"
    assert color_of(*(await agent.run(graphs.painted(graphs.RED), "next")).results("2")) == (255, 0, 0)
