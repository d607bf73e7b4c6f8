"""Ends of tasks that the store did not take in time are stored when it is back, within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from structlog.testing import capture_logs

from agent.errors import StoreUnavailable
from agent.tasks import keeper as keeper_module
from agent.tasks.claims import Take
from agent.tasks.keeper import Keeper, Result
from agent.tasks.memory import MemoryStore
from agent.tasks.record import State, TaskRecord
from agent.tasks.store import Claim, ClaimLost

DEADLINE = 20


class Store(MemoryStore):
    """A store that can be out of reach, or refuse large outputs as a full Redis does."""

    def __init__(self) -> None:
        super().__init__(record_ttl_seconds=100, output_ttl_seconds=100)
        self.is_down, self.largest = False, 100
        self.refused = 0

    async def put_output(self, claim: Claim, index: int, data: bytes) -> None:
        self._check(len(data) <= self.largest)
        await super().put_output(claim, index, data)

    async def write(self, claim: Claim, record: TaskRecord) -> None:
        self._check(True)
        await super().write(claim, record)

    async def state_of(self, task_id: str) -> State | None:
        stored = await self.read(task_id)
        return stored.record.state if stored else None

    def _check(self, is_fine: bool) -> None:
        if self.is_down or not is_fine:
            self.refused += 1
            raise StoreUnavailable("it is down")


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "PAUSES", (0.01,))
    monkeypatch.setattr(keeper_module, "BACKGROUND_PAUSE", 0.01)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
async def keeper(store: Store) -> AsyncIterator[Keeper]:
    one = Keeper(store, max_bytes=100)
    one.start()
    yield one
    await one.stop()


def take_of(task_id: str = "t") -> Take:
    return Take(TaskRecord(id=task_id, created_at=0), 0, "me", 60)


async def result_of(store: Store, task_id: str = "t", *outputs: bytes) -> Result:
    take = take_of(task_id)
    claim = await take.on(store)
    assert isinstance(claim, Claim)
    return Result(take.record.changed(state=State.SUCCEEDED), outputs, claim)


async def put(keeper: Keeper, result: Result, *, patience_seconds: float = 0) -> bool:
    async with asyncio.timeout(DEADLINE):
        return await keeper.store(result, patience_seconds=patience_seconds, hurry=asyncio.Event())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.002)


async def succeeded(store: Store, *task_ids: str) -> None:
    async with asyncio.timeout(DEADLINE):
        while [await store.state_of(task_id) for task_id in task_ids] != [State.SUCCEEDED] * len(task_ids):
            await asyncio.sleep(0.002)


async def test_what_can_be_stored_is_stored_at_once(keeper: Keeper, store: Store) -> None:
    assert await put(keeper, await result_of(store, "t", b"one", b"two"))
    assert await store.state_of("t") is State.SUCCEEDED
    assert [await store.get_output("t", 1, index) for index in (0, 1)] == [b"one", b"two"]


async def test_record_says_how_long_the_outputs_took_and_stays_the_same_when_it_is_written_again(
    keeper: Keeper, store: Store
) -> None:
    result = await result_of(store, "t", b"data")
    assert await put(keeper, result)
    first = result.record
    assert first.timings.keys() == {"deliver"}
    assert await put(keeper, result)  # as after an answer that was lost
    assert result.record == first
    stored = await store.read("t")
    assert stored is not None
    assert stored.record == first


async def test_task_without_outputs_delivers_nothing(keeper: Keeper, store: Store) -> None:
    result = await result_of(store, "t")
    assert await put(keeper, result)
    assert result.record.timings == {}


async def test_results_that_could_not_wait_are_stored_when_the_store_is_back(
    keeper: Keeper, store: Store
) -> None:
    results = [await result_of(store, f"t{number}", b"data") for number in range(5)]
    store.is_down = True
    with capture_logs() as lines:
        assert [await put(keeper, result) for result in results] == [False] * 5
        before = store.refused
        await until(lambda: store.refused >= before + 10)  # it goes on trying
        store.is_down = False
        await succeeded(store, *(f"t{number}" for number in range(5)))
        await until(lambda: len(lines) == 10)
    assert [await store.get_output(f"t{number}", 1, 0) for number in range(5)] == [b"data"] * 5
    assert {line["event"] for line in lines} == {"task.not_stored_yet", "task.stored_late"}


async def test_store_that_comes_back_in_time_leaves_nothing_for_later(keeper: Keeper, store: Store) -> None:
    result = await result_of(store)
    store.is_down = True
    storing = asyncio.create_task(put(keeper, result, patience_seconds=DEADLINE))
    await until(lambda: store.refused >= 3)
    store.is_down = False
    assert await storing


async def test_hurry_ends_the_waiting_and_not_the_trying(keeper: Keeper, store: Store) -> None:
    result = await result_of(store)
    store.is_down = True
    hurry = asyncio.Event()
    storing = asyncio.create_task(keeper.store(result, patience_seconds=600, hurry=hurry))
    await until(lambda: store.refused >= 1)
    hurry.set()
    async with asyncio.timeout(DEADLINE):
        assert not await storing
    store.is_down = False
    await succeeded(store, "t")


async def test_take_that_was_not_answered_is_made_up_for(keeper: Keeper, store: Store) -> None:
    take = take_of()
    store.is_down = True
    assert not await put(keeper, Result(take.record.changed(state=State.SUCCEEDED), (b"data",), take))
    store.is_down = False
    await succeeded(store, "t")
    assert await store.get_output("t", 1, 0) == b"data"


async def test_task_that_has_a_new_owner_is_left_to_him(keeper: Keeper, store: Store) -> None:
    result = await result_of(store)
    store._tasks["t"].fence += 1  # somebody took the task over
    with pytest.raises(ClaimLost):
        await put(keeper, result)
    store.is_down = True
    with capture_logs() as lines:
        assert not await put(keeper, result)
        store.is_down = False
        await until(lambda: len(lines) == 2)
    assert [line["event"] for line in lines] == ["task.not_stored_yet", "task.not_stored"]
    assert await store.state_of("t") is State.QUEUED


async def test_result_that_the_store_refuses_does_not_hold_up_the_others(
    keeper: Keeper, store: Store
) -> None:
    store.largest = 5
    large, small = await result_of(store, "large", b"too large"), await result_of(store, "small", b"fits")
    store.is_down = True
    for result in (large, small):
        assert not await put(keeper, result)
    store.is_down = False
    await succeeded(store, "small")
    assert await store.state_of("large") is State.QUEUED
    store.largest = 100
    await succeeded(store, "large")


async def test_beyond_its_bytes_the_oldest_results_go(keeper: Keeper, store: Store) -> None:
    results = [await result_of(store, f"t{number}", b"x" * 40) for number in range(4)]
    huge = await result_of(store, "huge", b"x" * 101)
    store.is_down = True
    with capture_logs() as lines:
        for result in (*results, huge):
            await put(keeper, result)
    assert [line["task_id"] for line in lines if line["event"] == "task.not_stored"] == ["t0", "t1", "huge"]
    store.is_down = False
    await succeeded(store, "t2", "t3")
    assert [await store.state_of(task_id) for task_id in ("t0", "t1", "huge")] == [State.QUEUED] * 3


async def test_beyond_their_number_the_oldest_results_go(
    keeper: Keeper, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "MAX_RESULTS", 2)
    results = [await result_of(store, f"t{number}") for number in range(3)]
    store.is_down = True
    for result in results:
        await put(keeper, result)
    store.is_down = False
    await succeeded(store, "t1", "t2")
    assert await store.state_of("t0") is State.QUEUED


async def test_what_is_left_at_the_end_is_said(store: Store) -> None:
    keeper = Keeper(store, max_bytes=100)
    keeper.start()
    result = await result_of(store)
    store.is_down = True
    with capture_logs() as lines:
        await put(keeper, result)
        await keeper.stop()
        await keeper.stop()
    assert [line["event"] for line in lines] == ["task.not_stored_yet", "task.not_stored"]
