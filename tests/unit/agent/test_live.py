"""A task of this instance: how its record gets into the store, and who learns of what."""

from __future__ import annotations

import asyncio
import gc
import itertools
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from agent.errors import StoreUnavailable, TaskCancelled, TaskTimeout
from agent.tasks import keeper as keeper_module
from agent.tasks import live as live_module
from agent.tasks.claims import Take
from agent.tasks.keeper import Keeper
from agent.tasks.live import LiveTask
from agent.tasks.memory import MemoryStore
from agent.tasks.progress import Progress
from agent.tasks.record import State, TaskRecord
from agent.tasks.store import Claim, ClaimLost
from comfyui.events import NodeAdvanced, PromptSucceeded
from comfyui.workflow import Workflow

DEADLINE = 5
GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
}


class Store(MemoryStore):
    """A store that keeps what was written, and can be out of reach or slow."""

    def __init__(self) -> None:
        super().__init__(record_ttl_seconds=100, output_ttl_seconds=100)
        self.written: list[tuple[float, TaskRecord]] = []
        self.is_down, self.seconds = False, 0.0
        self.attempts = 0

    async def write(self, claim: Claim, record: TaskRecord) -> None:
        await self._meet()
        await super().write(claim, record)
        self.written.append((asyncio.get_running_loop().time(), record))

    async def put_preview(self, claim: Claim, data: bytes) -> None:
        await self._meet()
        await super().put_preview(claim, data)

    async def put_output(self, claim: Claim, index: int, data: bytes) -> None:
        await self._meet()
        await super().put_output(claim, index, data)

    async def release(self, claim: Claim, record: TaskRecord) -> None:
        await self._meet()
        await super().release(claim, record)

    async def _meet(self) -> None:
        self.attempts += 1
        await asyncio.sleep(self.seconds)
        if self.is_down:
            raise StoreUnavailable("down")

    @property
    def progress(self) -> list[float]:
        return [record.progress for _, record in self.written]


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "WRITE_SECONDS", 0.05)
    monkeypatch.setattr(keeper_module, "PAUSES", (0.01, 0.02))


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
async def live(store: Store) -> AsyncIterator[LiveTask]:
    task = await make(store)
    yield task
    task.finish()


async def make(store: Store, *, is_claimed: bool = True) -> LiveTask:
    take = Take(TaskRecord(id="t", created_at=0), 0, "me", 60)
    right = await take.on(store) if is_claimed else take
    assert isinstance(right, Claim | Take)
    return LiveTask(take.record, store, right, is_background=False, must_keep=False)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.002)


async def finally_stored(store: Store, state: State = State.SUCCEEDED) -> TaskRecord:
    stored = await store.read("t")
    assert stored
    assert stored.record.state is state
    assert stored.owner is None
    return stored.record


async def settle(live: LiveTask, *, patience_seconds: float = 5, state: State = State.SUCCEEDED) -> None:
    async with asyncio.timeout(DEADLINE):
        keeper = Keeper(live._store, max_bytes=100)  # nothing goes on in its background: it was not started
        await live.settle(keeper, patience_seconds=patience_seconds, state=state, progress=1.0)


async def test_quick_changes_are_written_together_and_the_last_one_always(
    live: LiveTask, store: Store
) -> None:
    for number in range(200):
        live.update(progress=number / 200)
        if number % 50 == 0:
            await asyncio.sleep(0)
    await until(lambda: store.progress[-1:] == [199 / 200])
    assert len(store.written) <= 3


async def test_at_most_one_write_per_interval(live: LiveTask, store: Store) -> None:
    for number in range(60):
        live.update(progress=number / 60)
        await asyncio.sleep(0.003)  # changes as they come from a sampler
    await until(lambda: store.progress[-1:] == [59 / 60])
    times = [time for time, _ in store.written]
    assert all(later - earlier >= 0.045 for earlier, later in itertools.pairwise(times))
    assert store.progress == sorted(store.progress)


