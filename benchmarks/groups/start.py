"""Start: CPU time from the start of the process to the open port, and from a ready engine to a ready agent."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import aiohttp

from benchmarks import usage
from benchmarks.bench import Bench
from benchmarks.child import READY_SECONDS, clean_environment
from benchmarks.figures import Figure, Target, quartiles
from benchmarks.places import move, running_on
from benchmarks.setup import (
    agent_environment,
    running_agent,
    running_redis,
    working_folder,
)
from tests.ports import free_port

GROUP = "start"

#: How often it is looked whether a port is open and a server ready: the error of the times.
STEP_SECONDS = 0.001

#: Most of a start is the import of aiohttp, so this is what a machine's speed is told by.
YARDSTICK = (sys.executable, "-c", "import aiohttp")


@dataclass(frozen=True)
class Start:
    """One start of an agent, in seconds."""

    cpu: float  #: of the agent, when its port was open
    wall: float  #: until then
    ready_cpu: float  #: as `cpu`, when the agent was ready
    lag: float  #: from an engine that answers to an agent that says that it is ready


async def measure(bench: Bench) -> AsyncIterator[Figure]:
    """Starts in turns with the yardstick. The engine is the simulator or ComfyUI, which is ready seconds later."""
    with running_redis(bench.places) as redis_url:
        environments = {"memory": agent_environment(), "Redis": agent_environment(redis_url)}
        if bench.is_quick:
            del environments["memory"]
        if not bench.is_quick:
            for environ in environments.values():  # so that all is compiled and in the page cache
                await _start(bench, environ)
        yardstick: list[float] = []
        starts: dict[str, list[Start]] = {name: [] for name in environments}
        for _ in range(bench.scaled(10 if bench.kind.root is None else 3, 1)):
            for name, environ in environments.items():
                yardstick.append(_import_seconds(bench))
                starts[name].append(await _start(bench, environ))
    for name, samples in starts.items():
        cpu, label = [sample.cpu for sample in samples], f"start to open port, {name}"
        unit = statistics.median(yardstick)
        yield _figure(f"{label}: CPU", cpu, "s", Target(limit=0.35))
        ratio = _figure(f"{label}: ratio to import aiohttp", [each / unit for each in cpu], "x", Target())
        both = {"direct": unit, "agent": statistics.median(cpu), "unit_of_both": "s"}
        yield ratio.model_copy(update=both)
        yield _figure(f"{label}: time", [sample.wall for sample in samples], "s", Target())
        yield _figure(f"start to ready, {name}: CPU", [sample.ready_cpu for sample in samples], "s", Target())
        lags = [1000 * sample.lag for sample in samples]
        yield _figure(f"engine ready to agent ready, {name}", lags, "ms", Target(limit=50))


def _figure(name: str, samples: list[float], unit: str, target: Target) -> Figure:
    low, high = quartiles(samples)
    return Figure(
        group=GROUP,
        name=name,
        value=statistics.median(samples),
        unit=unit,
        low=low,
        high=high,
        samples=len(samples),
        target=target,
    )


def _import_seconds(bench: Bench) -> float:
    """CPU seconds of a Python that imports aiohttp and nothing else."""
    with running_on(bench.places.agent):
        process = subprocess.Popen(YARDSTICK, env=clean_environment())  # noqa: S603 - our own command
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{YARDSTICK} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime


async def _start(bench: Bench, environ: dict[str, str]) -> Start:
    port, engine_port = free_port(), free_port()
    with ExitStack() as stack:
        folder = stack.enter_context(working_folder())
        settings = environ | bench.kind.settings(folder / "engine", folder / "prompts.txt")
        settings |= {"AGENT_PORT": str(port), "COMFYUI_PORT": str(engine_port)}
        began = time.perf_counter()
        child = stack.enter_context(running_agent(settings, bench.places, folder / "agent"))
        await _until_open(port)
        opened, cpu = time.perf_counter(), usage.cpu_seconds(child.pid)
        engine = asyncio.create_task(_until_ready(f"http://127.0.0.1:{engine_port}/system_stats"))
        while not (found := usage.children(child.pid)):  # noqa: ASYNC110 - another process tells nothing
            await asyncio.sleep(STEP_SECONDS)
        move(found[0], bench.places.engine)
        ready_at = await engine
        # Asked only now: to answer questions would be most of what the agent does until then.
        lag = await _until_ready(f"http://127.0.0.1:{port}/readyz") - ready_at
        return Start(cpu, opened - began, usage.cpu_seconds(child.pid), lag)


async def _until_open(port: int) -> None:
    async with asyncio.timeout(READY_SECONDS):
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                await writer.wait_closed()
                return
            await asyncio.sleep(STEP_SECONDS)


async def _until_ready(url: str) -> float:
    """The time at which `url` first answers with success."""
    async with asyncio.timeout(READY_SECONDS), aiohttp.ClientSession() as session:
        while True:
            with suppress(aiohttp.ClientError):
                async with session.get(url) as response:
                    if response.status == 200:
                        return time.perf_counter()
            await asyncio.sleep(STEP_SECONDS)
