"""Many tasks from many callers on two agents, while engines die, sockets break and Redis restarts at random.

A short form runs with the suite; SOAK_TASKS=500 is the long one, and SOAK_SEED=N repeats one (as far as chance in
two kernels and five processes can be repeated). The plan and the faults come from the seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from redis.asyncio import Redis

from tests.integration.agent.graphs import Graph, rgb
from tests.integration.agent.pictures import look, unb64
from tests.integration.reliability.fleet import ENDED, AgentProcess, instances, ready, slow, until
from tests.integration.reliability.proxy import TcpProxy
from tests.redis_server import RedisServer

USUAL_TASKS = 60
TASKS = int(os.environ.get("SOAK_TASKS", USUAL_TASKS))
SEED = int(os.environ.get("SOAK_SEED", "7"))
CALLERS = 16
DEADLINE_SECONDS = 30 + TASKS

#: The supervisor calls five deaths within five minutes a crash loop, which is a fault of its own with a test of its own.
KILLS_EACH = 2 if TASKS < 200 else 4

#: What an agent's memory may have grown by: buffers and arenas that the allocator keeps; a leak of one picture and
#: its record a task would be more than this in the long form.
MARGIN_BYTES = 24 * 2**20

#: Errors after which a caller sends the task again, as the answer tells him to.
SEND_AGAIN = (429, 500, 502, 503)


@dataclass(frozen=True)
class Plan:
    """One task as its caller sends it."""

    number: int
    kind: str  #: sync, async or ws
    targets: tuple[int, ...]  #: the agents that get it, at the same time
    color: int
    size: tuple[int, int]
    steps: int
    is_cancelled: bool

    @property
    def id(self) -> str:
        return f"soak-{self.number:04}"

    @property
    def graph(self) -> Graph:
        graph = slow(self.steps, 0.01, color=self.color, prefix=self.id)
        graph["1"]["inputs"] |= {"width": self.size[0], "height": self.size[1]}
        return graph


def plan_all(rng: random.Random) -> list[Plan]:
    return [
        Plan(
            number=number,
            kind=rng.choice(["sync", "async", "ws"]),
            targets=(0, 1) if rng.random() < 0.2 else (rng.randrange(2),),
            color=(number * 7919) % 0xFFFFFF + 1,
            size=(8 + number % 50, 8 + number // 50),
            steps=rng.randrange(2, 25),
            is_cancelled=rng.random() < 0.05,
        )
        for number in range(TASKS)
    ]


@dataclass
class Fleet:
    """What the soak runs on, and what it noted."""

    agents: list[AgentProcess]
    redis: RedisServer
    proxy: TcpProxy
    faults: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)


def check_pixels(plan: Plan, data: bytes) -> None:
    image = look(data).convert("RGB")
    assert image.size == plan.size, f"{plan.id}: somebody else's picture"
    assert image.getcolors(maxcolors=1) == [(plan.size[0] * plan.size[1], rgb(plan.color))], plan.id


def check_result(plan: Plan, body: Any) -> None:
    (result,) = body["3"]["results"]
    check_pixels(plan, unb64(result))


# --- Callers -------------------------------------------------------------------------------------------------------


async def call(fleet: Fleet, plan: Plan, agent: AgentProcess, rng: random.Random) -> str:
    """Deliver one task until it ends; the final state as this caller sees it."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(aiohttp.ClientConnectionError):
            status, state = await CALLS[plan.kind](fleet, plan, agent)
            fleet.answers[f"{plan.kind} {status}"] += 1
            if state is not None:
                return state
        await asyncio.sleep(rng.uniform(0.05, 0.3))  # a caller who was told to come again
        agent = fleet.agents[rng.randrange(2)]  # as a gateway would choose
    raise AssertionError(f"{plan.id} did not end")


async def call_sync(fleet: Fleet, plan: Plan, agent: AgentProcess) -> tuple[int, str | None]:
    answer = await agent.run(plan.graph, plan.id)
    if answer.status == 200:
        check_result(plan, answer.json)
        return 200, "succeeded"
    if answer.status == 410:
        return 410, "cancelled"
    assert answer.status in SEND_AGAIN, answer.body
    assert answer.json["error"]["transient"], answer.body
    return answer.status, None


async def call_async(fleet: Fleet, plan: Plan, agent: AgentProcess) -> tuple[int, str | None]:
    answer = await agent.submit(plan.graph, plan.id)
    if answer.status != 202:
        assert answer.status in SEND_AGAIN, answer.body
        return answer.status, None
    other = fleet.agents[agent is fleet.agents[0]]
    if plan.is_cancelled:
        await other.cancel(plan.id)
    record = await other.until(plan.id, lambda r: r["state"] in ENDED, DEADLINE_SECONDS)
    if record["state"] == "failed":
        assert record["error"]["transient"], record
        return 202, None
    return 202, str(record["state"])


