from __future__ import annotations

import inspect
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.blocks import Block, blocks_of
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from tests.object_store import Bucket, S3Server

#: Folders whose tests share one event loop each session, and with it agents, engines or a browser.
ONE_LOOP = tuple(
    Path(__file__).parent / folder
    for folder in (
        "e2e/browser",
        "integration/agent",
        "integration/hardening",
        "integration/labels",
        "integration/lifecycle",
        "integration/objects",
        "integration/reliability",
        "integration/safety",
    )
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        is_async = inspect.iscoroutinefunction(getattr(item, "function", None))
        if is_async and any(item.path.is_relative_to(folder) for folder in ONE_LOOP):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One for all tests: leave it running and use `redis_prefix`."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """One for all tests: leave it running and use buckets of your own."""
    from tests.object_store import S3Server  # noqa: PLC0415 - takes a second, and few tests need it

    server = S3Server()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def bucket(s3_server: S3Server) -> Bucket:
    """A bucket of the test's own."""
    return s3_server.bucket()


@pytest.fixture
def redis_prefix() -> str:
    return f"test-{uuid.uuid4().hex}:"


@pytest.fixture
def private_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """For tests that stop, pause and restart it, on the same port and with the same data."""
    server = RedisServer(tmp_path, durable=True)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def blocks(request: pytest.FixtureRequest) -> Iterator[list[Block]]:
    """Those that the test has promised with `@executes`, in the page's order. It must take each of them."""
    page, languages = request.node.get_closest_marker("executes").args
    found = [block for block in blocks_of(page) if block.language in languages]
    yield found
    assert [str(block) for block in found if not block.is_taken] == []