class TestPreviews:
    async def test_preview_is_stored_before_the_record_that_counts_it(
        self, live: LiveTask, store: Store
    ) -> None:
        live.show_preview(b"picture")
        await until(lambda: bool(store.written))
        assert store.written[-1][1].preview == live.record.preview == 1
        assert await store.get_preview("t") == live.preview == b"picture"

    async def test_quick_ones_and_large_ones_are_left_out(self, live: LiveTask) -> None:
        live.show_preview(bytes(live_module.LARGEST_PREVIEW + 1))
        assert (live.record.preview, live.preview) == (0, None)
        live.show_preview(b"first")
        live.show_preview(b"at once")
        assert (live.record.preview, live.preview) == (1, b"first")

    async def test_store_that_is_away_loses_a_preview_and_nothing_else(
        self, live: LiveTask, store: Store
    ) -> None:
        store.is_down = True
        live.show_preview(b"picture")
        await until(lambda: store.attempts > 2)
        store.is_down = False
        await until(lambda: bool(store.written))
        assert store.written[-1][1].preview == 1

    async def test_a_task_that_is_over_has_none(self, live: LiveTask, store: Store) -> None:
        live.show_preview(b"picture")
        await settle(live)
        assert (await finally_stored(store)).preview == 0


async def test_nothing_is_written_while_nothing_changes(live: LiveTask, store: Store) -> None:
    live.update(state=State.RUNNING)
    await until(lambda: len(store.written) == 1)
    await asyncio.sleep(0.12)  # more than two intervals; there is nothing to wait for
    assert store.attempts == 1


async def test_a_slow_store_holds_up_nobody_and_gets_the_last_change(live: LiveTask, store: Store) -> None:
    store.seconds = 0.05
    for number in range(20):
        live.update(progress=number / 20)
        await asyncio.sleep(0.005)
    assert live.record.progress == 19 / 20
    await until(lambda: store.progress[-1:] == [19 / 20])


async def test_a_change_that_met_a_store_out_of_reach_is_written_when_it_is_back(
    live: LiveTask, store: Store
) -> None:
    # Nothing may change for minutes after the one that was lost: a node that reports nothing runs.
    store.is_down = True
    with capture_logs() as lines:
        live.update(state=State.RUNNING)
        await until(lambda: store.attempts >= 3)
    assert [line["event"] for line in lines] == ["task.progress_not_stored"]
    store.is_down = False
    await until(lambda: bool(store.written))
    assert store.written[-1][1].state is State.RUNNING


async def test_the_record_shows_the_progress_of_the_attempt(live: LiveTask) -> None:
    progress = Progress(Workflow(GRAPH))
    live.show(progress)
    progress.apply(NodeAdvanced("p", "1", 1, 2))
    live.note_progress()
    assert live.record.progress == 0.25
    assert live.record.nodes["1"].max == 2
    again = Progress(Workflow(GRAPH))
    live.show(again)  # another attempt begins from nothing
    assert live.record.progress == 0.0


async def test_a_claim_that_is_lost_ends_the_writing_quietly(live: LiveTask, store: Store) -> None:
    store._tasks["t"].fence += 1  # somebody took the task over
    with capture_logs() as lines:
        live.update(progress=0.5)
        assert live._writer is not None
        async with asyncio.timeout(DEADLINE):
            await live._writer
    assert lines == []
    assert store.written == []


async def test_the_final_record_and_the_outputs_are_stored_together(live: LiveTask, store: Store) -> None:
    live.outputs = [b"one", b"two"]
    live.update(progress=0.5)
    await settle(live)
    record = await finally_stored(store)
    assert record.progress == 1.0
    assert [await store.get_output("t", 1, index) for index in (0, 1)] == [b"one", b"two"]
    assert live.is_done
    assert live.is_kept
    assert (await live.wait()) == record


async def test_a_final_record_is_the_last_write(live: LiveTask, store: Store) -> None:
    store.seconds = 0.02
    for number in range(5):
        live.update(progress=number / 10)
        await asyncio.sleep(0.01)
    await settle(live)
    await asyncio.sleep(0.1)  # a write that is still on its way would come now
    assert store.written[-1][1].state is State.SUCCEEDED


async def test_settling_waits_for_a_store_that_comes_back(live: LiveTask, store: Store) -> None:
    live.outputs = [b"one"]
    store.is_down = True
    settling = asyncio.create_task(settle(live))
    await until(lambda: store.attempts >= 4)
    assert not live.is_done
    store.is_down = False
    await settling
    await finally_stored(store)
    assert live.is_kept


