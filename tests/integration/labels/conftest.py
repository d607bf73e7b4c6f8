"""Agents that label, all on one simulator."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.certificates import SigningFiles, make_signer
from tests.exif_tool import ExifTool, exif_tool
from tests.integration.agent.service import EngineView, MakeAgent, agents, simulated


@pytest.fixture(scope="session")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExifTool]:
    with exif_tool(tmp_path_factory.mktemp("exiftool")) as found:
        yield found


@pytest.fixture(scope="session")
def signer(tmp_path_factory: pytest.TempPathFactory) -> SigningFiles:
    return make_signer(tmp_path_factory.mktemp("signer"))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EngineView]:
    async with simulated(tmp_path_factory.mktemp("simulator")) as agent:
        yield agent.engine


@pytest_asyncio.fixture(loop_scope="session")
async def make_agent(engine: EngineView) -> AsyncIterator[MakeAgent]:
    """Start agents with settings of their own on the shared engine."""
    async with agents(comfyui_url=engine.url) as make:
        yield make
