"""Many asynchronous tasks through a front over instances that come and go, while their status is polled.

A short form runs with the suite. The long one, and the curve of throughput over instances:

    GATEWAY_TASKS=200 GATEWAY_INSTANCES=8 pytest -s tests/gateway/test_scale.py

A job sleeps for JOB_SECONDS in the simulator, as one that waits for its GPU: the time of the jobs and not the CPU of
the machine is what limits the throughput.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest

from tests.gateway.caller import Caller
from tests.gateway.cloud import Deployed
from tests.gateway.conftest import Deploy
from tests.gateway.function import AsyncConfig
from tests.gateway.instance import Phase
from tests.gateway.journal import What
from tests.gateway.tasks import TaskState
from tests.integration.agent.graphs import Graph, rgb
from tests.integration.agent.pictures import look
from tests.integration.reliability.fleet import outcomes, slow, until

TASKS = int(os.environ.get("GATEWAY_TASKS", "24"))
INSTANCES = int(os.environ.get("GATEWAY_INSTANCES", "3"))
IS_LONG = "GATEWAY_TASKS" in os.environ

JOB_SECONDS = float(os.environ.get("GATEWAY_JOB_SECONDS", "2" if IS_LONG else "0.3"))
STEPS = 4

#: Open runs an instance takes: one works, the others are ready to follow.
CONCURRENCY = 4

#: Polls of all tasks together. Each costs some milliseconds of CPU here, which on the platform are another machine's.
POLLS_PER_SECOND = 25

#: No task may be taken for lost because a machine that runs ten processes did not let one of them extend its lease.
LEASE = {"AGENT_LEASE_SECONDS": "30"}

#: Every so often a delivery comes twice.
DUPLICATE_EVERY = 10

DEADLINE_SECONDS = 60 + TASKS * (JOB_SECONDS + 1)

ENDED = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True)
class Job:
    """One task, whose picture has a size and a colour that no other has."""

    number: int

    @property
    def id(self) -> str:
        return f"scale-{self.number:04}"

    @property
    def color(self) -> int:
        return (self.number * 7919) % 0xFFFFFF + 1

    @property
    def size(self) -> tuple[int, int]:
        return 8 + self.number % 50, 8 + self.number // 50

    @property
    def graph(self) -> Graph:
        graph = slow(STEPS, JOB_SECONDS / STEPS, color=self.color, prefix=self.id)
        graph["1"]["inputs"] |= {"width": self.size[0], "height": self.size[1]}
        return graph

    def check(self, picture: bytes) -> None:
        image = look(picture).convert("RGB")
        assert image.size == self.size, f"{self.id}: somebody else's picture"
        assert image.getcolors(maxcolors=1) == [(self.size[0] * self.size[1], rgb(self.color))], self.id


async def hand_in(front: Caller, jobs: list[Job]) -> None:
    room = asyncio.Semaphore(8)

    async def one(job: Job) -> None:
        async with room:
            answer = await front.hand_in(job.graph, job.id)
        assert answer.status == 202, answer.body

    await asyncio.gather(*map(one, jobs))


async def poll_to_the_end(front: Caller, jobs: list[Job]) -> tuple[dict[str, Any], int]:
    """The final records, and how many polls there were. Tasks are asked for in turn, at a bounded rate; one that has
    not been handed in yet is not there."""
    records: dict[str, Any] = {}
    waiting = {job.id for job in jobs}
    polls, routes = 0, itertools.cycle(["task", "task", "status"])
    async with asyncio.timeout(DEADLINE_SECONDS):
        while waiting:
            for task_id in sorted(waiting):
                polls += 1
                await asyncio.sleep(1 / POLLS_PER_SECOND)
                if next(routes) == "status":
                    assert (await front.status(task_id)).status in (200, 404)
                    continue
                answer = await front.get(f"/api/tasks/{task_id}")
                if answer.status != 404 and answer.ok()["state"] in ENDED:
                    records[task_id] = answer.json
                    waiting.discard(task_id)
    return records, polls


def most_at_once(function: Deployed) -> int:
    """How many instances lived at the same time, at most."""
    living, most = set(), 0
    for event in function.events(What.STARTED, What.KILLED, What.EXITED):
        (living.add if event.what is What.STARTED else living.discard)(event.instance)
        most = max(most, len(living))
    return most


def saved_pictures(function: Deployed) -> Counter[str]:
    """How often an engine has saved a picture for each task: the simulator names them after it."""
    names = (
        path.name
        for instance in function.fleet.instances
        for path in (instance.folder / "engine" / "output").glob("scale-*.png")
    )
    return Counter(name[: len("scale-0000")] for name in names)


@pytest.mark.timeout(60 + 2 * DEADLINE_SECONDS)
async def test_tasks_finish_once_each_over_instances_that_come_and_go_while_a_front_is_polled(
    deploy_gpu: Deploy, deploy_front: Deploy
) -> None:
    gpu, _ = await deploy_gpu(
        max_instances=INSTANCES,
        instance_concurrency=CONCURRENCY,
        idle_seconds=2,
        environment=LEASE,
        asynchronous=AsyncConfig(duplicate_every=DUPLICATE_EVERY),
    )
    front, caller = await deploy_front(gpu)
    jobs = [Job(number) for number in range(TASKS)]

    began = time.monotonic()
    handing_in = asyncio.create_task(hand_in(caller, jobs))
    first = jobs[0]
    await until(lambda: gpu.queue.tasks)
    async with caller.http.get(f"/api/tasks/{first.id}/events") as stream:
        followed = asyncio.create_task(stream.read())  # an event stream is open all the while, too
        await handing_in
        records, polls = await poll_to_the_end(caller, jobs)
        assert b'"state":"succeeded"' in await followed
    seconds = time.monotonic() - began

    for job in jobs:
        record = records[job.id]
        assert (record["state"], outcomes(record)) == ("succeeded", ["succeeded"]), record
        job.check((await caller.output(job.id, 0)).body)
    for task in tuple(gpu.queue.tasks):
        await gpu.queue.ended(task, DEADLINE_SECONDS)
    assert {task.state for task in gpu.queue.tasks.values()} == {TaskState.SUCCEEDED}
    assert saved_pictures(gpu) == Counter({job.id: 1 for job in jobs}), "each ran once"

    # The GPU function saw runs and the platform's own requests, and nothing else.
    assert set(gpu.delivered()) <= {"POST /api/run", "POST /initialize", "GET /healthz", "GET /pre-stop"}
    deliveries = gpu.delivered().count("POST /api/run")
    assert deliveries == TASKS + TASKS // DUPLICATE_EVERY
    asked = [path for path in front.delivered() if path.startswith("GET /api/")]
    assert len(asked) >= polls
    assert "comfyui.simulator" not in front.log_text, "a front has no engine"

    await gpu.fleet.drained(seconds=DEADLINE_SECONDS)
    assert most_at_once(gpu) == INSTANCES
    print(
        f"\n{TASKS} tasks of {JOB_SECONDS:g} s in {deliveries} deliveries, 0 to {INSTANCES} to 0 instances:"
        f" {seconds:.1f} s from the first request to the last result, {polls} polls of the front and none of a GPU,"
        f" {gpu.fleet.billed_seconds} GPU seconds billed for {TASKS * JOB_SECONDS:g} s of work"
    )


KILLS = 3 if not IS_LONG else 12


@pytest.mark.timeout(60 + 2 * DEADLINE_SECONDS)
async def test_tasks_finish_although_instances_are_killed_in_their_runs(
    deploy_gpu: Deploy, deploy_front: Deploy
) -> None:
    gpu, _ = await deploy_gpu(
        max_instances=INSTANCES,
        instance_concurrency=CONCURRENCY,
        asynchronous=AsyncConfig(max_retries=8, duplicate_every=DUPLICATE_EVERY),
        # A task that was lost several times, also to a machine too busy to extend a lease, still has attempts left.
        environment={"AGENT_MAX_ATTEMPTS": "20"},
    )
    _, caller = await deploy_front(gpu)
    jobs = [Job(5000 + number) for number in range(TASKS)]
    handing_in = asyncio.create_task(hand_in(caller, jobs))
    polling = asyncio.create_task(poll_to_the_end(caller, jobs))
    killed = 0
    while killed < KILLS and not polling.done():
        working = [i for i in gpu.fleet.alive if i.phase is Phase.READY and i.taken]
        if working:
            await working[killed % len(working)].kill()
            killed += 1
        await asyncio.sleep(JOB_SECONDS * 2)  # some work gets done between two kills
    await handing_in
    records, _ = await polling
    assert killed
    for job in jobs:
        *before, last = outcomes(records[job.id])
        assert (last, set(before) - {"lost"}) == ("succeeded", set()), records[job.id]
        job.check((await caller.output(job.id, 0)).body)
    for task in tuple(gpu.queue.tasks):
        assert (await gpu.queue.ended(task, DEADLINE_SECONDS)).state is TaskState.SUCCEEDED
    lost = sum(len(record["attempts"]) - 1 for record in records.values())
    print(f"\n{TASKS} tasks, {killed} instances killed at work: {lost} attempts lost, every task finished")


# --- The curve -----------------------------------------------------------------------------------------------------


async def throughput(deploy_gpu: Deploy, deploy_front: Deploy, instances: int, tasks_each: int) -> float:
    """Tasks a second over so many instances that are up already."""
    gpu, _ = await deploy_gpu(
        name=f"gpu-{instances}",
        max_instances=instances,
        instance_concurrency=CONCURRENCY,
        environment=LEASE,
    )
    _, caller = await deploy_front(gpu, name=f"front-{instances}")
    (await caller.get("/healthz")).ok()
    for _ in range(instances):
        gpu.fleet.provision()
    await until(lambda: [i.phase for i in gpu.fleet.instances] == [Phase.READY] * instances, DEADLINE_SECONDS)
    jobs = [Job(instances * 1000 + number) for number in range(instances * tasks_each)]
    began = time.monotonic()
    polling = asyncio.create_task(_hand_in_and_poll(caller, jobs))
    await until(lambda: len(gpu.queue.tasks) == len(jobs), DEADLINE_SECONDS)
    for task in tuple(gpu.queue.tasks):
        await gpu.queue.ended(task, DEADLINE_SECONDS)
    seconds = time.monotonic() - began
    await polling
    await asyncio.gather(gpu.fleet.close(), return_exceptions=True)
    return len(jobs) / seconds


async def _hand_in_and_poll(caller: Caller, jobs: list[Job]) -> None:
    await hand_in(caller, jobs)
    await poll_to_the_end(caller, jobs)


@pytest.mark.skipif(
    not IS_LONG, reason="measures speed, for minutes; set GATEWAY_TASKS=200 GATEWAY_INSTANCES=8"
)
@pytest.mark.timeout(1800)
async def test_throughput_grows_with_the_instances(deploy_gpu: Deploy, deploy_front: Deploy) -> None:
    counts = [n for n in (1, 2, 4, 8, 16) if n <= INSTANCES]
    curve = {n: await throughput(deploy_gpu, deploy_front, n, tasks_each=12) for n in counts}
    print(f"\n{'instances':>9} {'tasks/s':>8} {'ideal':>8} {'share':>6}")
    for n, rate in curve.items():
        print(f"{n:>9} {rate:>8.2f} {n / JOB_SECONDS:>8.2f} {rate * JOB_SECONDS / n:>6.0%}")
    rates = list(curve.values())
    assert rates == sorted(rates)
    assert rates[-1] > rates[0] * counts[-1] / 3, "far from growing with the instances"