async def test_those_who_wait_get_their_result_although_the_store_stays_away(
    live: LiveTask, store: Store
) -> None:
    store.is_down = True
    with capture_logs() as lines:
        await settle(live, patience_seconds=0.05)
    assert (await live.wait()).state is State.SUCCEEDED
    assert not live.is_kept
    assert [line["event"] for line in lines] == ["task.not_stored_yet"]


async def test_a_task_without_a_claim_is_stored_with_its_end_when_the_store_is_back(store: Store) -> None:
    live = await make(store, is_claimed=False)
    live.outputs = [b"one"]
    live.update(progress=0.5)
    await settle(live)
    assert [record.state for _, record in store.written] == [State.SUCCEEDED]
    await finally_stored(store)
    assert live.is_kept


async def test_a_task_without_a_claim_keeps_nobody_waiting_for_the_store(store: Store) -> None:
    live = await make(store, is_claimed=False)
    live.outputs = [b"one"]
    store.is_down = True
    await settle(live, patience_seconds=600)
    assert (await live.wait()).state is State.SUCCEEDED
    assert not live.is_kept


async def test_a_task_without_a_claim_gets_one_late_and_writes_its_progress_from_then_on(
    store: Store,
) -> None:
    live = await make(store, is_claimed=False)
    live.update(progress=0.5)
    assert live.claim is None
    await live.claim_late()
    assert live.claim == Claim("t", 1, "me", 60)
    await until(lambda: store.progress == [0.5])
    await live.claim_late()
    assert live.claim.fence == 1
    live.finish()


async def test_a_late_claim_finds_the_one_whose_answer_was_lost(store: Store) -> None:
    live = await make(store, is_claimed=False)
    lost = await Take(live.record, 0, "me", 60).on(store)
    await live.claim_late()
    assert live.claim == lost
    live.finish()


async def test_a_task_that_somebody_else_took_meanwhile_gets_no_late_claim(store: Store) -> None:
    live = await make(store, is_claimed=False)
    other = await Take(TaskRecord(id="t", created_at=1), 0, "other", 60).on(store)
    assert isinstance(other, Claim)
    await live.claim_late()
    assert live.claim is None
    with capture_logs() as lines:
        await settle(live)  # no ClaimLost: its caller has his result all the same
    assert live.is_done
    assert [line["event"] for line in lines] == ["task.not_stored"]
    stored = await store.read("t")
    assert stored
    assert (stored.owner, stored.record.created_at) == ("other", 1)


async def test_a_task_that_is_ending_gets_no_late_claim(store: Store) -> None:
    live = await make(store, is_claimed=False)
    live.finish()
    await live.claim_late()
    assert live.claim is None
    assert await store.read("t") is None


async def test_a_claim_that_was_lost_is_told_when_settling(live: LiveTask, store: Store) -> None:
    store._tasks["t"].fence += 1
    with pytest.raises(ClaimLost):
        await settle(live)
    assert not live.is_done


async def test_an_output_that_cannot_be_stored_keeps_the_record_from_being_final(
    live: LiveTask, store: Store
) -> None:
    async def broken(claim: Claim, index: int, data: bytes) -> None:
        raise StoreUnavailable("full")

    store.put_output = broken  # type: ignore[method-assign]
    live.outputs = [b"one"]
    await settle(live, patience_seconds=0.03)
    stored = await store.read("t")
    assert stored
    assert not stored.record.state.is_final


class TestStop:
    """The first reason counts, and only while there is work."""

    async def start(self, live: LiveTask, work: Callable[[], Awaitable[Any]]) -> None:
        async def begin() -> None:
            live.begin()
            await work()

        live.work = asyncio.create_task(begin())
        await asyncio.sleep(0)

    async def test_the_work_is_cancelled_and_the_first_reason_kept(self, live: LiveTask) -> None:
        await self.start(live, lambda: asyncio.sleep(60))
        live.stop(TaskCancelled())
        live.stop(TaskTimeout())
        assert live.work
        await asyncio.gather(live.work, return_exceptions=True)
        assert live.work.cancelled()
        assert isinstance(live.verdict, TaskCancelled)

    async def test_nothing_happens_while_the_result_is_being_stored(
        self, live: LiveTask, store: Store
    ) -> None:
        store.seconds = 0.03
        await self.start(live, lambda: settle(live))
        await until(lambda: store.attempts == 1)
        live.stop(TaskCancelled())
        assert live.work
        await live.work
        assert live.verdict is None
        await finally_stored(store)

    async def test_nothing_happens_while_the_task_is_put_back(self, live: LiveTask, store: Store) -> None:
        store.seconds = 0.03
        await self.start(live, live.put_back)
        live.stop(TaskCancelled())
        assert live.work
        await live.work
        assert live.verdict is None

    async def test_nothing_happens_when_it_is_over_or_has_not_begun(self, live: LiveTask) -> None:
        live.stop(TaskCancelled())
        assert live.verdict is None
        await settle(live)
        live.stop(TaskCancelled())
        assert live.verdict is None


