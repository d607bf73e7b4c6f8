from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.integration.simulator.process import Simulator, client
from tests.integration.simulator.talk import Talk, talk

Start = Callable[..., Awaitable[Simulator]]
Connect = Callable[[Simulator], Awaitable[Talk]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts simulators with the given switches; all are killed at the end of the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def start_one(*switches: str, wait: bool = True, port: int | None = None) -> Simulator:
            one = Simulator(tmp_path / "base", switches, port)
            await one.launch()
            stack.push_async_callback(one.stop)
            return await one.ready() if wait else one

        yield start_one


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Opens a client with its WebSocket."""
    async with contextlib.AsyncExitStack() as stack:

        async def connect_one(one: Simulator) -> Talk:
            return await talk(await stack.enter_async_context(client(one)))

        yield connect_one
