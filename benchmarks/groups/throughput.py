"""Throughput with 1 to 64 callers, and how evenly it is shared out among them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

from benchmarks.bench import Bench
from benchmarks.caller import AnswerWrong
from benchmarks.crowd import Crowd, crowd_of_agent, crowd_of_direct
from benchmarks.figures import Figure, Sense, Target
from benchmarks.jobs import Job, Way
from benchmarks.pairs import directly, through_agent
from benchmarks.setup import Setup

GROUP = "throughput"

#: Jobs in one round, by the number of callers; each round is run both ways.
COUNTS = {1: 16, 4: 32, 16: 64, 64: 128}
ROUNDS = 2

#: The same on a real ComfyUI, where one megapixel takes most of a second without a GPU.
REAL_COUNTS = {1: 6, 4: 16}

BUSY = Job("50 ms job", 0.05)
SMALL = Job("small image")
LARGE = Job("0 ms job, 1 MP by URL in and out", 0.0, Way.URL, to_bucket=True)
REAL_LARGE = replace(LARGE, name="1 MP by URL in and out")

#: From so many callers on the engine has always something to do.
ENOUGH = 4

STATED = Target(sense=Sense.AT_LEAST)


async def measure(bench: Bench) -> AsyncIterator[Figure]:
    """On a real ComfyUI the shares are only stated: its jobs take other times than those of the targets."""
    is_real = bench.kind.root is not None
    counts = REAL_COUNTS if is_real else COUNTS
    errors: list[str] = []
    async with bench.setup() as setup:
        for job in (SMALL, REAL_LARGE) if is_real else (BUSY, LARGE):
            await through_agent(setup, job)
            await directly(setup, job)
            for callers in list(counts)[: bench.scaled(len(counts))]:
                count = bench.scaled(counts[callers], callers)
                rounds = [await _round(setup, job, callers, count, n) for n in range(bench.scaled(ROUNDS, 1))]
                agent, direct = (Crowd.of(each) for each in zip(*rounds, strict=True))
                errors += agent.errors
                shares = [through.per_second / alone.per_second for through, alone in rounds]
                yield _share(job, agent, direct, shares)
                if callers >= ENOUGH:
                    yield _fairness(job, agent)
    yield Figure(group=GROUP, name="errors", value=len(errors), unit="", target=Target(limit=0))
    if errors:
        raise AnswerWrong(f"{len(errors)} answers, the first: {errors[0]}")


async def _round(setup: Setup, job: Job, callers: int, count: int, number: int) -> tuple[Crowd, Crowd]:
    """Both ways, one after the other; every other round begins with the other one."""
    if number % 2:
        agent = await crowd_of_agent(setup, job, callers, count)
        return agent, await crowd_of_direct(setup, job, callers, count)
    direct = await crowd_of_direct(setup, job, callers, count)
    return await crowd_of_agent(setup, job, callers, count), direct


def _target(job: Job, callers: int) -> Target:
    """Of the part of what the direct client reaches."""
    if job is LARGE:
        return Target(limit=0.5, sense=Sense.AT_LEAST, similar=0.21)
    return Target(limit=0.97, sense=Sense.AT_LEAST) if job is BUSY and callers >= ENOUGH else STATED


def _share(job: Job, agent: Crowd, direct: Crowd, shares: list[float]) -> Figure:
    return Figure(
        group=GROUP,
        name=f"{job.name}, {_callers(agent)}",
        value=agent.per_second / direct.per_second,
        unit="x",
        low=min(shares),
        high=max(shares),
        samples=len(agent.latencies),
        direct=direct.per_second,
        agent=agent.per_second,
        unit_of_both="/s",
        target=_target(job, agent.callers),
    )


def _fairness(job: Job, agent: Crowd) -> Figure:
    return Figure(
        group=GROUP,
        name=f"{job.name}, {_callers(agent)}: p95 by fair queueing",
        value=agent.p95_by_fair,
        unit="x",
        samples=len(agent.latencies),
        target=Target(limit=1.2),
    )


def _callers(crowd: Crowd) -> str:
    return f"{crowd.callers} caller{'s' if crowd.callers > 1 else ''}"
