from __future__ import annotations

import subprocess
import sys

import pytest

from agent.tasks.memory import MemoryStore
from agent.tasks.record import State, TaskRecord
from agent.tasks.store import Claim


class Clock:
    """Seconds, moved by the test."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(record_ttl_seconds=100, output_ttl_seconds=10, clock=clock)


async def take(store: MemoryStore, task_id: str = "t", fence: int = 0) -> Claim:
    record = TaskRecord(id=task_id, created_at=0)
    claim = await store.take(record, expected_fence=fence, owner="a", lease_seconds=30)
    assert isinstance(claim, Claim)
    return claim


async def owner_of(store: MemoryStore) -> str | None:
    stored = await store.read("t")
    assert stored
    return stored.owner


async def test_lease_ends_by_the_clock(store: MemoryStore, clock: Clock) -> None:
    claim = await take(store)
    clock.now += 29
    assert await owner_of(store) == "a"
    await store.extend(claim)
    clock.now += 29
    assert await owner_of(store) == "a"
    clock.now += 1
    assert await owner_of(store) is None


async def test_each_write_starts_the_tasks_life_again(store: MemoryStore, clock: Clock) -> None:
    claim = await take(store)
    await take(store, "left-alone")
    clock.now += 99
    await store.write(claim, TaskRecord(id="t", created_at=0, state=State.SUCCEEDED))
    clock.now += 99
    assert await store.read("t")
    assert await store.read("left-alone") is None
    clock.now += 1
    assert await store.read("t") is None


async def test_any_access_frees_what_has_expired(store: MemoryStore, clock: Clock) -> None:
    claim = await take(store)
    data = bytes(1000)
    unshared = sys.getrefcount(data)
    await store.put_output(claim, 0, data)
    assert sys.getrefcount(data) > unshared
    clock.now += 10
    await store.read("somebody-else")
    assert sys.getrefcount(data) == unshared


async def test_process_without_redis_does_not_import_it() -> None:
    code = "import sys, agent.tasks.memory, agent.tasks.claims; assert 'redis' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


async def test_outputs_beyond_the_byte_limit_push_the_oldest_out(clock: Clock) -> None:
    store = MemoryStore(record_ttl_seconds=100, output_ttl_seconds=10, clock=clock, max_output_bytes=100)
    claim = await take(store)
    for index in range(3):
        await store.put_output(claim, index, bytes(40))
    assert [await store.get_output("t", 1, index) for index in range(3)] == [None, bytes(40), bytes(40)]
    await store.put_output(claim, 1, bytes(60))  # replaced, not added
    assert [await store.get_output("t", 1, index) for index in range(3)] == [None, bytes(60), bytes(40)]
    clock.now += 10
    await store.put_output(claim, 3, bytes(100))  # the expired ones no longer count
    assert await store.get_output("t", 1, 3) == bytes(100)
