"""Real child processes that act as engines, and the means to look at processes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from comfyui.engine import Engine
from comfyui.errors import EngineUnreachableError
from comfyui.launch import EngineLimits, Launch, RestartLimits, child_environment

# Answers every request with 200, after doing what its flags say.
ENGINE = """
import argparse, os, pathlib, signal, socket, subprocess, sys, time
flags = argparse.ArgumentParser()
flags.add_argument("--port", type=int)
flags.add_argument("--ready-after", type=float, default=0)
flags.add_argument("--needs")          # a file without which it exits with code 3
flags.add_argument("--bound-at")       # a file for the moment at which it could answer
flags.add_argument("--grandchild")     # a file for the pid of a grandchild that keeps our pipes
flags.add_argument("--own-session", action="store_true")
flags.add_argument("--ignore-sigterm", action="store_true")
flags.add_argument("--mute", action="store_true")  # accepts connections and never answers
flags = flags.parse_args()
print("loading nodes", flush=True)
if flags.ignore_sigterm:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if flags.needs and not os.path.exists(flags.needs):
    sys.exit(sys.stderr.write("no models in " + flags.needs + "\\n") and 3)
if flags.grandchild:
    child = subprocess.Popen(["sleep", "60"], start_new_session=flags.own_session)
    pathlib.Path(flags.grandchild + ".part").write_text(str(child.pid))
    os.rename(flags.grandchild + ".part", flags.grandchild)
time.sleep(flags.ready_after)
server = socket.create_server(("127.0.0.1", flags.port))
if flags.bound_at:
    pathlib.Path(flags.bound_at).write_text(str(time.monotonic()))
while True:
    connection, _ = server.accept()
    if flags.mute:
        time.sleep(60)
    with connection:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\n{}")
"""

#: No condition takes longer, also on a machine that is busy with other tests.
PATIENCE_SECONDS = 20

QUICK = RestartLimits(backoff_seconds=0.05, longest_backoff_seconds=0.2, settled_seconds=5)


async def probe(port):
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError as exc:
        raise EngineUnreachableError(str(exc)) from exc
    try:
        writer.write(b"GET /system_stats HTTP/1.1\r\nHost: engine\r\n\r\n")
        if b" 200 " not in await reader.readline():
            raise EngineUnreachableError("no 200")
    finally:
        writer.close()


class Processes:
    """Looks at processes; ends those that were noted, by their id, when the test is over."""

    def __init__(self):
        self.noted = set()
        self.before = set()
        self.before = set(self.children())

    def state(self, pid):
        """Return the kernel's letter ("Z" for a zombie), or None when there is no such process."""
        with suppress(FileNotFoundError, ProcessLookupError):
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return None

    def is_alive(self, pid):
        self.noted.add(pid)
        return self.state(pid) not in (None, "Z", "X")

    def children(self):
        """Return pid -> state of the children of this process, without those of other tests' shared fixtures."""
        pids = map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
        return {pid: self.state(pid) for pid in pids if pid not in self.before}

    def kill(self, pid, number=signal.SIGKILL):
        self.noted.add(pid)
        os.kill(pid, number)

    def end_noted(self):
        for pid in filter(self.is_alive, tuple(self.noted)):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def processes():
    found = Processes()
    yield found
    left = found.children().keys()
    found.end_noted()
    assert not left, f"children left behind: {left}"


@pytest.fixture
def until():
    """Wait for a condition, up to `seconds`. What happens in another process gives no signal, hence the polling."""

    async def wait(condition, seconds=PATIENCE_SECONDS):
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < deadline, "the condition did not come true"
            await asyncio.sleep(0.01)
        return value

    return wait


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
def launch_of(tmp_path, port):
    """Return the Launch of a script (default: the fake engine on `port`) with flags."""

    def launch(*flags, script=None):
        path = tmp_path / "engine.py"
        path.write_text(script or ENGINE)
        ours = () if script else ("--port", str(port))
        return Launch((sys.executable, "-S", str(path), *ours, *flags), None, child_environment(os.environ))

    return launch


@pytest.fixture
async def make_engine(port, processes):
    """Return a started Engine with quick limits; all of them are stopped at the end."""
    engines = []

    def make(launch, **limits):
        limits = {"probe_seconds": 0.05, "restarts": QUICK, "grace_seconds": 0.5, **limits}
        engine = Engine(f"http://127.0.0.1:{port}", launch, lambda: probe(port), EngineLimits(**limits))
        engines.append(engine)
        engine.start()
        return engine

    yield make
    for engine in engines:
        await asyncio.wait_for(engine.stop(grace_seconds=0.5), PATIENCE_SECONDS)
    assert asyncio.all_tasks() == {asyncio.current_task()}
