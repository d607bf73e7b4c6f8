"""Tasks listed by the state in which they are seen, whatever state is stored, on each of the stores."""

from __future__ import annotations

import pytest

from agent.tasks.board import TaskBoard
from agent.tasks.record import Attempt, State, TaskRecord
from agent.tasks.store import TaskStore, is_cursor
from tests.integration.tasks.steps import claim_of, eventually, make_task

TASKS = 130


def attempt() -> Attempt:
    return Attempt(number=1, instance="a", started_at=1)


async def fill(store: TaskStore) -> dict[State, list[str]]:
    """Store tasks of all sorts; their ids by the state in which they must be seen, newest first."""
    expected: dict[State, list[str]] = {state: [] for state in State}
    last = ""
    for number in range(TASKS):
        fields = {"created_at": 1000 + number, "attempts": [attempt()]}
        record = make_task(f"task-{number}", **fields)
        match number % 5:
            case 0:  # its instance died
                dead = record.changed(state=State.RUNNING)
                await claim_of(store, dead, lease_seconds=0.05)
                seen, last = State.FAILED, dead.id
            case 1:  # the same, behind a platform that delivers again
                await claim_of(store, record.changed(deliver_until=1e11), lease_seconds=0.05)
                seen, last = State.QUEUED, record.id
            case 2:
                await claim_of(store, record.changed(state=State.RUNNING))
                seen = State.RUNNING
            case 3:
                seen = State.FAILED
                await store.write(await claim_of(store, record), record.changed(state=seen))
            case _:
                seen = State.SUCCEEDED
                await store.write(await claim_of(store, record), record.changed(state=seen))
        expected[seen].insert(0, record.id)

    async def are_dead() -> bool:
        stored = await store.read(last)
        return stored is not None and stored.owner is None

    await eventually(are_dead)
    return expected


async def walk(board: TaskBoard, state: State | None, limit: int) -> list[TaskRecord]:
    """All pages."""
    found, before = await board.page(state=state, limit=limit, before=None)
    for _ in range(2 * TASKS):
        if before is None:
            return found
        assert is_cursor(before), "the API would refuse it"
        page, before = await board.page(state=state, limit=limit, before=before)
        assert len(page) <= limit
        found += page
    raise AssertionError("the pages do not end")


async def test_state_is_that_in_which_a_task_is_seen(store: TaskStore) -> None:
    expected = await fill(store)
    board = TaskBoard(store)
    for state in State:
        for limit in (1, 7, 200):
            found = await walk(board, state, limit)
            assert [record.id for record in found] == expected[state], (state, limit)
            assert {record.state for record in found} <= {state}
    assert [record.id for record in await walk(board, None, 9)] == [
        f"task-{number}" for number in reversed(range(TASKS))
    ]


@pytest.mark.parametrize("limit", [1, 26, 200])
async def test_page_that_is_full_is_no_reason_for_another(store: TaskStore, limit: int) -> None:
    """With everything on one page, or the last one exactly full, no empty one follows."""
    expected = await fill(store)
    board = TaskBoard(store)
    pages, before = 0, None
    while pages == 0 or before is not None:
        page, before = await board.page(state=State.SUCCEEDED, limit=limit, before=before)
        assert page
        pages += 1
    assert pages == -(-len(expected[State.SUCCEEDED]) // limit)
