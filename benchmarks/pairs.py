"""The same job through the agent and without it, in turns, so that what else happens on the machine meets both."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from typing import TypeVar

import pybase64

from benchmarks import usage
from benchmarks.caller import check_answer, check_pictures
from benchmarks.figures import Figure, Target, quartiles
from benchmarks.jobs import Graph, Job, Way
from benchmarks.pictures import new_variant
from benchmarks.places import running_on
from benchmarks.setup import Setup

#: After each job the agent tidies up. It may do so before the next one is measured; its CPU time counts.
SETTLE_SECONDS = 0.02

#: Jobs before the first one that is measured.
WARM_UP = 3

_names = count()

T = TypeVar("T")


@dataclass
class Pairs:
    """Seconds of each sample; `agent[i]` and `direct[i]` ran one right after the other."""

    agent: list[float] = field(default_factory=list)
    direct: list[float] = field(default_factory=list)
    agent_cpu: list[float] = field(default_factory=list)

    def ratio(self, group: str, name: str, target: Target) -> Figure:
        """How many times as long a job takes through the agent."""
        each = [agent / direct for agent, direct in zip(self.agent, self.direct, strict=True)]
        value = statistics.median(self.agent) / statistics.median(self.direct)
        return self._figure(group, name, value, "x", each, target)

    def added(self, group: str, name: str, target: Target) -> Figure:
        """How many milliseconds longer a job takes through the agent."""
        each = [1000 * (agent - direct) for agent, direct in zip(self.agent, self.direct, strict=True)]
        value = 1000 * (statistics.median(self.agent) - statistics.median(self.direct))
        return self._figure(group, name, value, "ms", each, target)

    def cpu(self, group: str, name: str, target: Target) -> Figure:
        """CPU milliseconds of the agent for one job, with what it does after the answer."""
        each = [1000 * seconds for seconds in self.agent_cpu]
        low, high = quartiles(each)
        value = statistics.median(each)
        return Figure(
            group=group,
            name=name,
            value=value,
            unit="ms",
            low=low,
            high=high,
            samples=len(each),
            target=target,
        )

    def _figure(
        self, group: str, name: str, value: float, unit: str, each: list[float], target: Target
    ) -> Figure:
        low, high = quartiles(each)
        return Figure(
            group=group,
            name=name,
            value=value,
            unit=unit,
            low=low,
            high=high,
            samples=len(each),
            direct=1000 * statistics.median(self.direct),
            agent=1000 * statistics.median(self.agent),
            target=target,
        )


async def run_pairs(setup: Setup, job: Job, samples: int) -> Pairs:
    """Run a job so often both ways, one at a time, and check every answer. Raises AnswerWrong, DirectFailed."""
    for _ in range(min(WARM_UP, samples - 1)):
        await through_agent(setup, job)
        await directly(setup, job)
    pairs = Pairs()
    for index in range(samples):
        for is_agent in (True, False) if index % 2 else (False, True):
            if is_agent:
                before = usage.cpu_seconds(setup.agent.pid)
                pairs.agent.append(await through_agent(setup, job))
                await asyncio.sleep(SETTLE_SECONDS)
                pairs.agent_cpu.append(usage.cpu_seconds(setup.agent.pid) - before)
            else:
                pairs.direct.append(await directly(setup, job))
                await asyncio.sleep(SETTLE_SECONDS)
    return pairs


async def through_agent(setup: Setup, job: Job) -> float:
    """Seconds until the agent's caller has the last byte of his answer."""
    graph, body = agent_request(setup, job)
    with running_on(setup.places.caller):
        seconds, answer = await _timed(lambda: setup.caller.run(body))
    check_answer(job, graph, answer)
    return seconds


def agent_request(setup: Setup, job: Job) -> tuple[Graph, bytes]:
    """A new graph of the job, and what the agent's caller sends for it."""
    graph = setup.kind.graph(job, _reference(setup, job))
    return graph, job.body(graph)


async def directly(setup: Setup, job: Job) -> float:
    """Seconds until the direct client has the last byte of the last picture."""
    picture, url = input_of(job), new_url(setup)
    with running_on(setup.places.direct):
        seconds, (graph, pictures) = await _timed(lambda: run_direct(setup, job, picture, url))
    check_pictures(job, graph, pictures)
    return seconds


async def run_direct(setup: Setup, job: Job, picture: bytes | None, url: str) -> tuple[Graph, list[bytes]]:
    """All that a job takes without an agent: get the input if it is elsewhere, hand it over, run, fetch."""
    direct = setup.direct
    if job.way is Way.URL:
        picture = await direct.download(url)
    graph = setup.kind.graph(job, await direct.upload(picture) if picture is not None else None)
    return graph, await direct.run(graph)


def input_of(job: Job) -> bytes | None:
    """What a direct client has before him: the bytes, which ComfyUI takes, where the agent's caller has base64."""
    return new_variant(job.picture) if job.way is Way.BASE64 else None


def _reference(setup: Setup, job: Job) -> str | None:
    match job.way:
        case Way.NONE:
            return None
        case Way.URL:
            return new_url(setup)
        case Way.BASE64:
            return pybase64.b64encode_as_string(new_variant(job.picture))


def new_url(setup: Setup) -> str:
    """Where a picture lies that nobody has downloaded yet."""
    return f"{setup.files_url}/pictures/{next(_names)}.png"


async def _timed(call: Callable[[], Awaitable[T]]) -> tuple[float, T]:
    began = time.perf_counter()
    result = await call()
    return time.perf_counter() - began, result
