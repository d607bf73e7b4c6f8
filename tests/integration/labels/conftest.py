"""Agents that label, all on one simulator."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.certificates import SigningFiles, make_signer
from tests.exif_tool import ExifTool, exif_tool
from tests.integration.agent.service import Agent, EngineView, engine_of, settings_of

MakeAgent = Callable[..., Awaitable[Agent]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One event loop for this folder, so that its tests can share the engine."""
    for item in items:
        if Path(__file__).parent in item.path.parents and inspect.iscoroutinefunction(
            getattr(item, "function", None)
        ):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest.fixture(scope="session")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExifTool]:
    with exif_tool(tmp_path_factory.mktemp("exiftool")) as found:
        yield found


@pytest.fixture(scope="session")
def signer(tmp_path_factory: pytest.TempPathFactory) -> SigningFiles:
    return make_signer(tmp_path_factory.mktemp("signer"))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EngineView]:
    base = tmp_path_factory.mktemp("simulator")
    async with Agent(settings_of(**engine_of(base, "--model", "tiny.safetensors"))) as agent:
        await agent.ready()
        yield agent.engine


@pytest_asyncio.fixture(loop_scope="session")
async def make_agent(engine: EngineView) -> AsyncIterator[MakeAgent]:
    """Start agents with settings of their own on the shared engine."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(**settings: Any) -> Agent:
            made = await stack.enter_async_context(
                Agent(settings_of(**{"comfyui_url": engine.url, **settings}))
            )
            await made.ready()
            return made

        yield make
