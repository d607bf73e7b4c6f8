"""Agents whose outputs go to a real S3 server, all on one simulator."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.integration.agent.service import EngineView, MakeAgent, agents, simulated


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EngineView]:
    async with simulated(tmp_path_factory.mktemp("simulator")) as agent:
        yield agent.engine


@pytest_asyncio.fixture(loop_scope="session")
async def make_agent(engine: EngineView) -> AsyncIterator[MakeAgent]:
    """Start agents with settings of their own on the shared engine."""
    async with agents(comfyui_url=engine.url) as make:
        yield make
