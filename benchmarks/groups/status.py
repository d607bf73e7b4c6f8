"""The status path: how many polls an agent answers on one core, and how soon many event streams see an end."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator

from benchmarks.bench import Bench
from benchmarks.caller import Caller
from benchmarks.figures import Figure, Sense, Target, percentile, quartiles
from benchmarks.jobs import Job
from benchmarks.pairs import agent_request
from benchmarks.places import running_on
from benchmarks.setup import Setup, running_front
from benchmarks.wire import SILENT_SECONDS, open_streams, poll

GROUP = "status"

#: Connections that poll at the same time, and seconds of each of the turns in which agent and engine are polled.
CONNECTIONS, TURN_SECONDS, TURNS = 16, 1.5, 4

STREAMS = 500

#: How long the followed task works: its streams must all be open before its end.
STREAMED_SECONDS = 4.0
QUICK_SECONDS = 0.5

ROUNDS = 3

#: Between the end of a task, as its record says it, and the last byte of the event that tells it.
SEEN = Target(limit=200)


async def measure(bench: Bench) -> AsyncIterator[Figure]:
    """Polls of a finished task, and of the same prompt at ComfyUI itself; then streams of a front before an agent."""
    for name, with_redis in (("memory", False), ("Redis", True)):
        async with bench.setup(with_redis=with_redis) as setup:
            async for figure in _polls(bench, setup, name):
                yield figure
            if with_redis:
                with running_front(setup) as (_, url):
                    yield await _streams(bench, setup, url)


async def _polls(bench: Bench, setup: Setup, store: str) -> AsyncIterator[Figure]:
    job, places = Job("small image"), setup.places
    task_id, prompt_id = f"poll-{uuid.uuid4()}", str(uuid.uuid4())
    _, body = agent_request(setup, job)
    await setup.caller.run(body, **{"task-id": task_id})
    await setup.direct.run(setup.kind.graph(job, None), prompt_id)
    seconds, agent, direct = TURN_SECONDS if not bench.is_quick else 0.1, list[float](), list[float]()
    rates: dict[str, list[float]] = {"agent": [], "direct": []}
    await poll(f"{setup.agent_url}/api/tasks/{task_id}", CONNECTIONS, seconds / 3)
    for _ in range(bench.scaled(TURNS, 1)):
        with running_on(places.caller):
            found = await poll(f"{setup.agent_url}/api/tasks/{task_id}", CONNECTIONS, seconds)
        agent += found
        rates["agent"].append(len(found) / seconds)
        with running_on(places.direct):
            found = await poll(f"{setup.engine_url}/history/{prompt_id}", CONNECTIONS, seconds)
        direct += found
        rates["direct"].append(len(found) / seconds)
    per_second = {name: sum(each) / len(each) for name, each in rates.items()}
    low, high = quartiles(rates["agent"])
    yield Figure(
        group=GROUP,
        name=f"polls, {store}",
        value=per_second["agent"],
        unit="/s",
        low=low,
        high=high,
        samples=len(agent),
        direct=per_second["direct"],
        agent=per_second["agent"],
        unit_of_both="/s",
        target=Target(sense=Sense.AT_LEAST),
    )
    p99 = {name: 1000 * percentile(each, 99) for name, each in {"agent": agent, "direct": direct}.items()}
    yield Figure(
        group=GROUP,
        name=f"polls, {store}: p99 with {CONNECTIONS} connections",
        value=p99["agent"],
        unit="ms",
        samples=len(agent),
        direct=p99["direct"],
        agent=p99["agent"],
    )


async def _streams(bench: Bench, setup: Setup, front_url: str) -> Figure:
    """Milliseconds after which the last one of all streams saw the end; the worst of several rounds."""
    count = bench.scaled(STREAMS, 20)
    rounds = []
    for _ in range(bench.scaled(ROUNDS, 1)):
        with running_on(setup.places.caller):
            rounds.append(await _last_seen(bench, setup, front_url, count))
    return Figure(
        group=GROUP,
        name=f"{count} event streams of one front: the last one sees the end",
        value=max(rounds),
        unit="ms",
        low=min(rounds),
        high=max(rounds),
        samples=len(rounds),
        target=SEEN,
    )


async def _last_seen(bench: Bench, setup: Setup, front_url: str, count: int) -> float:
    task_id = f"stream-{uuid.uuid4()}"
    job = Job("followed", QUICK_SECONDS if bench.is_quick else STREAMED_SECONDS)
    _, body = agent_request(setup, job)
    async with Caller(front_url) as caller:
        await caller.run(body, **{"task-id": task_id, "Prefer": "respond-async"})
    streams, transports = await open_streams(f"{front_url}/api/tasks/{task_id}/events", count)
    try:
        async with asyncio.timeout(SILENT_SECONDS):
            ends = await asyncio.gather(*(stream.ended_at for stream in streams))
    finally:
        for transport in transports:
            transport.close()
    ended_at = float(json.loads(streams[0].tail.rpartition(b"data: ")[2].splitlines()[0])["finished_at"])
    return 1000 * (max(ends) - ended_at)
