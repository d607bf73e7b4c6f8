"""What is to be read of tasks that others run, or nobody any more."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agent.errors import OutputNotFound, TaskNotFound
from agent.tasks.board import TaskBoard, close_attempt
from agent.tasks.memory import MemoryStore
from agent.tasks.record import Attempt, CurrentNode, Outcome, Output, State, TaskRecord
from agent.tasks.store import Claim, Stored

FAR_AHEAD, LONG_AGO = 1e11, 1.0


def attempts(count: int, outcome: Outcome | None = None) -> list[Attempt]:
    """So many attempts, of which the last one ended like this."""
    lost = [
        Attempt(number=i, instance="i", started_at=1, ended_at=2, outcome=Outcome.LOST)
        for i in range(1, count)
    ]
    return [*lost, Attempt(number=count, instance="i", started_at=1, outcome=outcome)]


def stored(state: State = State.RUNNING, owner: str | None = None, tries: int = 1, **fields: Any) -> Stored:
    node = CurrentNode(id="3", title="Sampler", class_type="KSampler", value=1, max=2)
    given = {"attempts": attempts(tries), "current_node": node, "progress": 0.5} | fields
    return Stored(
        TaskRecord(id="t", state=state, created_at=0, **given),
        fence=tries,
        owner=owner,
        cancel_requested=False,
    )


def board() -> TaskBoard:
    store = MemoryStore(record_ttl_seconds=100, output_ttl_seconds=100)
    return TaskBoard(store)


@pytest.mark.parametrize(
    "seen",
    [
        stored(State.RUNNING, "somebody"),
        stored(State.QUEUED, "somebody"),
        stored(State.RUNNING, "somebody", tries=3),
        *(stored(state) for state in (State.SUCCEEDED, State.FAILED, State.CANCELLED)),
        stored(State.SUCCEEDED, "somebody"),
    ],
)
def test_a_task_with_an_owner_or_an_end_is_as_it_is_stored(seen: Stored) -> None:
    assert board().as_seen(seen) is seen.record


@pytest.mark.parametrize("state", [State.QUEUED, State.RUNNING])
@pytest.mark.parametrize(
    ("deliver_until", "tries", "expected"),
    [
        (FAR_AHEAD, 1, State.QUEUED),
        (FAR_AHEAD, 2, State.QUEUED),
        (FAR_AHEAD, 19, State.QUEUED),  # the owner's last attempt has no time in its record
        (LONG_AGO, 1, State.FAILED),
        (None, 1, State.FAILED),
        (None, 3, State.FAILED),
    ],
)
def test_a_task_without_an_owner_waits_for_its_next_delivery_or_has_failed(
    state: State, deliver_until: float | None, tries: int, expected: State
) -> None:
    record = board().as_seen(stored(state, tries=tries, deliver_until=deliver_until))
    assert record.state is expected
    assert record.attempts[-1].outcome is Outcome.LOST
    assert record.attempts[-1].ended_at is not None
    assert record.current_node is None
    assert len(record.attempts) == tries
    error = record.error
    assert (error["code"] if error else None) == ("InstanceLost" if expected is State.FAILED else None)


def test_a_task_that_was_never_delivered_says_so() -> None:
    waiting = stored(State.QUEUED, attempts=[], deliver_until=FAR_AHEAD)
    assert board().as_seen(waiting).state is State.QUEUED
    late = board().as_seen(stored(State.QUEUED, attempts=[], deliver_until=LONG_AGO))
    assert late.state is State.FAILED
    assert late.error is not None
    assert (late.error["code"], late.error["transient"]) == ("NotDelivered", True)


def test_looking_at_a_task_changes_nothing_in_the_store() -> None:
    seen = stored()
    before = seen.record.model_copy(deep=True)
    board().as_seen(seen)
    assert seen.record == before


def test_an_attempt_is_closed_once() -> None:
    closed = close_attempt(attempts(2), Outcome.FAILED, {"code": "X"})
    assert (closed[-1].outcome, closed[-1].error) == (Outcome.FAILED, {"code": "X"})
    assert close_attempt(closed, Outcome.LOST) == closed
    assert close_attempt([], Outcome.LOST) == []


async def test_an_unknown_task_is_not_found() -> None:
    one = board()
    with pytest.raises(TaskNotFound):
        await one.get("t")
    with pytest.raises(TaskNotFound):
        await one.output("t", 0)
    with pytest.raises(TaskNotFound):
        await one.outputs("t")
    with pytest.raises(TaskNotFound):
        async with asyncio.timeout(5):
            [record async for record in one.follow("t")]


async def test_outputs_are_those_of_the_attempt_that_stored_them() -> None:
    one = board()
    outputs = [
        Output(
            index=i,
            node_id="9",
            filename=f"{i}.png",
            subfolder="",
            type="output",
            media_type="image/png",
            bytes=1,
            url="",
        )
        for i in range(3)
    ]
    record = TaskRecord(id="t", created_at=0, attempts=attempts(1))
    claim = await one.store.take(record, expected_fence=0, owner="me", lease_seconds=9)
    assert isinstance(claim, Claim)
    for index, data in enumerate((b"a", b"b")):
        await one.store.put_output(claim, index, data)
    await one.store.write(claim, record.changed(state=State.SUCCEEDED, outputs=outputs[:2]))
    assert await one.outputs("t") == [b"a", b"b"]
    assert await one.output("t", 1) == (outputs[1], b"b")
    with pytest.raises(OutputNotFound):
        await one.output("t", 2)
    assert (await one.get("t")).state is State.SUCCEEDED
    async with asyncio.timeout(5):
        assert [r.state async for r in one.follow("t")] == [State.SUCCEEDED]


async def test_an_output_that_has_expired_is_not_found() -> None:
    one = board()
    output = Output(
        index=0, node_id="9", filename="a", subfolder="", type="output", media_type="x", bytes=1, url=""
    )
    record = TaskRecord(id="t", created_at=0, state=State.SUCCEEDED, outputs=[output])
    claim = await one.store.take(record, expected_fence=0, owner="me", lease_seconds=9)
    assert isinstance(claim, Claim)
    with pytest.raises(OutputNotFound):
        await one.output("t", 0)


async def test_following_a_task_ends_when_nobody_will_run_it() -> None:
    one = board()
    record = TaskRecord(id="t", created_at=0, state=State.RUNNING, attempts=attempts(1))
    claim = await one.store.take(record, expected_fence=0, owner="me", lease_seconds=9)
    assert isinstance(claim, Claim)
    await one.store.release(claim, record)
    async with asyncio.timeout(5):
        assert [r.state async for r in one.follow("t")] == [State.FAILED]
