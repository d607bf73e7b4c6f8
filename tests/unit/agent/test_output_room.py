"""Of a crowd of large outputs only so much is in memory at once."""

from __future__ import annotations

import asyncio

import pytest

from agent.outputs import room as module
from agent.outputs.room import PARALLEL_TASKS, ROOM_BYTES, OutputRoom

DEADLINE = 20


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 10 * DEADLINE)


async def collect(room: OutputRoom, task_id: str, size: int) -> None:
    async with room.turn(task_id):
        room.hold(task_id, size)


@pytest.mark.usefixtures("patient")
async def test_a_task_waits_until_those_before_it_are_over() -> None:
    room = OutputRoom()
    await collect(room, "a", ROOM_BYTES - 1)
    await collect(room, "b", 10 * ROOM_BYTES)  # however much it is, there was room
    third = asyncio.create_task(collect(room, "c", 1))
    await asyncio.sleep(0)
    room.release("a")
    await asyncio.sleep(0)
    assert not third.done()
    room.release("b")
    async with asyncio.timeout(DEADLINE):
        await third


@pytest.mark.usefixtures("patient")
async def test_what_a_task_collected_in_an_earlier_attempt_is_gone() -> None:
    room = OutputRoom()
    await collect(room, "a", ROOM_BYTES)
    async with asyncio.timeout(DEADLINE):
        await collect(room, "a", ROOM_BYTES)


@pytest.mark.usefixtures("patient")
async def test_few_collect_at_once() -> None:
    room, at_once = OutputRoom(), 0

    async def one(task_id: str) -> int:
        nonlocal at_once
        async with room.turn(task_id):
            at_once += 1
            most = at_once
            await asyncio.sleep(0)
            at_once -= 1
            return most

    assert max(await asyncio.gather(*map(one, "abcdefgh"))) == PARALLEL_TASKS


async def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    room = OutputRoom()
    await collect(room, "a", ROOM_BYTES)
    async with asyncio.timeout(DEADLINE):
        for task_id in "bcdefgh":
            await collect(room, task_id, ROOM_BYTES)


@pytest.mark.usefixtures("patient")
async def test_a_task_that_is_ended_while_it_waits_leaves_its_place_to_others() -> None:
    room = OutputRoom()
    await collect(room, "a", ROOM_BYTES)
    waiting = [asyncio.create_task(collect(room, task_id, 1)) for task_id in "bcd"]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    room.release("a")
    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*(collect(room, task_id, 1) for task_id in "efgh"))