async def test_a_task_that_is_put_back_can_be_taken_at_once(live: LiveTask, store: Store) -> None:
    live.update(state=State.QUEUED, progress=0.25)
    await live.put_back()
    stored = await store.read("t")
    assert stored
    assert (stored.owner, stored.record.progress) == (None, 0.25)
    assert isinstance(
        await store.take(stored.record, expected_fence=1, owner="other", lease_seconds=9), Claim
    )
    assert live.is_done


async def test_putting_back_wakes_those_who_wait_although_the_store_is_away(
    live: LiveTask, store: Store
) -> None:
    store.is_down = True
    with capture_logs() as lines:
        await live.put_back()
    assert "task.not_put_back" in [line["event"] for line in lines]
    async with asyncio.timeout(DEADLINE):
        await live.wait()


async def test_followers_may_miss_changes_but_never_the_final_one(live: LiveTask) -> None:
    seen: list[TaskRecord] = []

    async def follow() -> None:
        async for record in live.follow():
            seen.append(record)
            await asyncio.sleep(0.01)  # a slow reader

    following = asyncio.create_task(follow())
    for number in range(100):
        live.update(progress=number / 100)
        await asyncio.sleep(0.0005)
    await settle(live)
    async with asyncio.timeout(DEADLINE):
        await following
    assert len(seen) < 60
    assert [record.progress for record in seen] == sorted(record.progress for record in seen)
    assert seen[-1].state is State.SUCCEEDED
    assert [record.state.is_final for record in seen].count(True) == 1


async def test_who_follows_after_the_end_gets_the_final_record_alone(live: LiveTask) -> None:
    await settle(live, state=State.FAILED)
    assert [record.state async for record in live.follow()] == [State.FAILED]


async def test_all_followers_are_told(live: LiveTask) -> None:
    async def last() -> TaskRecord:
        return [record async for record in live.follow()][-1]

    following = [asyncio.create_task(last()) for _ in range(5)]
    await asyncio.sleep(0)
    await settle(live)
    async with asyncio.timeout(DEADLINE):
        assert {record.state for record in await asyncio.gather(*following)} == {State.SUCCEEDED}


async def test_the_final_record_shows_no_current_node_and_the_whole_map(live: LiveTask) -> None:
    progress = Progress(Workflow(GRAPH))
    live.show(progress)
    progress.apply(NodeAdvanced("p", "1", 1, 2))
    live.update(queue_position=3)
    progress.apply(PromptSucceeded("p"))
    await settle(live)
    record = live.record
    assert (record.current_node, record.queue_position) == (None, None)
    assert record.nodes["9"].value == 1


async def test_timings_of_one_stage_add_up(live: LiveTask) -> None:
    live.add_timing("run", 1.5)
    live.add_timing("run", 0.25)
    live.add_timing("inputs", 0.1)
    assert live.record.timings == {"run": 1.75, "inputs": 0.1}


async def test_a_settled_task_and_its_outputs_are_gone_at_once(store: Store) -> None:
    """Nothing may wait for the garbage collector: it counts objects, not the megabytes that hang on them."""
    live: LiveTask | None = await make(store)
    assert live is not None
    live.update(progress=0.5)
    await until(lambda: bool(store.written))
    gone = weakref.ref(live)
    gc.disable()
    try:
        await settle(live)
        live = None
        await asyncio.sleep(0)  # what was cancelled is told so
        assert gone() is None
    finally:
        gc.enable()
