"""A cancel from anywhere ends this task and no other, also in the moment in which it ends by itself."""

from __future__ import annotations

import asyncio
import json

import aiohttp

from tests.integration.agent.graphs import GREEN, RED, fresh_color, painted, rgb
from tests.integration.agent.pictures import color_of
from tests.integration.agent.service import PATIENCE_SECONDS, eventually
from tests.integration.reliability.conftest import MakeAgent
from tests.integration.reliability.fleet import ENDED, AgentProcess, Clock, outcomes, slow

Pair = tuple[AgentProcess, AgentProcess]

#: The engine looks at an interrupt at each step (0.02 s); the rest is room for a busy machine.
CANCEL_SECONDS = PATIENCE_SECONDS


async def test_running_task_is_cancelled_from_another_instance_and_its_neighbour_goes_on(pair: Pair) -> None:
    a, b = pair
    caller = asyncio.create_task(a.run(slow(500), "cancel-far"))
    await a.running("cancel-far")
    neighbour = asyncio.create_task(a.run(slow(5, color=GREEN), "cancel-neighbour"))
    assert await cancelled(b, "cancel-far")
    (await caller).error(410, "TaskCancelled")
    assert color_of((await neighbour).results("3")[0]) == rgb(GREEN)
    assert outcomes(await b.task("cancel-far")) == ["cancelled"]


async def test_waiting_task_is_cancelled_without_touching_the_running_one(pair: Pair) -> None:
    a, b = pair
    running = asyncio.create_task(a.run(slow(30, color=RED), "cancel-running"))
    await a.running("cancel-running")
    # Of these two one waits in the engine's queue and one in the agent's.
    waiting = [asyncio.create_task(a.run(slow(500), f"cancel-waiting-{n}")) for n in range(2)]
    for n in range(2):
        await b.until(f"cancel-waiting-{n}", lambda r: r["state"] == "queued")
    for n in range(2):
        assert await cancelled(b, f"cancel-waiting-{n}")
    for caller in waiting:
        (await caller).error(410, "TaskCancelled")
    assert color_of((await running).results("3")[0]) == rgb(RED)


async def cancelled(agent: AgentProcess, task_id: str) -> bool:
    """Cancel; whether that is what came of the task. The answer does not wait for a busy machine."""
    (await agent.cancel(task_id)).ok()
    return bool((await agent.until(task_id, lambda r: r["state"] in ENDED))["state"] == "cancelled")


async def test_cancel_that_races_with_the_end_leaves_exactly_one_of_both(pair: Pair) -> None:
    """A hundred quick tasks, each cancelled at a moment around its end; between them neighbours that nobody cancels."""
    a, b = pair

    async def one(n: int, spread: float) -> str:
        runner, canceller = (a, b) if n % 2 else (b, a)
        color, task_id = fresh_color(), f"race-{n}"
        await runner.begin(painted(color), task_id)
        await asyncio.sleep(n % 20 * spread)  # the race: from long before the end to long after it
        where = canceller if n % 3 else runner
        told = (await where.cancel(task_id)).ok()["state"]
        record = await runner.until(task_id, lambda r: r["state"] in ENDED)
        assert told in (record["state"], "queued", "running"), "what the cancel answered is not what is kept"
        assert record["state"] in ("succeeded", "cancelled"), record
        assert outcomes(record) == [record["state"]]
        seen = await canceller.task(task_id)
        assert seen["state"] == record["state"], "the two instances disagree"
        if record["state"] == "succeeded":
            assert color_of((await canceller.status(task_id)).results("2")[0]) == rgb(color)
        else:
            (await canceller.status(task_id)).error(410, "TaskCancelled")
        return str(record["state"])

    async def neighbour(n: int) -> None:
        color = fresh_color()
        answer = await (a, b)[n % 2].run(painted(color), f"race-neighbour-{n}")
        assert color_of(answer.results("2")[0]) == rgb(color)

    states: list[str] = []
    spread = 0.02
    while len(states) < 100:
        start = len(states)
        racers = [one(n, spread) for n in range(start, start + 20)]
        ended = await asyncio.gather(*racers, *(neighbour(n) for n in range(start, start + 4)))
        states += (latest := [state for state in ended if state])
        if len(set(latest)) == 1:  # the machine is quicker or slower than the cancels
            spread *= 3 if latest[0] == "cancelled" else 0.5
    assert {"succeeded", "cancelled"} == set(states), "the race was none"


async def test_caller_who_hangs_up_cancels_his_task_alone(pair: Pair) -> None:
    a, b = pair
    caller = asyncio.create_task(a.run(slow(500), "hung-up"))
    await a.running("hung-up")
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    record = await b.until("hung-up", lambda r: r["state"] in ENDED, CANCEL_SECONDS)
    assert record["state"] == "cancelled"
    await eventually(a.engine.is_idle, CANCEL_SECONDS)


