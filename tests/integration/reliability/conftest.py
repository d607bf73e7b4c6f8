"""Fleets of agents. Those that a test kills or freezes are its own; the pair is shared and must be left idle."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.integration.reliability.fleet import AgentProcess, ready
from tests.redis_server import RedisServer

MakeAgent = Callable[..., Awaitable[AgentProcess]]


@pytest_asyncio.fixture(loop_scope="session")
async def make_agent(
    tmp_path: Path, redis_server: RedisServer, redis_prefix: str
) -> AsyncIterator[MakeAgent]:
    """Start agents of one fleet: `await make_agent(*simulator switches, **environment)`. REDIS_URL="" is none."""
    async with contextlib.AsyncExitStack() as stack:
        numbers = count()

        async def make(*switches: str, wait: bool = True, **environment: Any) -> AgentProcess:
            shared = {"REDIS_URL": redis_server.url, "AGENT_REDIS_PREFIX": redis_prefix}
            values = {name: str(value) for name, value in {**shared, **environment}.items() if value != ""}
            agent = AgentProcess(tmp_path / f"agent{next(numbers)}", *switches, **values)
            await stack.enter_async_context(agent)
            if wait:
                await ready(agent)
            return agent

        yield make


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_pair(
    tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer
) -> AsyncIterator[tuple[AgentProcess, AgentProcess]]:
    environment = {
        "REDIS_URL": redis_server.url,
        "AGENT_REDIS_PREFIX": f"pair-{uuid.uuid4().hex}:",
        "AGENT_QUEUE_SIZE": "200",
        # Both stay alive, and a busy machine that holds one of them up for seconds must not make it look dead.
        "AGENT_LEASE_SECONDS": "10",
    }
    folder = tmp_path_factory.mktemp("pair")
    async with AgentProcess(folder / "a", **environment) as a, AgentProcess(folder / "b", **environment) as b:
        await ready(a, b)
        yield a, b


@pytest_asyncio.fixture(loop_scope="session")
async def pair(
    shared_pair: tuple[AgentProcess, AgentProcess],
) -> AsyncIterator[tuple[AgentProcess, AgentProcess]]:
    """Two agents on one Redis, for tests that leave both alive. Afterwards nothing of the test is left in them."""
    yield shared_pair
    for agent in shared_pair:
        await agent.engine.fault()
        await agent.freed()