async def call_ws(fleet: Fleet, plan: Plan, agent: AgentProcess) -> tuple[int, str | None]:
    async with agent.http.ws_connect("/api/run/ws", headers={"task-id": plan.id}) as socket:
        await socket.send_json(plan.graph)
        async with asyncio.timeout(DEADLINE_SECONDS):
            async for message in socket:
                found = json.loads(message.data)
                match found["type"]:
                    case "result":
                        check_result(plan, found["data"])
                        return 200, "succeeded"
                    case "error" if found["data"]["message"] == "TaskCancelled":
                        return 410, "cancelled"
                    case "error":
                        assert found["data"]["error"]["transient"], found
                        return 503, None
    return 0, None


CALLS = {"sync": call_sync, "async": call_async, "ws": call_ws}


async def deliver(fleet: Fleet, plan: Plan, rng: random.Random) -> set[str]:
    """All deliveries of one task; the final states that their callers saw."""
    return set(
        await asyncio.gather(*(call(fleet, plan, fleet.agents[target], rng) for target in plan.targets))
    )


# --- Faults --------------------------------------------------------------------------------------------------------


async def do_harm(fleet: Fleet, rng: random.Random, over: asyncio.Event) -> None:
    """One fault after another, each with its end, until it is over."""
    kills = [target for target in (0, 1) for _ in range(KILLS_EACH)]
    rng.shuffle(kills)
    while not over.is_set():
        await asyncio.sleep(
            rng.uniform(0.1, 0.5) if TASKS < 200 else rng.uniform(0.3, 1.5)
        )  # between two faults
        match rng.choice(["kill", "cut", "stall", "restart", "drop"]):
            case "kill" if kills:
                pid = fleet.agents[kills.pop()].engine_pid
                if pid is not None:
                    psutil.Process(pid).kill()
                    fleet.faults["engine killed"] += 1
            case "cut":
                fleet.proxy.cut()
                fleet.faults["sockets to Redis cut"] += 1
            case "stall":
                fleet.proxy.stall()
                await asyncio.sleep(rng.uniform(0.1, 0.5))  # the stall
                fleet.proxy.resume()
                fleet.faults["sockets to Redis stalled"] += 1
            case "restart":
                await asyncio.to_thread(fleet.redis.stop)
                await asyncio.sleep(rng.uniform(0, 0.4))  # the outage
                await asyncio.to_thread(fleet.redis.start)
                fleet.faults["Redis restarted"] += 1
            case "drop":
                event = rng.choice(["progress", "executing", "executed", "execution_success"])
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    await fleet.agents[rng.randrange(2)].engine.fault(f"drop-socket@event={event},times=1")
                    fleet.faults["engine's socket cut"] += 1


# --- What must be true afterwards ----------------------------------------------------------------------------------


def logged_ids(agent: AgentProcess, *events: str) -> list[str]:
    return [entry["task_id"] for event in events for entry in agent.logged(event)]


def has_stored_all(agent: AgentProcess) -> bool:
    """Whether each result that had to wait for Redis has come to an end."""
    late = Counter(logged_ids(agent, "task.not_stored_yet"))
    return late <= Counter(logged_ids(agent, "task.stored_late", "task.not_stored"))


async def check_record(fleet: Fleet, plan: Plan, seen: set[str]) -> dict[str, Any]:
    """The task has one final state, the same everywhere, and its pixels."""
    a, b = fleet.agents
    record: dict[str, Any] = await a.task(plan.id)
    assert await b.task(plan.id) == record
    assert {record["state"]} == seen, f"{plan.id}: the callers were told {seen}, the record says {record}"
    for agent in fleet.agents:
        answer = await agent.status(plan.id)
        if record["state"] == "succeeded":
            check_result(plan, answer.json)
        else:
            answer.error(410, "TaskCancelled")
    return record


def check_attempts(fleet: Fleet, plan: Plan, record: dict[str, Any]) -> None:
    """At no time did two attempts go on, and only the last one succeeded."""
    attempts = record["attempts"]
    for one, next_one in pairwise(attempts):
        assert one["outcome"] in ("lost", "failed"), record
        assert one["ended_at"] <= next_one["started_at"], f"{plan.id}: two attempts at once: {record}"
    assert attempts[-1]["outcome"] == record["state"], record
    # Each engine saves its pictures in a folder of its own, under the task's name.
    engines = sum(agent.executed_saves(plan.id) > 0 for agent in fleet.agents)
    assert engines <= len(set(instances(record))), f"{plan.id} ran on an engine without an attempt: {record}"


