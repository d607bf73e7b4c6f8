from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from agent.tasks.directory import DirectoryStore
from agent.tasks.directory_files import Files, ServerClock
from agent.tasks.memory import MemoryStore
from agent.tasks.redis import RedisStore
from agent.tasks.store import TaskStore
from tests.redis_server import RedisServer

MakeStores = Callable[..., tuple[TaskStore, TaskStore]]


@pytest.fixture
async def opened() -> AsyncIterator[Callable[[TaskStore], TaskStore]]:
    """Closes what it was given when the test ends."""
    async with AsyncExitStack() as stack:

        def remember(store: TaskStore) -> TaskStore:
            stack.push_async_callback(store.close)
            return store

        yield remember


@pytest.fixture(params=["memory", "redis", "directory"])
def make_stores(
    request: pytest.FixtureRequest,
    opened: Callable[[TaskStore], TaskStore],
    redis_prefix: str,
    tmp_path: Path,
) -> MakeStores:
    """The store as two instances see it: two objects on one Redis or in one folder, one object where a process is
    all there is."""

    def make(**options: float) -> tuple[TaskStore, TaskStore]:
        options = {"record_ttl_seconds": 60, "output_ttl_seconds": 60, **options}
        if request.param == "memory":
            store = opened(MemoryStore(**options))
            return store, store
        if request.param == "directory":
            # One clock for both: what has expired for one instance may live some milliseconds longer for another.
            clock = ServerClock(Files(tmp_path).temporary)
            options["poll_seconds"] = options.pop("reread_seconds", 0.1)
            return (
                opened(DirectoryStore(tmp_path, clock=clock, **options)),
                opened(DirectoryStore(tmp_path, clock=clock, **options)),
            )
        server: RedisServer = request.getfixturevalue("redis_server")
        return (
            opened(RedisStore(server.url, prefix=redis_prefix, **options)),
            opened(RedisStore(server.url, prefix=redis_prefix, **options)),
        )

    return make


@pytest.fixture
def stores(make_stores: MakeStores) -> tuple[TaskStore, TaskStore]:
    return make_stores()


@pytest.fixture
def store(stores: tuple[TaskStore, TaskStore]) -> TaskStore:
    return stores[0]


@pytest.fixture
def other(stores: tuple[TaskStore, TaskStore]) -> TaskStore:
    """The store as another instance sees it."""
    return stores[1]
