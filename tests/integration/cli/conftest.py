"""The command as a child process, in an environment that holds nothing of the one that the tests run in."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from agent.client import AgentClient, AgentRequestError
from agent.settings import variable
from tests.integration.cli.clients import BOTH, MakeClient
from tests.integration.cli.places import Line
from tests.ports import free_port

ROOT = Path(__file__).parents[3]
MARK = "CLI_TEST_MARK"
SECONDS = 20  # what any start, stop or answer may take at most


def until(condition: Callable[[], object], what: str, seconds: float = SECONDS) -> None:
    """Wait for something in another process, which gives no signal; hence the polling."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


@dataclass
class Command:
    """`comfyui-agent` with an environment of its own; every process below it inherits the mark."""

    home: Path
    settings: dict[str, str] = field(default_factory=dict)
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def environ(self) -> dict[str, str]:
        temporary = self.home.with_name(self.home.name + "-tmp")
        temporary.mkdir(exist_ok=True)
        fixed = {
            "HOME": str(self.home),
            "TMPDIR": str(temporary),
            "PATH": os.environ["PATH"],
            "TERM": "xterm",
        }
        # The package is found without being installed, and leaves no bytecode in the home.
        return {**fixed, "PYTHONPATH": str(ROOT), MARK: self.mark, **self.settings}

    def start(self, *arguments: str, **options) -> subprocess.Popen[str]:
        pipes = {
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "stdin": subprocess.DEVNULL,
            "text": True,
        }
        argv = [sys.executable, "-m", "agent.cli", *arguments]
        return subprocess.Popen(argv, env=self.environ, cwd=self.home, **{**pipes, **options})

    def run(self, *arguments: str, seconds: float = SECONDS) -> subprocess.CompletedProcess[str]:
        with self.start(*arguments) as process:
            try:
                out, err = process.communicate(timeout=seconds)
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def processes(self) -> dict[int, str]:
        """Pid -> command line of everything alive that was started, however deep."""
        found = {}
        wanted = f"{MARK}={self.mark}".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        return found

    def end_all(self) -> None:
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def command(tmp_path) -> Iterator[Command]:
    (home := tmp_path / "home").mkdir()
    made = Command(home)
    yield made
    made.end_all()


@contextlib.contextmanager
def serving(command: Command, *, wait: bool = True) -> Iterator[str]:
    """The URL of a service that runs; with `wait`, once its engine is ready."""
    port = free_port()
    process = command.start("serve", "--host", "127.0.0.1", "--port", str(port), stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        with AgentClient(url) as client:
            until(client.ready if wait else lambda: answers(port), "the service answers")
        yield url
    finally:
        process.terminate()
        assert process.wait(SECONDS) == 0, process.stderr.read()
        process.stderr.close()


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@pytest.fixture(scope="session")
def agent_url(tmp_path_factory) -> Iterator[str]:
    """One agent on the simulator for all tests that only talk to it."""
    home = tmp_path_factory.mktemp("home")
    switches = ["--step-seconds", "0.02", "--base-directory", str(home / "engine")]
    settings = {
        "AGENT_SHUTDOWN_SECONDS": "1",
        "AGENT_INVOCATION": "standalone",
        "COMFYUI_PORT": str(free_port()),
        "COMFYUI_ARGS": shlex.join(switches),
    }
    command = Command(home, settings)
    with serving(command) as url:
        yield url
    assert not command.processes()


@pytest.fixture(params=BOTH)
def make_client(request) -> MakeClient:
    """The class of one of the clients; every test that uses it runs with both."""
    return BOTH[request.param]


@pytest.fixture
def client(make_client, agent_url) -> Iterator[AgentClient]:
    with make_client(agent_url, timeout=SECONDS) as made:
        yield made


def command_in(home: Path) -> Command:
    home.mkdir()
    return Command(home)


def engine_settings(command: Command) -> dict[str, str]:
    return {
        "AGENT_SHUTDOWN_SECONDS": "1",
        "AGENT_INVOCATION": "standalone",
        "COMFYUI_PORT": str(free_port()),
        "COMFYUI_ARGS": f"--step-seconds 0.02 --base-directory {command.home / 'engine'}",
    }


@pytest.fixture
def bucket_url(command, bucket) -> Iterator[str]:
    """An agent that puts its outputs into a bucket."""
    command.settings = engine_settings(command) | {
        variable(name): str(value) for name, value in bucket.settings(outputs="url").items()
    }
    with serving(command) as url:
        yield url


@pytest.fixture
def front_url(tmp_path, redis_server, redis_prefix) -> Iterator[str]:
    """A front before an agent; both want keys, and not the same."""
    shared = {"REDIS_URL": redis_server.url, "AGENT_REDIS_PREFIX": redis_prefix}
    with contextlib.ExitStack() as stack:
        engine, front = (command_in(tmp_path / name) for name in ("engine", "front"))
        engine.settings = engine_settings(engine) | shared | {"AGENT_API_KEYS": "engines"}
        engine_url = stack.enter_context(serving(engine))
        front.settings = {
            **shared,
            "AGENT_ROLE": "front",
            "AGENT_ENGINE_URL": engine_url,
            "AGENT_ENGINE_API_KEY": "engines",
            "AGENT_API_KEYS": "callers",
            "AGENT_INVOCATION": "standalone",
            "AGENT_SHUTDOWN_SECONDS": "1",
        }
        yield stack.enter_context(serving(front))


@pytest.fixture
def line(agent_url) -> Iterator[Line]:
    with Line(urlsplit(agent_url).port or 0) as made:
        yield made


def cut_when_running(line: Line, agent_url: str, task_id: str) -> int:
    """Cut the line as soon as the task is at a node; how many connections there were."""
    with AgentClient(agent_url) as watcher:

        def is_running() -> bool:
            with contextlib.suppress(AgentRequestError):
                return watcher.task(task_id)["current_node"] is not None
            return False

        until(is_running, "the task runs")
        return line.cut()