async def check_store(fleet: Fleet) -> None:
    """No lease is left, and no claim without one."""
    async with Redis.from_url(fleet.redis.url) as client:
        keys = [key.decode() async for key in client.scan_iter()]
        assert [key for key in keys if key.endswith(":lease")] == []
        for key in (key for key in keys if key.endswith(":task")):
            assert not await client.hexists(key, "holder"), f"{key} is still claimed"


async def behave(agent: AgentProcess) -> None:
    """Take the faults back. An engine that was killed last may be gone, and its agent not know it yet."""
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                return await agent.engine.fault()
            await asyncio.sleep(0.05)  # until it is started again


async def settle(fleet: Fleet) -> None:
    fleet.proxy.resume()
    await ready(*fleet.agents)
    for agent in fleet.agents:
        await behave(agent)
        await agent.freed(30)
        await until(lambda agent=agent: has_stored_all(agent))


@contextlib.asynccontextmanager
async def fleet_of(folder: Path) -> AsyncIterator[Fleet]:
    (folder / "redis").mkdir()
    redis = RedisServer(folder / "redis", durable=True)
    redis.start()
    try:
        async with TcpProxy(redis.port) as proxy, contextlib.AsyncExitStack() as stack:
            environment = {
                "REDIS_URL": f"redis://127.0.0.1:{proxy.port}/0",
                "AGENT_REDIS_TIMEOUT_SECONDS": "1",
                "AGENT_LEASE_SECONDS": "5",  # longer than any outage, so that no task is taken over while it runs
                "AGENT_MAX_ATTEMPTS": "9",
                "AGENT_QUEUE_SIZE": "6",  # small, so that callers are refused too
                "AGENT_ENGINE_STALL_SECONDS": "10",
            }
            agents = [
                await stack.enter_async_context(AgentProcess(folder / name, **environment)) for name in "ab"
            ]
            await ready(*agents)
            yield Fleet(agents, redis, proxy)
    finally:
        redis.stop()


async def warm_up(fleet: Fleet) -> None:
    """Let each agent import, connect and fill what it keeps, before its memory is looked at."""
    for number, agent in enumerate(fleet.agents * min(15, TASKS)):
        plan = Plan(9000 + number, "sync", (0,), number + 1, (8, 8), 1, is_cancelled=False)
        check_result(plan, (await agent.run(plan.graph, plan.id)).json)


@pytest.mark.timeout(60 + 3 * DEADLINE_SECONDS)
async def test_every_task_ends_once_with_its_own_picture_whatever_breaks(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    plans = plan_all(rng)
    async with fleet_of(tmp_path) as fleet:
        await warm_up(fleet)
        memory = [agent.rss for agent in fleet.agents]
        began = time.monotonic()
        over = asyncio.Event()
        harm = asyncio.create_task(do_harm(fleet, random.Random(SEED + 1), over))
        waiting, seen = iter(plans), {}

        async def caller(number: int) -> None:
            mine = random.Random(SEED + 100 + number)
            for plan in waiting:
                seen[plan.id] = await deliver(fleet, plan, mine)

        try:
            await asyncio.gather(*(caller(number) for number in range(CALLERS)))
        finally:
            over.set()
            await harm
        seconds = time.monotonic() - began
        await settle(fleet)

        attempts: Counter[int] = Counter()
        for plan in plans:
            assert len(seen[plan.id]) == 1, f"{plan.id}: its callers were told {seen[plan.id]}"
            record = await check_record(fleet, plan, seen[plan.id])
            check_attempts(fleet, plan, record)
            attempts[len(record["attempts"])] += 1
        assert [logged_ids(agent, "task.not_stored") for agent in fleet.agents] == [[], []], (
            "a task ran twice"
        )
        await check_store(fleet)
        for state in ("running", "queued"):
            for agent in fleet.agents:
                listed = (await agent.get("/api/tasks", params={"state": state})).ok()["tasks"]
                assert listed == []
        for agent in fleet.agents:
            assert len(psutil.Process(agent.process.pid).children(recursive=True)) == 1, "processes are left"
        grown = [agent.rss - before for agent, before in zip(fleet.agents, memory, strict=True)]
        report = {
            "tasks": TASKS,
            "deliveries": sum(len(plan.targets) for plan in plans),
            "seconds": round(seconds, 1),
            "states": dict(Counter(state for states in seen.values() for state in states)),
            "faults": dict(fleet.faults),
            "attempts": dict(sorted(attempts.items())),
            "answers": dict(fleet.answers),
            "memory_mb": [round(before / 2**20, 1) for before in memory],
            "grown_mb": [round(number / 2**20, 1) for number in grown],
        }
        print(json.dumps(report))
        if TASKS >= USUAL_TASKS:  # fewer may be over before anything has been killed
            assert fleet.faults["engine killed"] > 0
        assert max(grown) < MARGIN_BYTES, report
