"""A supervised engine: readiness, deaths, hangs, crash loops."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from comfyui.engine import Engine, EngineState
from comfyui.errors import EngineFailedError
from comfyui.launch import Launch
from tests.integration.engine.conftest import PATIENCE_SECONDS, QUICK


def soon(awaitable, seconds=PATIENCE_SECONDS):
    return asyncio.wait_for(awaitable, seconds)


async def test_engine_becomes_ready(make_engine, launch_of):
    begun = datetime.now(UTC)
    engine = make_engine(launch_of("--ready-after", "0.3"))
    assert engine.state is EngineState.STARTING
    assert await engine.wait_ready(PATIENCE_SECONDS) == 1
    assert (engine.state, engine.reason, engine.restarts) == (EngineState.READY, "", 0)
    assert begun < engine.ready_at <= datetime.now(UTC)
    assert engine.pid


async def test_readiness_is_noticed_within_50_ms(make_engine, launch_of, tmp_path):
    # Once in a while: the test machine is shared, and one late process switch costs more than the promise.
    bound_at, lags = tmp_path / "bound", []
    launch = launch_of("--ready-after", "0.2", "--bound-at", str(bound_at))
    engine = make_engine(launch, restarts=replace(QUICK, death_limit=1000))
    while not lags or (lags[-1] >= 0.05 and len(lags) < 30):
        await engine.wait_ready(PATIENCE_SECONDS)
        lags.append(time.monotonic() - float(bound_at.read_text()))
        engine.restart("once more")
    assert min(lags) < 0.05, lags


async def test_all_waiters_get_the_generation(make_engine, launch_of):
    engine = make_engine(launch_of())
    assert await asyncio.gather(*(engine.wait_ready(PATIENCE_SECONDS) for _ in range(20))) == [1] * 20


async def test_waiting_in_vain_says_what_for(make_engine, launch_of):
    engine = make_engine(launch_of("--ready-after", "60"))
    with pytest.raises(
        EngineFailedError, match=r"not ready after 0\.2 s: the engine has been loading for 0 s"
    ):
        await engine.wait_ready(0.2)


async def test_engine_that_dies_at_once_is_reported_long_before_the_patience_ends(port):
    # With the limits of production, and not after wait_ready's time.
    engine = Engine(f"http://127.0.0.1:{port}", Launch(("false",), None, dict(os.environ)), never)
    begun = time.monotonic()
    engine.start()
    with pytest.raises(
        EngineFailedError, match="failed to start 3 times in a row: the engine exited with code 1"
    ):
        await engine.wait_ready(60)
    assert time.monotonic() - begun < PATIENCE_SECONDS
    await soon(engine.stop())


async def never():
    raise ConnectionRefusedError


async def test_death_while_ready_starts_a_new_generation(make_engine, launch_of, processes, until):
    engine = make_engine(launch_of())
    await engine.wait_ready(PATIENCE_SECONDS)
    threads = threading.active_count()
    for generation in (1, 2, 3):
        pid = engine.pid
        gone = asyncio.create_task(engine.wait_gone(generation))
        await asyncio.sleep(0)
        processes.kill(pid)
        assert "was killed by SIGKILL" in await soon(gone), "no probe noticed it first"
        assert await engine.wait_ready(PATIENCE_SECONDS) == generation + 1
        assert list(processes.children()) == [engine.pid]
        await until(lambda: threading.active_count() <= threads)  # asyncio's own for the dead child ends late
    assert engine.restarts == 3


async def test_generation_that_is_gone_is_reported_at_once(make_engine, launch_of, processes):
    engine = make_engine(launch_of())
    await engine.wait_ready(PATIENCE_SECONDS)
    assert await soon(engine.wait_gone(7)) == "generation 7 never ran"
    processes.kill(engine.pid)
    await soon(engine.wait_gone(1))
    await engine.wait_ready(PATIENCE_SECONDS)
    assert "SIGKILL" in await soon(engine.wait_gone(1))


async def test_hung_engine_is_replaced(make_engine, launch_of, processes):
    engine = make_engine(launch_of(), unresponsive_seconds=1.2, probe_timeout_seconds=0.4)
    await engine.wait_ready(PATIENCE_SECONDS)
    pid = engine.pid
    processes.kill(pid, signal.SIGSTOP)
    assert "has not answered for" in await soon(engine.wait_gone(1))
    assert await engine.wait_ready(PATIENCE_SECONDS) == 2
    assert engine.pid != pid
    assert not processes.is_alive(pid)


async def test_engine_that_is_frozen_for_a_moment_is_kept(make_engine, launch_of, processes):
    engine = make_engine(launch_of(), unresponsive_seconds=5, probe_timeout_seconds=0.1)
    await engine.wait_ready(PATIENCE_SECONDS)
    processes.kill(engine.pid, signal.SIGSTOP)
    with pytest.raises(TimeoutError):
        await soon(engine.wait_gone(1), 0.5)
    processes.kill(engine.pid, signal.SIGCONT)
    assert (engine.state, engine.generation) == (EngineState.READY, 1)


async def test_engine_that_never_answers_is_given_up(make_engine, launch_of):
    engine = make_engine(launch_of("--mute"), start_seconds=1, probe_timeout_seconds=0.3)
    with pytest.raises(
        EngineFailedError, match=r"gave no answer at http://127.0.0.1:\d+ within 1 s"
    ) as raised:
        await engine.wait_ready(PATIENCE_SECONDS)
    assert "loading nodes" in str(raised.value)


async def test_crash_loop_fails_with_its_reason_and_heals(make_engine, launch_of, tmp_path):
    models = tmp_path / "models"
    engine = make_engine(launch_of("--needs", str(models)))
    with pytest.raises(EngineFailedError, match="the engine exited with code 3") as raised:
        await engine.wait_ready(PATIENCE_SECONDS)
    assert f"no models in {models}" in str(raised.value)
    assert engine.state is EngineState.FAILED
    models.touch()
    changes = []
    engine.on_change(lambda engine: changes.append(engine.state))
    async with asyncio.timeout(PATIENCE_SECONDS):
        while engine.state is not EngineState.READY:
            await asyncio.sleep(0.01)  # wait_ready() would go on raising while it is FAILED
    assert await engine.wait_ready(PATIENCE_SECONDS) == 1
    assert EngineState.RESTARTING not in changes


async def test_many_deaths_of_a_ready_engine_are_a_failure(make_engine, launch_of, processes):
    engine = make_engine(launch_of())
    for generation in range(1, 6):
        await engine.wait_ready(PATIENCE_SECONDS)
        processes.kill(engine.pid)
        await soon(engine.wait_gone(generation))
    with pytest.raises(EngineFailedError, match="died 5 times within"):
        await engine.wait_ready(PATIENCE_SECONDS)


async def test_taken_port_is_reported_and_nothing_launched(make_engine, launch_of, port, processes):
    with socket.create_server(("127.0.0.1", port)):
        engine = make_engine(launch_of())
        with pytest.raises(EngineFailedError) as raised:
            await engine.wait_ready(PATIENCE_SECONDS)
        assert str(raised.value).endswith(
            f"port {port} is already in use: set COMFYUI_PORT, or COMFYUI_URL to attach to it"
        )
        assert engine.generation == 0
        assert not processes.children()


async def test_missing_program_is_a_failure(make_engine, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    engine = make_engine(Launch(("/nowhere/comfy",), None, {}))
    with pytest.raises(EngineFailedError, match=r"cannot be started.*'/nowhere/comfy'"):
        await engine.wait_ready(PATIENCE_SECONDS)


async def test_restart_replaces_the_process_once(make_engine, launch_of, processes):
    engine = make_engine(launch_of())
    await engine.wait_ready(PATIENCE_SECONDS)
    pid = engine.pid
    gone = asyncio.create_task(engine.wait_gone(1))
    await asyncio.sleep(0)
    # Two prompts saw the same broken CUDA context.
    assert engine.restart("CUDA context is broken")
    assert engine.restart("CUDA context is broken")
    assert await soon(gone) == "CUDA context is broken"
    assert await engine.wait_ready(PATIENCE_SECONDS) == 2
    assert not processes.is_alive(pid)
    # A third one, slow to say so, must not hit the successor.
    engine.restart("CUDA context is broken", generation=1)
    assert (engine.state, engine.generation, engine.restarts) == (EngineState.READY, 2, 1)


async def test_stop_ends_the_engine_and_everybody_waiting(make_engine, launch_of, processes):
    engine = make_engine(launch_of())
    await engine.wait_ready(PATIENCE_SECONDS)
    pid = engine.pid
    gone = asyncio.create_task(engine.wait_gone(1))
    await asyncio.sleep(0)
    await soon(asyncio.gather(engine.stop(), engine.stop()))
    assert await soon(gone) == "it was stopped"
    assert not processes.is_alive(pid)
    assert (engine.state, engine.pid) == (EngineState.STOPPED, None)
    with pytest.raises(EngineFailedError, match="the engine is stopped: it was stopped"):
        await engine.wait_ready(PATIENCE_SECONDS)


async def test_stop_while_loading_leaves_nothing(make_engine, launch_of, processes, until):
    engine = make_engine(launch_of("--ready-after", "60"))
    waiter = asyncio.create_task(engine.wait_ready(30))
    pid = await until(lambda: engine.pid)
    await soon(engine.stop())
    assert not processes.is_alive(pid)
    with pytest.raises(EngineFailedError, match="stopped"):
        await soon(waiter)


async def test_stop_during_back_off_is_immediate(make_engine, until):
    launch = Launch(("false",), None, dict(os.environ))
    engine = make_engine(launch, restarts=replace(QUICK, longest_backoff_seconds=600))
    await until(lambda: engine.state is EngineState.FAILED)
    await soon(engine.stop())


async def test_stopped_engine_can_be_started_again(make_engine, launch_of):
    engine = make_engine(launch_of())
    await engine.wait_ready(PATIENCE_SECONDS)
    await soon(engine.stop())
    engine.start()
    assert await engine.wait_ready(PATIENCE_SECONDS) == 2


async def test_listeners_hear_of_every_change_until_they_leave(make_engine, launch_of, processes):
    engine = make_engine(launch_of())
    heard = []

    def fail(_):
        raise ValueError("a listener's own fault")

    engine.on_change(fail)
    leave = engine.on_change(lambda engine: heard.append((engine.state, engine.generation)))
    await engine.wait_ready(PATIENCE_SECONDS)
    processes.kill(engine.pid)
    await soon(engine.wait_gone(1))
    await engine.wait_ready(PATIENCE_SECONDS)
    leave()
    await soon(engine.stop())
    assert heard == [(EngineState.READY, 1), (EngineState.RESTARTING, 1), (EngineState.READY, 2)]


async def test_engine_that_was_not_started_says_so(port):
    engine = Engine(f"http://127.0.0.1:{port}", None, never)
    with pytest.raises(EngineFailedError, match="it was not started"):
        await engine.wait_ready(PATIENCE_SECONDS)
    await engine.stop()
