"""The servers that a measurement needs, each as a child process on its own cores."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import usage
from benchmarks.caller import Caller
from benchmarks.child import Child, running
from benchmarks.direct import DirectClient
from benchmarks.jobs import PRESETS, Graph, Job
from benchmarks.pictures import photo
from benchmarks.places import Places, move, running_on
from tests.ports import free_port
from tests.redis_server import RedisServer

#: Room that a folder in memory must have for the files of the jobs of one group.
NEEDED_BYTES = 6 * 2**30


@dataclass(frozen=True)
class EngineKind:
    """Which engine is measured: the simulator, or the real ComfyUI whose checkout is at `root`."""

    root: str | None = None

    @property
    def name(self) -> str:
        return f"ComfyUI at {self.root}" if self.root else "simulator"

    def graph(self, job: Job, reference: str | None) -> Graph:
        return job.real(reference) if self.root else job.simulated(reference)

    def settings(self, base: Path, prompt_log: Path) -> dict[str, str]:
        """What makes an agent launch it, with its folders below `base`."""
        # A real one does not start without these.
        for folder in ("custom_nodes", "input", "models"):
            (base / folder).mkdir(parents=True)
        args = f"--base-directory {shlex.quote(str(base))}"
        if self.root is None:
            return {"COMFYUI_ARGS": f"{args} --lab-nodes --prompt-log {shlex.quote(str(prompt_log))}"}
        kept = {name: os.environ[name] for name in ("COMFYUI_PYTHON",) if name in os.environ}
        given = os.environ.get("COMFYUI_ARGS", "--cpu --disable-api-nodes")
        return kept | {"COMFYUI_ROOT": self.root, "COMFYUI_ARGS": f"{args} {given}"}


@dataclass(frozen=True)
class Setup:
    """An agent with its engine, the files that both meet outside, and a client of each."""

    agent: Child
    agent_url: str
    engine_url: str
    files_url: str
    redis_url: str | None
    prompt_log: Path  #: of the simulator: a line for each prompt with its id, begin and end
    kind: EngineKind
    places: Places
    caller: Caller
    direct: DirectClient


@contextmanager
def working_folder() -> Iterator[Path]:
    """A folder that is in memory where that has room: no measurement shall wait for a disk."""
    memory = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
    parent = memory if memory.is_dir() and shutil.disk_usage(memory).free >= NEEDED_BYTES else None
    with tempfile.TemporaryDirectory(prefix="comfyui-agent-benchmark-", dir=parent) as made:
        yield Path(made)


@contextmanager
def running_redis(places: Places) -> Iterator[str]:
    """An empty Redis; gives its URL."""
    with working_folder() as folder:
        server = RedisServer(folder)
        with running_on(places.engine):
            server.start()
        try:
            yield server.url
        finally:
            server.stop()


@asynccontextmanager
async def running_setup(
    places: Places, kind: EngineKind, *, with_redis: bool = False
) -> AsyncIterator[Setup]:
    """An agent as it is deployed: it launches its engine, and keeps tasks in an empty Redis or in its memory."""
    with ExitStack() as stack:
        redis_url = stack.enter_context(running_redis(places)) if with_redis else None
        folder = stack.enter_context(working_folder())
        files_url = stack.enter_context(_running_files(places, folder))
        base, prompt_log = folder / "engine", folder / "prompts.txt"
        environ = agent_environment(redis_url) | kind.settings(base, prompt_log) | _bucket(files_url)
        for name, make in PRESETS.items():
            (base / "input" / name).write_bytes(make())
        port, engine_port = free_port(), free_port()
        environ |= {"AGENT_PORT": str(port), "COMFYUI_PORT": str(engine_port)}
        child = stack.enter_context(running_agent(environ, places, folder / "agent"))
        url, engine_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{engine_port}"
        child.wait_for(f"{url}/readyz")
        move(usage.children(child.pid)[0], places.engine)
        async with Caller(url) as caller, DirectClient(engine_url) as direct:
            yield Setup(
                child, url, engine_url, files_url, redis_url, prompt_log, kind, places, caller, direct
            )


@contextmanager
def running_front(setup: Setup) -> Iterator[tuple[Child, str]]:
    """A front before the agent, which has Redis; gives its URL too."""
    port = free_port()
    environ = agent_environment(setup.redis_url)
    environ |= {"AGENT_ROLE": "front", "AGENT_ENGINE_URL": setup.agent_url, "AGENT_PORT": str(port)}
    with ExitStack() as stack:
        folder = stack.enter_context(working_folder())
        child = stack.enter_context(running_agent(environ, setup.places, folder / "front"))
        child.wait_for(f"http://127.0.0.1:{port}/readyz")
        yield child, f"http://127.0.0.1:{port}"


@contextmanager
def running_agent(environ: dict[str, str], places: Places, folder: Path) -> Iterator[Child]:
    """`comfyui-agent serve`; nobody has waited for it yet."""
    folder.mkdir()
    with running((sys.executable, "-m", "agent.cli", "serve"), environ, places.agent, folder) as child:
        yield child


def agent_environment(redis_url: str | None = None) -> dict[str, str]:
    """Settings of every agent here. All others have their defaults."""
    environ = {
        "AGENT_HOST": "127.0.0.1",
        "AGENT_INVOCATION": "standalone",
        "AGENT_FETCH_ALLOW": "127.0.0.1",
        "AGENT_SHUTDOWN_SECONDS": "1",
        "AGENT_LOG_FORMAT": "json",
    }
    return environ if redis_url is None else environ | {"REDIS_URL": redis_url}


@contextmanager
def _running_files(places: Places, folder: Path) -> Iterator[str]:
    """The file server with the picture of one megapixel; gives its URL."""
    mine = folder / "files"
    mine.mkdir()
    (mine / "photo.png").write_bytes(photo())
    port = free_port()
    command = (sys.executable, "-m", "benchmarks.file_server", str(port), "photo.png")
    with running(command, {}, places.engine, mine) as child:
        url = f"http://127.0.0.1:{port}"
        child.wait_for(f"{url}/pictures/first")
        yield url


def _bucket(files_url: str) -> dict[str, str]:
    return {
        "AGENT_OBJECT_STORE": "s3://bucket/outputs",
        "AGENT_OBJECT_STORE_ENDPOINT": files_url,
        "AGENT_OBJECT_STORE_REGION": "us-east-1",
        "AGENT_OBJECT_STORE_KEY_ID": "benchmark",
        "AGENT_OBJECT_STORE_KEY_SECRET": "benchmark",
    }
