"""Who waits for somebody else - another instance, another caller, a store, the engine - is answered in time."""

from __future__ import annotations

import asyncio
import time

import pytest

from agent.runner import PUT_BACK_SECONDS
from agent.tasks.record import State
from comfyui.execution import END_GRACE_SECONDS
from tests.integration.agent import graphs
from tests.integration.agent.conversation import events
from tests.integration.agent.pictures import color_of
from tests.integration.agent.service import PATIENCE_SECONDS, Agent, MakeAgent, eventually, take
from tests.integration.hardening.conftest import Ghost, record_of
from tests.integration.reliability.fleet import Clock
from tests.integration.reliability.proxy import Link, TcpProxy
from tests.redis_server import RedisServer

Settings = dict[str, object]

#: Longer than a busy machine needs to fetch a picture that is there.
SHUTDOWN_SECONDS = 15


async def test_delivery_that_joined_a_dead_instance_ends_when_the_store_is_gone_too(
    make_agent: MakeAgent, ghost: Ghost, fleet: Settings, private_redis: RedisServer
) -> None:
    agent = await make_agent(**fleet)
    graph = graphs.painted()
    await ghost.take("orphan", graph, lease_seconds=30)
    joined = asyncio.create_task(agent.run(graph, "orphan"))
    await eventually(lambda: ghost.is_watched("orphan"))
    await asyncio.to_thread(private_redis.stop)
    (await asyncio.wait_for(joined, PATIENCE_SECONDS)).error(503, "StoreUnavailable")


@pytest.mark.parametrize(
    ("deliver_until", "state", "code"),
    [(None, "failed", "InstanceLost"), (1e11, "cancelled", "TaskCancelled")],
)
async def test_cancel_of_a_task_of_a_dead_instance_agrees_with_what_was_seen(
    make_agent: MakeAgent, ghost: Ghost, fleet: Settings, deliver_until: float | None, state: str, code: str
) -> None:
    """Where nobody delivers it again it had failed; where somebody would, it waited, and can be cancelled."""
    agent = await make_agent(**fleet)
    await ghost.take("dead", graphs.painted(), lease_seconds=0.1, deliver_until=deliver_until)
    await eventually(lambda: ghost.is_gone("dead"))
    seen = await agent.task("dead")
    assert seen["state"] == ("queued" if state == "cancelled" else "failed")
    assert (await agent.cancel("dead")).ok()["state"] == state
    kept = await agent.task("dead")
    assert (kept["state"], kept["error"]["code"]) == (state, code)


async def test_event_stream_of_an_instance_that_loses_the_task_ends_with_the_final_record(
    make_agent: MakeAgent, ghost: Ghost, fleet: Settings
) -> None:
    agent = await make_agent(**fleet)
    graph = graphs.stepping(steps=1000)
    await agent.begin(graph, "moved")
    await agent.running("moved")
    stream = asyncio.create_task(take(events(agent, "moved")))
    claim = await ghost.seize("moved", graph)

    async def has_given_way() -> bool:
        return (await agent.get("/api/queue")).ok()["running"] == []

    await eventually(has_given_way)
    final = record_of("moved", graph).changed(state=State.SUCCEEDED, finished_at=time.time())
    await ghost.store.write(claim, final)
    records = await stream
    assert (records[0]["state"], records[-1]["state"]) == ("running", "succeeded")


async def has_begun(agent: Agent, task_id: str) -> bool:
    answer = await agent.get(f"/api/tasks/{task_id}")
    return answer.status == 200 and answer.json["state"] != "queued"


async def test_delivery_that_comes_while_a_hang_up_is_settled_gets_the_result(
    make_agent: MakeAgent, fleet: Settings
) -> None:
    """The second one comes from long before to long after the moment in which the first one's end is decided."""
    agent = await make_agent(**fleet, max_attempts=2)

    async def hang_up_and_deliver(number: int) -> None:
        color, task_id = graphs.fresh_color(), f"again-{number}"
        graph = graphs.stepping(steps=8, seconds=0.01, color=color)
        first = asyncio.create_task(agent.run(graph, task_id))
        await eventually(lambda: has_begun(agent, task_id))
        first.cancel()
        await asyncio.sleep(number % 12 * 0.003)  # the race
        second = await agent.run(graph, task_id)
        assert color_of(*second.results("3")) == graphs.rgb(color)
        await asyncio.gather(first, return_exceptions=True)

    for number in range(24):
        await hang_up_and_deliver(number)


async def test_shutdown_without_the_store_ends_in_time_and_the_caller_has_his_pictures(
    make_agent: MakeAgent, fleet: Settings, private_redis: RedisServer
) -> None:
    agent = await make_agent(**fleet, invocation="gateway", shutdown_seconds=SHUTDOWN_SECONDS)
    run = asyncio.create_task(agent.run(graphs.stepping(steps=20, color=graphs.GREEN), "settles"))
    await agent.running_later("settles")
    await asyncio.to_thread(private_redis.stop)
    await eventually(agent.engine.is_idle)
    await asyncio.sleep(0.3)  # the agent fetches the picture, and tells nobody that it has it
    assert not run.done(), "it does not wait for the store"
    clock = Clock()
    assert (await agent.get("/pre-stop")).status == 200
    assert clock.seconds < SHUTDOWN_SECONDS + PUT_BACK_SECONDS
    answer = await asyncio.wait_for(run, PATIENCE_SECONDS)
    assert color_of(*answer.results("3")) == (0, 255, 0)
    assert answer.headers["x-fc-status"] == "404", "it is kept nowhere: the platform must bring it again"


class LatePrompts(TcpProxy):
    """Holds back what asks for a prompt until `gate` is set, and delivers it also when its sender has left."""

    def __init__(self, target_port: int) -> None:
        super().__init__(target_port)
        self.has_one, self.gate = asyncio.Event(), asyncio.Event()

    async def passing(self, chunk: bytes, link: Link, *, is_answer: bool) -> None:
        if not is_answer and b"POST /prompt" in chunk:
            link.is_abandoned = True  # the engine has its time to take it
            self.has_one.set()
            await self.gate.wait()


async def test_cancel_while_the_prompt_is_on_its_way_leaves_nothing_in_the_engine(
    make_agent: MakeAgent, agent: Agent
) -> None:
    async with LatePrompts(int(agent.engine.url.rpartition(":")[2])) as proxy:
        behind = await make_agent(comfyui_url=proxy.url)
        task_id = await behind.begin(graphs.stepping(steps=1000))
        async with asyncio.timeout(PATIENCE_SECONDS):
            await proxy.has_one.wait()
        assert (await behind.cancel(task_id)).ok()["state"] == "cancelled"
        await asyncio.sleep(
            3 * END_GRACE_SECONDS
        )  # by then who only asks the engine takes the prompt for lost
        before, asked = await agent.engine.number(), 0
        proxy.gate.set()

        async def has_arrived() -> bool:
            nonlocal asked
            asked += 1
            return await agent.engine.number() - before > asked

        await eventually(has_arrived)
        await eventually(agent.engine.is_idle)
    assert (await agent.run(graphs.painted())).status == 200
