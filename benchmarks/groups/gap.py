"""Engine idle gap: how long the engine waits for its next prompt while tasks wait, by the engine's own clock."""

from __future__ import annotations

import statistics
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.caller import AnswerWrong
from benchmarks.crowd import Crowd, crowd_of_agent, crowd_of_direct
from benchmarks.figures import Figure, Target, quartiles
from benchmarks.jobs import Job, Way

GROUP = "gap"

#: Seconds of the engine's work in each job, of which the gap is a part.
WORK = 0.05

JOB = Job("inputs downloaded, outputs of 4 x 1 MP", WORK, Way.URL, copies=4)

CALLERS = 8


async def measure(bench: Bench) -> AsyncIterator[Figure]:
    """Percent of the job, for the agent and, as the floor, for a direct client who submits everything at once."""
    callers = bench.scaled(CALLERS)
    async with bench.setup() as setup:
        gaps: dict[str, list[float]] = {}
        for name, way in {"direct client": crowd_of_direct, "agent": crowd_of_agent}.items():
            _check(await way(setup, JOB, callers, callers))  # to warm up
            before = len(_prompts(setup.prompt_log))
            _check(await way(setup, JOB, callers, bench.scaled(80, 4 * callers)))
            gaps[name] = _gaps(_prompts(setup.prompt_log)[before:], callers)
    for name, samples in gaps.items():
        percents = [100 * gap / WORK for gap in samples]
        low, high = quartiles(percents)
        yield Figure(
            group=GROUP,
            name=f"{JOB.name}, {CALLERS} callers: {name}",
            value=statistics.fmean(percents),
            unit="%",
            low=low,
            high=high,
            samples=len(percents),
            target=Target(limit=2 if name == "agent" else None),
        )


def _check(crowd: Crowd) -> None:
    if crowd.errors:
        raise AnswerWrong(crowd.errors[0])


def _prompts(log: Path) -> list[tuple[float, float]]:
    """When the engine took each prompt and was done with it, in order."""
    lines = [line.split() for line in log.read_text().splitlines()]
    return [(float(taken), float(done)) for _, taken, done in lines]


def _gaps(prompts: list[tuple[float, float]], callers: int) -> list[float]:
    """Seconds between the end of one prompt and the next one, while tasks waited: at the beginning and at the end of a
    run not all callers do."""
    inner = prompts[callers:-callers]
    return [following[0] - prompt[1] for prompt, following in pairwise(inner)]
