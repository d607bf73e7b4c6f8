"""Memory: the agent at rest, with large pictures, with many callers, and after many tasks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from benchmarks import usage
from benchmarks.bench import Bench
from benchmarks.caller import AnswerWrong
from benchmarks.child import Child
from benchmarks.crowd import crowd_of_agent
from benchmarks.figures import Figure, Target
from benchmarks.jobs import PRESETS, Job, Way
from benchmarks.pairs import through_agent
from benchmarks.pictures import noise_of
from benchmarks.setup import Setup, running_front

GROUP = "memory"

SMALL = Job("small image")
FOUR = Job("four 1 MP images", preset="photo.png", copies=4)

CALLERS = 16

#: An agent is at rest so long after it became ready.
REST_SECONDS = 1.0

#: Tasks before the growth is measured, in which pools and caches fill, and those that may not add to it.
FILLING, MANY = 200, 1000


async def measure(bench: Bench) -> AsyncIterator[Figure]:
    """Peaks are measured with Redis, which has the results; in memory they would be kept in the agent on purpose."""
    async with bench.setup() as setup:
        yield _figure("agent at rest, memory", await _resting(bench, setup.agent), Target(limit=70))
    async with bench.setup(with_redis=True) as setup:
        yield _figure("agent at rest, Redis", await _resting(bench, setup.agent), Target(limit=70))
        with running_front(setup) as (front, _):
            yield _figure("front at rest", await _resting(bench, front), Target(limit=60))
        yield await _large(bench, setup)
    async with bench.setup(with_redis=True) as setup:
        yield await _many_callers(bench, setup)
    async with bench.setup(with_redis=True) as setup:
        yield await _growth(bench, setup)


async def _large(bench: Bench, setup: Setup) -> Figure:
    """The peak above rest in bytes of the files that go in and out. Of several tasks the worst one counts."""
    picture = noise_of(bench.scaled(20))
    job = Job("20 MB in, 4 x 5 MB out", way=Way.BASE64, picture=picture, preset="five.png", copies=4)
    in_flight = len(picture) + job.copies * len(PRESETS["five.png"]())
    await through_agent(setup, SMALL)
    idle = usage.resident_bytes(setup.agent.pid)
    ratios = []
    for _ in range(bench.scaled(4)):
        usage.forget_peak(setup.agent.pid)
        await through_agent(setup, job)
        ratios.append((usage.peak_resident_bytes(setup.agent.pid) - idle) / in_flight)
    return Figure(
        group=GROUP,
        name=f"{job.name}: peak above rest, by bytes in flight",
        value=max(ratios),
        unit="x",
        low=min(ratios),
        high=max(ratios),
        samples=len(ratios),
        target=Target(limit=2.5),
    )


async def _many_callers(bench: Bench, setup: Setup) -> Figure:
    """The peak while each caller asks several times in a row."""
    callers = bench.scaled(CALLERS)
    usage.forget_peak(setup.agent.pid)
    await _run_tasks(setup, FOUR, callers * bench.scaled(3, 1), callers)
    peak = usage.peak_resident_bytes(setup.agent.pid)
    return _figure(f"{CALLERS} callers of {FOUR.name}: peak", peak, Target(limit=150, similar=236))


async def _growth(bench: Bench, setup: Setup) -> Figure:
    """By how much more memory rests after many small tasks than after some."""
    await _run_tasks(setup, SMALL, bench.scaled(FILLING), 4)
    before = await _resting(bench, setup.agent)
    await _run_tasks(setup, SMALL, bench.scaled(MANY), 4)
    grown = await _resting(bench, setup.agent) - before
    return _figure("growth over 1,000 tasks", grown, Target(limit=2))


async def _resting(bench: Bench, child: Child) -> int:
    if not bench.is_quick:
        await asyncio.sleep(REST_SECONDS)
    return usage.resident_bytes(child.pid)


async def _run_tasks(setup: Setup, job: Job, count: int, callers: int) -> None:
    crowd = await crowd_of_agent(setup, job, callers, count)
    if crowd.errors:
        raise AnswerWrong(crowd.errors[0])


def _figure(name: str, size: int, target: Target) -> Figure:
    return Figure(group=GROUP, name=name, value=size / 1e6, unit="MB", target=target)
