"""Growth: what a job costs the agent when there are more tasks in the store, more outputs, more nodes."""

from __future__ import annotations

import statistics
from collections.abc import AsyncIterator
from dataclasses import dataclass

from benchmarks.bench import Bench
from benchmarks.caller import AnswerWrong
from benchmarks.crowd import crowd_of_agent
from benchmarks.figures import Figure, Target
from benchmarks.jobs import Job
from benchmarks.pairs import Pairs, run_pairs
from benchmarks.setup import Setup
from benchmarks.wire import poll

GROUP = "growth"

#: A task's own input is not the other tasks, so its cost may not grow with them; this leaves room for noise.
FLAT = 1.25

#: Tasks in the store.
FEW, MANY = 10, 1000

#: Where tasks are kept, with whether that is Redis.
STORES = (("memory", False), ("Redis", True))

SMALL = Job("small image")


@dataclass(frozen=True)
class Growth:
    """The same kind of job in two sizes. `by` is how many times as large the second one is."""

    name: str
    small: Job
    large: Job
    by: float
    samples: tuple[int, int]


def growths(bench: Bench) -> tuple[Growth, ...]:
    outputs, nodes = bench.scaled(50, 5), bench.scaled(500, 50)
    return (
        Growth(
            "1 to 50 outputs",
            Job("1 output", preset="small.png"),
            Job("50 outputs", preset="small.png", copies=outputs),
            50,
            (30, 10),
        ),
        Growth("10 to 500 nodes", Job("10 nodes", nodes=10), Job("500 nodes", nodes=nodes), 50, (30, 6)),
    )


async def measure(bench: Bench) -> AsyncIterator[Figure]:
    """By how many times the agent's CPU time grows, and what it adds to the time of the larger job."""
    for store, with_redis in STORES[: bench.scaled(2, 1)]:
        async with bench.setup(with_redis=with_redis) as setup:
            async for figure in _store(bench, setup, store):
                yield figure
    async with bench.setup() as setup:
        for growth in growths(bench):
            small = await run_pairs(setup, growth.small, bench.scaled(growth.samples[0], 1))
            large = await run_pairs(setup, growth.large, bench.scaled(growth.samples[1], 1))
            yield small.cpu(GROUP, f"{growth.small.name}: CPU", Target())
            yield large.cpu(GROUP, f"{growth.large.name}: CPU", Target())
            yield _grown(f"{growth.name}: CPU grows", small, large, growth.by)
            yield large.ratio(GROUP, growth.large.name, Target())


async def _store(bench: Bench, setup: Setup, store: str) -> AsyncIterator[Figure]:
    few = await run_pairs(setup, SMALL, bench.scaled(FEW))
    fewer_polls = await _poll_seconds(bench, setup)
    crowd = await crowd_of_agent(setup, SMALL, 4, bench.scaled(MANY))
    if crowd.errors:
        raise AnswerWrong(crowd.errors[0])
    many = await run_pairs(setup, SMALL, bench.scaled(FEW))
    name = f"{FEW} to {MANY} tasks, {store}"
    yield _grown(f"{name}: CPU of a task grows", few, many, FLAT)
    value = await _poll_seconds(bench, setup) / fewer_polls
    yield Figure(
        group=GROUP,
        name=f"{name}: a page of 10 takes",
        value=value,
        unit="x",
        target=Target(limit=MANY / FEW),
    )


async def _poll_seconds(bench: Bench, setup: Setup) -> float:
    """The median time of a look at the latest tasks, of which there are enough for it."""
    url = f"{setup.agent_url}/api/tasks?limit={FEW}"
    return statistics.median(await poll(url, 1, 0.1 if bench.is_quick else 1.5))


def _grown(name: str, small: Pairs, large: Pairs, limit: float) -> Figure:
    value = statistics.median(large.agent_cpu) / statistics.median(small.agent_cpu)
    return Figure(
        group=GROUP,
        name=name,
        value=value,
        unit="x",
        samples=len(large.agent_cpu),
        target=Target(limit=limit),
    )
