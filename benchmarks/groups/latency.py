"""Added latency: one job at a time, through the agent and without it."""

from __future__ import annotations

from collections.abc import AsyncIterator

from benchmarks.bench import Bench
from benchmarks.figures import Figure, Target
from benchmarks.jobs import Job, Way
from benchmarks.pairs import run_pairs
from benchmarks.pictures import noise_of, photo

GROUP = "latency"

#: Seconds of the engine's own work in a job that takes time.
WORK = 0.05

SMALL = "small image"
BASE64 = "1 MP, base64 in and out"
URL = "1 MP, by URL in and out"
FOUR = "four 1 MP images out"
LARGE = "20 MB in"

#: Of the ratio to the direct client, on a job of 50 ms.
RATIOS = {
    SMALL: Target(limit=1.03, similar=1.03),
    BASE64: Target(limit=1.10, similar=1.26),
    URL: Target(limit=1.10, similar=1.23),
    FOUR: Target(limit=1.20, similar=1.48),
}

#: Of the milliseconds added to a job of 0 ms.
ADDED = {SMALL: Target(limit=2, similar=1.8), BASE64: Target(limit=10, similar=20)}

#: Of the agent's CPU milliseconds for one job.
CPU = {SMALL: Target(limit=4, similar=4.7), BASE64: Target(limit=15, similar=26)}


def jobs(bench: Bench, seconds: float) -> list[tuple[Job, int]]:
    """Each job with the number of samples that it is worth."""
    return [
        (Job(SMALL, seconds), 40),
        (Job(BASE64, seconds, Way.BASE64, photo()), 30),
        (Job(URL, seconds, Way.URL, photo(), to_bucket=True), 30),
        (Job(FOUR, seconds, preset="photo.png", copies=4), 24),
        (Job(LARGE, seconds, Way.BASE64, noise_of(bench.scaled(20)), preset="small.png"), 8),
    ]


async def measure(bench: Bench) -> AsyncIterator[Figure]:
    """On the simulator jobs of 50 ms and of 0 ms; on a real ComfyUI jobs that take what they take."""
    async with bench.setup() as setup:
        if bench.kind.root is not None:
            for job, samples in jobs(bench, 0):
                pairs = await run_pairs(setup, job, bench.scaled(samples // 4, 1))
                yield pairs.ratio(GROUP, job.name, Target())
                yield pairs.added(GROUP, f"{job.name}: added", Target())
                yield pairs.cpu(GROUP, f"{job.name}: CPU", CPU.get(job.name, Target()))
            return
        for job, samples in jobs(bench, WORK):
            pairs = await run_pairs(setup, job, bench.scaled(samples, 1))
            yield pairs.ratio(GROUP, f"{job.name}, 50 ms job", RATIOS.get(job.name, Target()))
            yield pairs.cpu(GROUP, f"{job.name}, 50 ms job: CPU", CPU.get(job.name, Target()))
        for job, samples in jobs(bench, 0):
            pairs = await run_pairs(setup, job, bench.scaled(samples, 1))
            yield pairs.added(GROUP, f"{job.name}, 0 ms job: added", ADDED.get(job.name, Target()))
