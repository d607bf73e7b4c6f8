"""An engine that others run: followed, never started or stopped."""

from __future__ import annotations

import asyncio

import pytest

from comfyui.engine import EngineState
from comfyui.errors import EngineFailedError
from comfyui.process import ChildProcess
from tests.integration.engine.conftest import PATIENCE_SECONDS


@pytest.fixture
async def foreign(launch_of, processes):
    """Start engines on `port` that the agent knows nothing of."""
    started = []

    async def start():
        started.append(await ChildProcess.start(launch_of()))
        return started[-1]

    yield start
    for child in started:
        await asyncio.wait_for(child.stop(1), PATIENCE_SECONDS)


async def test_attached_engine_comes_and_goes(make_engine, foreign):
    engine = make_engine(None)
    assert engine.reason.startswith("nobody has answered at http://127.0.0.1:") or not engine.reason
    child = await foreign()
    assert await engine.wait_ready(PATIENCE_SECONDS) == 1
    assert engine.pid is None
    gone = asyncio.create_task(engine.wait_gone(1))
    await child.stop(1)
    assert "is gone" in await asyncio.wait_for(gone, PATIENCE_SECONDS)
    assert engine.state is EngineState.RESTARTING
    await foreign()
    assert await engine.wait_ready(PATIENCE_SECONDS) == 2
    assert engine.restarts == 1


async def test_missing_attached_engine_fails_and_heals(make_engine, foreign, until):
    engine = make_engine(None, start_seconds=0.2)
    with pytest.raises(EngineFailedError, match=r"gave no answer at http://127.0.0.1:\d+ within 0.2 s"):
        await engine.wait_ready(PATIENCE_SECONDS)
    await foreign()
    await until(lambda: engine.state is EngineState.READY)


async def test_attached_engine_is_left_alone(make_engine, foreign, processes):
    child = await foreign()
    engine = make_engine(None)
    await engine.wait_ready(PATIENCE_SECONDS)
    assert not engine.restart("CUDA context is broken")
    await engine.stop()
    assert processes.is_alive(child.pid)


async def test_restart_that_no_probe_saw_is_noted(make_engine, foreign):
    await foreign()
    engine = make_engine(None)
    await engine.wait_ready(PATIENCE_SECONDS)
    gone = asyncio.create_task(engine.wait_gone(1))
    await asyncio.sleep(0)
    engine.note_restart("the feed was cut and the history is empty")
    assert await asyncio.wait_for(gone, PATIENCE_SECONDS) == "the feed was cut and the history is empty"
    assert await engine.wait_ready(PATIENCE_SECONDS) == 2
