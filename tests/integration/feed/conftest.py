from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from comfyui.client import Client
from comfyui.feed import Feed
from tests.integration.feed.engine import Engine
from tests.integration.feed.proxy import Proxy
from tests.integration.feed.run import CONNECT_SECONDS, Running

SWITCHES = ("--preview-method", "latent2rgb", "--preview-size", "32", "--step-seconds", "0.01")


@pytest.fixture(scope="session")
def shared_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = Engine(tmp_path_factory.mktemp("engine"), *SWITCHES)
    yield engine
    engine.stop()


@pytest.fixture(scope="session")
def shared_old_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = Engine(tmp_path_factory.mktemp("old-engine"), *SWITCHES, "--protocol", "0.3.40")
    yield engine
    engine.stop()


@pytest.fixture
def engine(shared_engine: Engine) -> Iterator[Engine]:
    """A simulator without faults; tests may set some."""
    yield shared_engine
    shared_engine.set_faults()


@pytest.fixture
def old_engine(shared_old_engine: Engine) -> Engine:
    """One that speaks the protocol from before progress_state."""
    return shared_old_engine


@pytest.fixture
async def proxy(engine: Engine) -> AsyncIterator[Proxy]:
    async with Proxy(engine.port) as one:
        yield one


@pytest.fixture
async def client(engine: Engine) -> AsyncIterator[Client]:
    one = Client(engine.url)
    yield one
    await one.close()


@pytest.fixture
async def feed(proxy: Proxy) -> AsyncIterator[Feed]:
    """Connected through the proxy."""
    one = Feed(proxy.url)
    await one.start()
    one.resume()
    assert await one.wait_connected(CONNECT_SECONDS)
    yield one
    await one.stop()


@pytest.fixture
def running(client: Client, feed: Feed) -> Running:
    return Running(client, feed)
