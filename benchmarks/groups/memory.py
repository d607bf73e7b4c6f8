"""Memory: the agent at rest, with large pictures, with many callers, and after many tasks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from benchmarks import usage
from benchmarks.bench import Bench
from benchmarks.caller import check_answer
from benchmarks.child import Child
from benchmarks.figures import Figure, Target
from benchmarks.jobs import PRESETS, Job, Way
from benchmarks.pairs import agent_request, through_agent
from benchmarks.pictures import noise_of
from benchmarks.setup import (
    Setup,
    agent_environment,
    running_agent,
    running_redis,
    running_setup,
    working_folder,
)
from tests.ports import free_port

GROUP = "memory"
MB = 1e6

SMALL = Job("small image")
LARGE = Job("20 MB in, 4 x 5 MB out", way=Way.BASE64, picture=noise_of(20), preset="five.png", copies=4)
FOUR = Job("four 1 MP images", preset="photo.png", copies=4)

CALLERS = 16

#: An agent is at rest so long after it became ready.
REST_SECONDS = 1.0

#: Tasks before the growth is measured, in which pools and caches fill, and those that may not add to it.
FILLING, MANY = 200, 1000


async def measure(bench: Bench) -> AsyncIterator[Figure]:
    """Peaks are measured with Redis, which has the results; in memory they would be kept in the agent on purpose."""
    async with running_setup(bench.places, bench.kind) as setup:
        await asyncio.sleep(REST_SECONDS)
        yield _figure("agent at rest, memory", usage.resident_bytes(setup.agent.pid) / MB, Target(limit=70))
    with running_redis(bench.places) as redis_url:
        async with running_setup(bench.places, bench.kind, redis_url=redis_url) as setup:
            await asyncio.sleep(REST_SECONDS)
            idle = usage.resident_bytes(setup.agent.pid)
            yield _figure("agent at rest, Redis", idle / MB, Target(limit=70))
            yield _figure(
                "front at rest", await _front_at_rest(bench, setup, redis_url) / MB, Target(limit=60)
            )
            yield await _large(bench, setup)
        async with running_setup(bench.places, bench.kind, redis_url=redis_url) as setup:
            yield await _many_callers(bench, setup)
        async with running_setup(bench.places, bench.kind, redis_url=redis_url) as setup:
            yield await _growth(bench, setup)


async def _front_at_rest(bench: Bench, setup: Setup, redis_url: str) -> int:
    port = free_port()
    role = {"AGENT_ROLE": "front", "AGENT_ENGINE_URL": setup.agent_url, "AGENT_PORT": str(port)}
    environ = agent_environment(redis_url) | role
    with working_folder() as folder, running_agent(environ, bench.places, folder / "front") as front:
        front.wait_for(f"http://127.0.0.1:{port}/readyz")
        await asyncio.sleep(REST_SECONDS)
        return usage.resident_bytes(front.pid)


async def _large(bench: Bench, setup: Setup) -> Figure:
    """The peak above rest in bytes of the files that go in and out. Of several tasks the worst one counts."""
    await through_agent(setup, SMALL)
    idle = usage.resident_bytes(setup.agent.pid)
    in_flight = len(LARGE.picture) + LARGE.copies * len(PRESETS["five.png"]())
    ratios = []
    for _ in range(bench.samples(4)):
        usage.forget_peak(setup.agent.pid)
        await through_agent(setup, LARGE)
        ratios.append((usage.peak_resident_bytes(setup.agent.pid) - idle) / in_flight)
    return Figure(
        group=GROUP,
        name=f"{LARGE.name}: peak above rest, by bytes in flight",
        value=max(ratios),
        unit="x",
        low=min(ratios),
        high=max(ratios),
        samples=len(ratios),
        target=Target(limit=2.5),
    )


async def _many_callers(bench: Bench, setup: Setup) -> Figure:
    """The peak while each caller has asked several times in a row."""
    usage.forget_peak(setup.agent.pid)
    await run_tasks(setup, FOUR, CALLERS * bench.samples(3), CALLERS)
    peak = usage.peak_resident_bytes(setup.agent.pid) / MB
    return _figure(f"{CALLERS} callers of {FOUR.name}: peak", peak, Target(limit=150, similar=236))


async def _growth(bench: Bench, setup: Setup) -> Figure:
    """By how much more memory rests after many small tasks than after some."""
    await run_tasks(setup, SMALL, bench.samples(FILLING), 4)
    before = await _resting(setup.agent)
    await run_tasks(setup, SMALL, bench.samples(MANY), 4)
    grown = (await _resting(setup.agent) - before) / MB
    return _figure("growth over 1,000 tasks", grown, Target(limit=2))


async def _resting(child: Child) -> int:
    await asyncio.sleep(REST_SECONDS)
    return usage.resident_bytes(child.pid)


async def run_tasks(setup: Setup, job: Job, count: int, callers: int) -> None:
    """Run a job so often, by so many callers at once. Raises AnswerWrong."""
    left = iter(range(count))

    async def call() -> None:
        for _ in left:
            graph, body = agent_request(setup, job)
            check_answer(job, graph, await setup.caller.run(body))

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(call())


def _figure(name: str, megabytes: float, target: Target) -> Figure:
    return Figure(group=GROUP, name=name, value=megabytes, unit="MB", target=target)
