"""Whom the sweep takes for dead, and when: on a store in memory that can be away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from agent import orphans
from agent.build import build_notifier, build_orphans
from agent.errors import StoreUnavailable
from agent.orphans import Orphans
from agent.settings import Settings
from agent.tasks.board import TaskBoard
from agent.tasks.memory import MemoryStore
from agent.tasks.record import State, TaskRecord
from agent.tasks.store import Stored

LEASE_SECONDS = 0.2
WAIT_SECONDS = 20


class Store(MemoryStore):
    """Notes when it was asked for what."""

    def __init__(self) -> None:
        super().__init__(record_ttl_seconds=60, output_ttl_seconds=60)
        self.is_away = False
        self.silent_seconds = 0.0
        self.asked: list[tuple[str, float]] = []

    async def ping(self) -> None:
        self.note("ping")

    async def overdue(self, *, limit: int, put_off_seconds: float) -> list[Stored]:
        self.note("overdue")
        await asyncio.sleep(self.silent_seconds)
        return await super().overdue(limit=limit, put_off_seconds=put_off_seconds)

    def note(self, what: str) -> None:
        if self.is_away:
            self.asked.append(("failed", time.monotonic()))
            raise StoreUnavailable
        self.asked.append((what, time.monotonic()))

    def times(self, what: str) -> list[float]:
        return [moment for asked, moment in self.asked if asked == what]


class Sweep:
    """Orphans on such a store, without anything around them."""

    def __init__(self, **settings: Any) -> None:
        self.settings = Settings(lease_seconds=LEASE_SECONDS, **settings)
        self.board = TaskBoard(Store())
        self.notifier = build_notifier(self.settings, self.board)
        self.ours: set[str] = set()
        self.orphans: Orphans = build_orphans(
            self.settings, self.board, self.notifier, self.ours.__contains__
        )

    @property
    def store(self) -> Store:
        assert isinstance(self.board.store, Store)
        return self.board.store

    async def leave(self, task_id: str) -> None:
        """A task whose owner died a while ago."""
        record = TaskRecord(id=task_id, created_at=time.time(), state=State.RUNNING)
        await self.store.take(record, expected_fence=0, owner="dead", lease_seconds=0.001)

    async def state(self, task_id: str) -> State:
        stored = await self.store.read(task_id)
        assert stored is not None
        return stored.record.state

    async def until_ended(self, task_id: str) -> TaskRecord:
        async def is_ended() -> bool:
            return (await self.state(task_id)).is_final

        await until(is_ended)
        stored = await self.store.read(task_id)
        assert stored is not None
        return stored.record


async def until(condition: Callable[[], Coroutine[Any, Any, bool]]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not await condition():
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is busy shall not count as a store that is silent, with leases as short as these."""
    monkeypatch.setattr(orphans, "LONGEST_ANSWER", 100)


@pytest.fixture
async def sweep() -> AsyncIterator[Sweep]:
    one = Sweep()
    one.orphans.start()
    yield one
    await one.orphans.stop()
    await one.notifier.close()
    await one.store.close()


async def test_ends_what_the_dead_left_and_only_that(sweep: Sweep) -> None:
    await sweep.leave("orphan")
    sweep.ours.add("ours")
    await sweep.leave("ours")
    alive = TaskRecord(id="alive", created_at=time.time(), state=State.RUNNING)
    await sweep.store.take(alive, expected_fence=0, owner="well", lease_seconds=60)
    awaited = alive.changed(id="awaited", deliver_until=time.time() + 60)
    await sweep.store.take(awaited, expected_fence=0, owner="dead", lease_seconds=0.001)
    record = await sweep.until_ended("orphan")
    assert (record.state, record.error and record.error["code"]) == (State.FAILED, "NotDelivered")
    assert record.finished_at is not None
    looks = len(sweep.store.times("overdue"))

    async def looked_again() -> bool:
        return len(sweep.store.times("overdue")) > looks + 1

    await until(looked_again)
    for task_id in ("ours", "alive", "awaited"):
        assert await sweep.state(task_id) is State.RUNNING


async def test_store_that_was_away_must_be_back_for_a_lease_before_anybody_is_taken_for_dead(
    sweep: Sweep,
) -> None:
    await sweep.leave("first")
    await sweep.until_ended("first")
    sweep.store.is_away = True

    async def has_failed() -> bool:
        return bool(sweep.store.times("failed"))

    await until(has_failed)
    await sweep.leave("second")
    sweep.store.is_away = False
    await sweep.until_ended("second")
    back = next(t for t in sweep.store.times("ping") if t > sweep.store.times("failed")[-1])
    looked = next(t for t in sweep.store.times("overdue") if t > sweep.store.times("failed")[-1])
    assert looked - back >= LEASE_SECONDS


async def test_store_that_was_silent_before_it_answered_was_away(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sweep.leave("first")
    await sweep.until_ended("first")
    monkeypatch.setattr(orphans, "LONGEST_ANSWER", 1)
    sweep.store.silent_seconds = 2 * LEASE_SECONDS
    await sweep.leave("second")
    looks = len(sweep.store.times("overdue"))

    async def looked_again() -> bool:
        return len(sweep.store.times("overdue")) > looks + 1

    await until(looked_again)
    assert await sweep.state("second") is State.RUNNING, "its owner may have been cut off too"
    monkeypatch.setattr(orphans, "LONGEST_ANSWER", 100)
    sweep.store.silent_seconds = 0
    await sweep.until_ended("second")


@pytest.mark.parametrize(("invocation", "asks"), [("standalone", "ping"), ("gateway", "overdue")])
async def test_after_a_stop_of_this_process_others_get_a_lease_unless_a_platform_froze_it_alone(
    invocation: str, asks: str
) -> None:
    sweep = Sweep(invocation=invocation)
    sweep.orphans.start()
    try:
        await sweep.leave("first")
        await sweep.until_ended("first")
        sweep.orphans.thaw(60)
        before = len(sweep.store.asked)

        async def has_asked() -> bool:
            return len(sweep.store.asked) > before

        await until(has_asked)
        assert sweep.store.asked[before][0] == asks
    finally:
        await sweep.orphans.stop()
        await sweep.notifier.close()
        await sweep.store.close()


async def test_reader_who_comes_upon_one_has_it_looked_for_at_once() -> None:
    sweep = Sweep(invocation="gateway")
    sweep.orphans.start()
    try:
        await sweep.leave("first")
        await sweep.until_ended("first")
        sweep.orphans._timer.cancel()  # type: ignore[union-attr]  # as if a platform froze it
        await sweep.leave("second")

        async def is_ended() -> bool:
            await sweep.board.get("second")
            await sweep.orphans.rest()
            return (await sweep.state("second")).is_final

        await until(is_ended)
    finally:
        await sweep.orphans.stop()
        await sweep.notifier.close()
        await sweep.store.close()
