"""What becomes of the engine when the agent dies or is frozen: seen on a helper program that supervises one."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys

import pytest

from tests.integration.engine.conftest import PATIENCE_SECONDS

HELPER = """
import asyncio, os, sys
from comfyui.engine import Engine
from comfyui.launch import EngineLimits, Launch

async def main(port, ending, *argv):
    async def probe():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(b"GET / HTTP/1.1\\r\\n\\r\\n")
            assert await reader.readline()
        finally:
            writer.close()
    limits = EngineLimits(probe_seconds=0.1, probe_timeout_seconds=0.3, unresponsive_seconds=2)
    engine = Engine(f"http://127.0.0.1:{port}", Launch(argv, None, dict(os.environ)), probe, limits)
    engine.on_change(lambda engine: print("change", engine.state, engine.pid, flush=True))
    engine.start()
    await engine.wait_ready(20)
    if ending == "waits":
        await asyncio.sleep(60)

asyncio.run(main(int(sys.argv[1]), *sys.argv[2:]))
"""


async def next_change(process):
    """Return state and pid of the engine's next change; log lines come between them."""
    while line := await process.stdout.readline():
        if line.startswith(b"change "):
            return line.decode().split()[1:]
    raise AssertionError("the helper ended")


@pytest.fixture
async def helper(launch_of, port, tmp_path, processes):
    """Start the helper; return its process and its engine's pid, once that is ready."""
    started = []

    async def start(ending, **variables):
        path = tmp_path / "helper.py"
        path.write_text(HELPER)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(path), str(port), ending, *launch_of().argv),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **variables},
        )
        started.append(process)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (words := await next_change(process))[0] != "ready":
                pass
        assert processes.is_alive(int(words[1])) or ending == "returns"
        return process, int(words[1])

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
        # Reads to the end too, without which asyncio keeps the pipe open.
        await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)


@pytest.mark.skipif(not shutil.which("setpriv"), reason="needs setpriv of util-linux")
async def test_killed_agent_leaves_no_engine(helper, processes, until):
    agent, engine_pid = await helper("waits")
    agent.kill()
    await until(lambda: not processes.is_alive(engine_pid))


async def test_agent_that_forgets_to_stop_leaves_no_engine(helper, processes, until):
    # Without setpriv on PATH, so that it is asyncio's shutdown that ends the child.
    agent, engine_pid = await helper("returns", PATH="/nowhere")
    await asyncio.wait_for(agent.communicate(), PATIENCE_SECONDS)
    assert agent.returncode == 0
    await until(lambda: not processes.is_alive(engine_pid))


async def test_frozen_instance_wakes_with_its_engine(helper, processes):
    agent, engine_pid = await helper("waits")
    for pid in (agent.pid, engine_pid):
        processes.kill(pid, signal.SIGSTOP)
    # The freeze: longer than the time after which the engine counts as hung.
    await asyncio.sleep(2.5)
    processes.kill(agent.pid, signal.SIGCONT)
    # The engine is slower to wake: long enough for the agent's first probe to fail.
    await asyncio.sleep(0.5)
    processes.kill(engine_pid, signal.SIGCONT)
    # Time for further probes; a wrong verdict would be printed as a change.
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(next_change(agent), 0.8)
    assert processes.is_alive(engine_pid)