async def test_caller_who_hangs_up_leaves_the_task_to_another_who_waits(pair: Pair) -> None:
    a, _ = pair
    graph = slow(40, color=RED)
    first = asyncio.create_task(a.run(graph, "shared"))
    await a.running("shared")
    second = asyncio.create_task(a.run(graph, "shared"))
    await asyncio.sleep(0.1)  # until the second one waits, which nothing shows
    first.cancel()
    assert color_of((await second).results("3")[0]) == rgb(RED)


async def test_caller_who_vanishes_from_the_websocket_cancels_his_task(pair: Pair) -> None:
    a, b = pair
    socket = await a.http.ws_connect("/api/run/ws", headers={"task-id": "vanished"})
    await socket.send_json(slow(500))
    await a.running("vanished")
    connection = socket._response.connection  # to vanish without a goodbye
    assert connection is not None
    assert connection.transport is not None
    connection.transport.abort()
    record = await b.until("vanished", lambda r: r["state"] in ENDED, CANCEL_SECONDS)
    assert record["state"] == "cancelled"
    await eventually(a.engine.is_idle, CANCEL_SECONDS)


async def test_close_on_the_websocket_cancels_the_task(pair: Pair) -> None:
    a, b = pair
    async with a.http.ws_connect("/api/run/ws", headers={"task-id": "closed"}) as socket:
        await socket.send_str(json.dumps(slow(500)))
        await a.running("closed")
        await socket.send_json({"type": "close"})
        async with asyncio.timeout(CANCEL_SECONDS):
            async for _ in socket:
                pass
    record = await b.until("closed", lambda r: r["state"] in ENDED, CANCEL_SECONDS)
    assert record["state"] == "cancelled"


async def test_task_over_its_time_ends_as_timeout_and_frees_the_engine(make_agent: MakeAgent) -> None:
    agent = await make_agent(AGENT_TASK_TIMEOUT_SECONDS=1)
    (await agent.run(slow(900), "late")).error(504, "TaskTimeout")
    await eventually(agent.engine.is_idle, CANCEL_SECONDS)
    assert outcomes(await agent.task("late")) == ["failed"]
    color = fresh_color()
    assert color_of((await agent.run(slow(3, color=color))).results("3")[0]) == rgb(color)


async def test_task_that_was_seen_as_failed_stays_failed_when_it_is_cancelled(
    make_agent: MakeAgent, pair: Pair
) -> None:
    second, _ = pair
    first = await make_agent(**second.fleet)
    await first.begin(slow(500), "orphan")
    await first.running("orphan")
    await first.kill()
    seen = await second.until("orphan", lambda r: r["state"] == "failed")
    assert seen["error"]["code"] == "InstanceLost"
    assert (await second.cancel("orphan")).ok()["state"] == "failed"
    kept = await second.task("orphan")
    assert (kept["state"], kept["error"]["code"]) == ("failed", "InstanceLost")


async def test_cancel_of_an_instance_that_is_frozen_answers_in_bounded_time(
    make_agent: MakeAgent, pair: Pair
) -> None:
    second, _ = pair
    first = await make_agent(AGENT_LEASE_SECONDS=2 * PATIENCE_SECONDS, **second.fleet)
    await first.begin(slow(500), "asleep")
    await second.until("asleep", lambda r: r["state"] == "running")
    first.pause()
    clock = Clock()
    assert (await second.cancel("asleep")).ok()["state"] == "running"
    assert clock.seconds < PATIENCE_SECONDS, "it waits for the owner"
    first.resume()
    record = await second.until("asleep", lambda r: r["state"] in ENDED)
    assert record["state"] == "cancelled", "the request stands until the owner is awake"
    await eventually(first.engine.is_idle)


async def test_stream_of_events_ends_with_the_cancel_on_every_instance(pair: Pair) -> None:
    a, b = pair
    await a.begin(slow(500), "streamed")
    await a.running("streamed")

    async def last_state(agent: AgentProcess) -> str:
        timeout = aiohttp.ClientTimeout(total=PATIENCE_SECONDS)
        async with agent.http.get("/api/tasks/streamed/events", timeout=timeout) as response:
            lines = [line async for line in response.content if line.startswith(b"data: ")]
        return str(json.loads(lines[-1][6:])["state"])

    streams = [asyncio.create_task(last_state(agent)) for agent in (a, b)]
    await asyncio.sleep(0.1)  # until both are followed, which nothing shows
    await b.cancel("streamed")
    assert await asyncio.gather(*streams) == ["cancelled"] * 2
