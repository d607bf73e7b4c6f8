"""Several callers at once, each of whom asks again as soon as he has his answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.caller import AnswerWrong, check_answer, check_pictures
from benchmarks.figures import percentile
from benchmarks.jobs import Job
from benchmarks.pairs import agent_request, input_of, new_url, run_direct
from benchmarks.places import running_on
from benchmarks.setup import Setup


@dataclass
class Crowd:
    """What so many callers met, in one run or in several put together."""

    callers: int
    seconds: float = 0.0  #: from the first request to the last answer
    latencies: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        return len(self.latencies) / self.seconds

    @property
    def p95_by_fair(self) -> float:
        """How the 95th percentile of the latencies compares with a queue that lets each caller have his turn: at this
        rate each would wait so long for those before him (Little's law)."""
        return percentile(self.latencies, 95) / (self.callers / self.per_second)

    @classmethod
    def of(cls, rounds: Sequence[Crowd]) -> Crowd:
        """Several runs put together."""
        whole = cls(rounds[0].callers)
        for each in rounds:
            whole.seconds += each.seconds
            whole.latencies += each.latencies
            whole.errors += each.errors
        return whole


async def crowd_of_agent(setup: Setup, job: Job, callers: int, count: int) -> Crowd:
    """Run a job so often through the agent."""

    async def one() -> float:
        graph, body = agent_request(setup, job)
        began = time.perf_counter()
        answer = await setup.caller.run(body)
        seconds = time.perf_counter() - began
        check_answer(job, graph, answer)
        return seconds

    with running_on(setup.places.caller):
        return await _crowd(one, callers, count)


async def crowd_of_direct(setup: Setup, job: Job, callers: int, count: int) -> Crowd:
    """Run a job so often without the agent, all callers with one client."""

    async def one() -> float:
        picture, url = input_of(job), new_url(setup)
        began = time.perf_counter()
        graph, pictures = await run_direct(setup, job, picture, url)
        seconds = time.perf_counter() - began
        check_pictures(job, graph, pictures)
        return seconds

    with running_on(setup.places.direct):
        return await _crowd(one, callers, count)


async def _crowd(one: Callable[[], Awaitable[float]], callers: int, count: int) -> Crowd:
    crowd, left = Crowd(callers), iter(range(count))

    async def call() -> None:
        for _ in left:
            try:
                crowd.latencies.append(await one())
            except AnswerWrong as error:
                crowd.errors.append(str(error))

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(call())
    crowd.seconds = time.perf_counter() - began
    return crowd
