"""A platform for each test. At its end no process is left, and no credential has come out of a container."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest_asyncio
from redis.asyncio import Redis

from tests.gateway.caller import Caller, echo, front_function, gpu_function
from tests.gateway.calls import KB
from tests.gateway.cloud import Deployed, Platform
from tests.redis_server import RedisServer

Deploy = Callable[..., Awaitable[tuple[Deployed, Caller]]]


#: Section 7: a longer line is cut by the platform's log service.
LONGEST_LINE = 32 * KB


def check_logs(platform: Platform) -> None:
    for deployed in platform.deployed:
        for line in deployed.log_text.splitlines():
            assert len(line) <= LONGEST_LINE, line[:200]
            assert not line.startswith("FC Invoke"), "that is the platform's own to say"


@pytest_asyncio.fixture
async def platform(tmp_path: Path, redis_server: RedisServer, redis_prefix: str) -> AsyncIterator[Platform]:
    async with Platform(tmp_path) as running:
        yield running
    print(running.report())  # shown when the test has failed
    running.leaks.look_at_files(tmp_path)
    check_logs(running)
    async with Redis.from_url(redis_server.url) as client:
        async for key in client.scan_iter(match=f"{redis_prefix}*"):
            running.leaks.look_at(key.decode(), await client.dump(key))
    assert running.leaks.found == []


@pytest_asyncio.fixture
async def deploy_echo(platform: Platform) -> AsyncIterator[Deploy]:
    """`await deploy_echo(**settings of the function)`: the function and a client of its trigger."""
    async with AsyncExitStack() as stack:

        async def deploy(**changes: Any) -> tuple[Deployed, Caller]:
            deployed = await platform.deploy(echo(**changes))
            return deployed, await stack.enter_async_context(Caller(deployed))

        yield deploy


@pytest_asyncio.fixture
async def deploy_gpu(
    platform: Platform, redis_server: RedisServer, redis_prefix: str
) -> AsyncIterator[Deploy]:
    """`await deploy_gpu(*simulator switches, **settings of the function)`."""
    async with AsyncExitStack() as stack:

        async def deploy(*switches: str, **changes: Any) -> tuple[Deployed, Caller]:
            function = gpu_function(redis_server.url, redis_prefix, *switches, **changes)
            deployed = await platform.deploy(function)
            return deployed, await stack.enter_async_context(Caller(deployed))

        yield deploy


@pytest_asyncio.fixture
async def deploy_front(
    platform: Platform, redis_server: RedisServer, redis_prefix: str
) -> AsyncIterator[Deploy]:
    """`await deploy_front(gpu function, **settings of the function)`."""
    async with AsyncExitStack() as stack:

        async def deploy(gpu: Deployed, **changes: Any) -> tuple[Deployed, Caller]:
            deployed = await platform.deploy(front_function(redis_server.url, redis_prefix, gpu, **changes))
            return deployed, await stack.enter_async_context(Caller(deployed))

        yield deploy
