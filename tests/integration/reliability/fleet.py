"""Real agents as child processes that tests kill, freeze and look into."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import aiohttp
import psutil

from comfyui.launch import dying_with_us
from tests.integration.agent.graphs import Graph, chain, empty, node, save
from tests.integration.agent.service import (
    PATIENCE_SECONDS,
    Agent,
    EngineView,
    eventually,
    simulator_args,
)
from tests.ports import free_port

#: Short enough to wait for, long enough for a machine that runs other tests beside.
LEASE_SECONDS = 1.5

#: What an instance is given beyond its lease until the others must show that it is gone.
GRACE_SECONDS = 10

ENDED = ("succeeded", "failed", "cancelled")
OWN_VARIABLES = ("AGENT_", "COMFYUI_", "REDIS_", "FC_")


@dataclass(frozen=True)
class Place:
    """Where an agent's files are: its engine's folders and its log."""

    folder: Path

    @property
    def base(self) -> Path:
        return self.folder / "engine"

    @property
    def log(self) -> Path:
        return self.folder / "agent.log"


class AgentProcess(Agent):
    """`comfyui-agent serve` with a simulator of its own. Settings are environment variables."""

    def __init__(self, folder: Path, *switches: str, **environment: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.place = Place(folder)
        self.port, self.engine_port = free_port(), free_port()
        clean = {name: value for name, value in os.environ.items() if not name.startswith(OWN_VARIABLES)}
        attached = "COMFYUI_URL" in environment or "COMFYUI_COMMAND" in environment
        engine = {} if attached else {"COMFYUI_ARGS": simulator_args(self.place.base, *switches)}
        self.environment = {
            **clean,
            **engine,
            "AGENT_HOST": "127.0.0.1",
            "AGENT_PORT": str(self.port),
            "COMFYUI_PORT": str(self.engine_port),
            "AGENT_LOG_FORMAT": "json",
            "AGENT_INVOCATION": "standalone",
            "AGENT_LEASE_SECONDS": str(LEASE_SECONDS),
            "AGENT_ENGINE_SILENCE_SECONDS": "0.5",
            "AGENT_SHUTDOWN_SECONDS": "1",
            **environment,
        }
        self.url = f"http://127.0.0.1:{self.port}"

    @property
    def fleet(self) -> dict[str, str]:
        """What another agent needs to answer for the same tasks."""
        return {"AGENT_REDIS_PREFIX": self.environment["AGENT_REDIS_PREFIX"]}

    async def __aenter__(self) -> Self:
        await self.launch()
        self.http = aiohttp.ClientSession(self.url, timeout=aiohttp.ClientTimeout(total=2 * PATIENCE_SECONDS))
        self.engine = EngineView(
            self.environment.get("COMFYUI_URL") or f"http://127.0.0.1:{self.engine_port}"
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.close()
        await self.engine.http.close()
        if self.process.returncode is None:
            self.resume()
            with contextlib.suppress(TimeoutError):
                await self.stop()
        if self.process.returncode is None:
            await self.kill()

    async def launch(self) -> None:
        """Start the process without waiting for its engine."""
        with self.place.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                # Also a test run that is killed leaves nothing behind.
                *dying_with_us((sys.executable, "-m", "agent.cli", "serve")),
                env=self.environment,
                cwd=self.place.folder,
                stdout=log,
                stderr=log,
                stdin=asyncio.subprocess.DEVNULL,
            )

    async def until(
        self, task_id: str, condition: Callable[[dict[str, Any]], bool], seconds: float = PATIENCE_SECONDS
    ) -> dict[str, Any]:
        """As for every agent, also of a task that is about to be sent or that nobody can read at the moment."""

        async def look() -> Any:
            answer = await self.get(f"/api/tasks/{task_id}")
            return answer.status == 200 and condition(answer.json) and answer.json

        try:
            found: dict[str, Any] = await eventually(look, seconds)
        except AssertionError:
            raise AssertionError((await self.get(f"/api/tasks/{task_id}")).body) from None
        return found

    async def stop(self, seconds: float = PATIENCE_SECONDS) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        return await asyncio.wait_for(self.process.wait(), seconds)

    async def kill(self) -> None:
        self.process.kill()
        await asyncio.wait_for(self.process.wait(), PATIENCE_SECONDS)

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    @property
    def engine_pid(self) -> int | None:
        """The process id of the simulator now; None between two."""
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                if "comfyui.simulator" in child.cmdline():
                    return child.pid
        return None

    def signal_engine(self, number: signal.Signals) -> int:
        pid = self.engine_pid
        assert pid is not None
        os.kill(pid, number)
        return pid

    @property
    def rss(self) -> int:
        """Bytes of memory that the agent itself holds."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    @property
    def log_text(self) -> str:
        return self.place.log.read_text()

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The log's lines of one event."""
        lines = [line for line in self.log_text.splitlines() if line.startswith("{")]
        return [entry for entry in map(json.loads, lines) if entry["event"] == event]

    @property
    def executed(self) -> int:
        """How many prompts the engine ran to an end, by its own words, which may come a little late."""
        return sum("Prompt executed" in entry["line"] for entry in self.logged("engine.output"))

    def executed_saves(self, prefix: str) -> int:
        """How many pictures the engine saved under names that begin so."""
        return len(list((self.place.base / "output").glob(f"{prefix}_*.png")))

    async def is_freed(self) -> bool:
        """Whether nothing runs or waits, neither in the agent nor in its engine."""
        queue = (await self.get("/api/queue")).ok()
        return not (queue["running"] or queue["queued"]) and await self.engine.is_idle()

    async def freed(self, seconds: float = PATIENCE_SECONDS) -> None:
        await eventually(self.is_freed, seconds)


async def ready(*agents: AgentProcess, seconds: float = 2 * PATIENCE_SECONDS) -> None:
    """Wait until every agent listens and its engine is up."""

    async def one(agent: AgentProcess) -> bool:
        with contextlib.suppress(aiohttp.ClientConnectionError):
            return (await agent.get("/readyz")).status == 200
        assert agent.process.returncode is None, agent.log_text[-2000:]
        return False

    for agent in agents:
        await eventually(lambda agent=agent: one(agent), seconds)


async def until(condition: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> Any:
    """Wait until a condition on this machine is true; its value."""

    async def look() -> Any:
        return condition()

    return await eventually(look, seconds)


def is_alive(pid: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def slow(steps: int = 100, seconds: float = 0.02, color: int | None = None, prefix: str = "slow") -> Graph:
    """A picture of one colour whose node 2 reports `steps` steps and can be interrupted at each; node 3 saves."""
    steady = node("LabSteps", "The slow one", image=..., steps=steps, seconds=seconds)
    return chain(empty(color), steady, save(prefix))


def outcomes(record: dict[str, Any]) -> list[str]:
    return [attempt["outcome"] for attempt in record["attempts"]]


def instances(record: dict[str, Any]) -> list[str]:
    return [attempt["instance"] for attempt in record["attempts"]]


class Clock:
    """How long a step of a test took."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began
