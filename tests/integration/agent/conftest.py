"""Agents to test. Where COMFYUI_ROOT names a checkout, tests marked `real` have a real ComfyUI behind theirs."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from comfyui.launch import checkout_command
from tests.integration.agent.service import Agent, MakeAgent, agents, engine_of, settings_of, simulated
from tests.integration.inputs.conftest import MediaServer
from tests.ports import free_port

REAL_ROOT = os.environ.get("COMFYUI_ROOT", "")
REAL_START_SECONDS = 120


def pytest_report_header() -> str:
    return f"ComfyUI behind tests marked real: {REAL_ROOT or 'simulator (COMFYUI_ROOT is not set)'}"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def simulated_agent(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Agent]:
    async with simulated(tmp_path_factory.mktemp("simulator"), fetch_allow=["127.0.0.1"]) as agent:
        yield agent


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def real_agent(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Agent]:
    """Needs ~10 s to start. Flags in COMFYUI_ARGS win over ours."""
    python = os.environ.get("COMFYUI_PYTHON") or checkout_command(REAL_ROOT, None, "", 0)[0]
    base = real_base(tmp_path_factory.mktemp("comfyui"), Path(REAL_ROOT), python)
    ours = ["--cpu", "--disable-api-nodes", "--base-directory", str(base)]
    settings = settings_of(
        fetch_allow=["127.0.0.1"],
        comfyui_root=REAL_ROOT,
        comfyui_python=python,
        comfyui_args=f"{shlex.join(ours)} {os.environ.get('COMFYUI_ARGS', '')}",
        comfyui_port=free_port(),
    )
    async with Agent(settings) as agent:
        await agent.ready(REAL_START_SECONDS)
        yield agent


def real_base(base: Path, root: Path, python: str) -> Path:
    """A base directory of its own for ComfyUI, with the nodes and the checkpoint that the tests use."""
    for folder in ("custom_nodes", "input", "models/checkpoints"):
        (base / folder).mkdir(parents=True)
    ours = Path(__file__).parent / "real"
    for node in (ours / "lab_nodes.py", root / "custom_nodes" / "websocket_image_save.py"):
        shutil.copy(node, base / "custom_nodes")
    model = base / "models" / "checkpoints" / "tiny.safetensors"
    subprocess.run([python, ours / "make_tiny_model.py", model], check=True, capture_output=True, timeout=60)
    return base


@pytest.fixture
def agent(request: pytest.FixtureRequest) -> Agent:
    """The shared one, with an idle engine that behaves."""
    is_real = REAL_ROOT and request.node.get_closest_marker("real")
    shared: Agent = request.getfixturevalue("real_agent" if is_real else "simulated_agent")
    return shared


@pytest_asyncio.fixture(loop_scope="session")
async def make_agent(agent: Agent, tmp_path: Path) -> AsyncIterator[MakeAgent]:
    """Start agents with settings of their own. They use the shared engine, or with `engine=[switches]` a simulator
    of their own."""
    async with agents() as start:
        count = 0

        async def make(*, engine: list[str] | None = None, wait: bool = True, **settings: Any) -> Agent:
            nonlocal count
            count += 1
            where: dict[str, Any] = {"comfyui_url": agent.engine.url}
            if engine is not None:
                where = engine_of(tmp_path / f"engine{count}", *engine)
            elif "comfyui_command" in settings:
                where = {"comfyui_port": free_port()}
            return await start(wait=wait, **{**where, **settings})

        yield make


@pytest_asyncio.fixture(loop_scope="session")
async def faulty(agent: Agent) -> AsyncIterator[Callable[..., Awaitable[None]]]:
    """Make the shared simulator misbehave until the end of the test."""
    yield agent.engine.fault
    await agent.engine.fault()


@pytest_asyncio.fixture(loop_scope="session")
async def media() -> AsyncIterator[MediaServer]:
    """A loopback HTTP server: fill its `answers` and `handlers`."""
    async with MediaServer().listening() as server:
        yield server
