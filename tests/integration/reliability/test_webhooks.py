"""A task's end is told at least once, whatever dies between the end and the receiver."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from tests.integration.agent.receiver import PATIENCE_SECONDS, SECRET, Receiver
from tests.integration.reliability.conftest import MakeAgent
from tests.integration.reliability.fleet import AgentProcess, slow
from tests.redis_server import RedisServer


@pytest_asyncio.fixture(loop_scope="session")
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver().listening() as listening:
        yield listening


def told(**environment: Any) -> dict[str, Any]:
    """Settings of an agent that tells of its tasks."""
    return {
        "AGENT_FETCH_ALLOW": "127.0.0.1",
        "AGENT_WEBHOOK_SECRETS": SECRET,
        "AGENT_WEBHOOK_TIMEOUT_SECONDS": PATIENCE_SECONDS,
        **environment,
    }


async def delivered(agent: AgentProcess, task_id: str) -> dict[str, Any]:
    record = await agent.until(task_id, lambda r: r["webhook"]["state"] == "delivered", PATIENCE_SECONDS)
    webhook: dict[str, Any] = record["webhook"]
    return webhook


async def test_end_that_a_killed_instance_did_not_tell_is_told_by_the_next_delivery(
    make_agent: MakeAgent, receiver: Receiver
) -> None:
    settings = told(AGENT_INVOCATION="gateway", AGENT_WEBHOOK_TIMEOUT_SECONDS=2)
    first, second = await asyncio.gather(make_agent(**settings), make_agent(**settings))
    body = {"prompt": slow(3), "webhook": f"{receiver.url}?token=1"}
    receiver.stall()
    delivery = asyncio.create_task(first.run(body, "untold"))
    await receiver.got()
    await first.kill()
    await asyncio.gather(delivery, return_exceptions=True)
    record = await second.task("untold")
    assert (record["state"], record["webhook"]["state"]) == ("succeeded", "pending")
    before = len(receiver.messages)  # more than one where the kill was slow

    receiver.release()
    (await second.run(body, "untold")).ok()
    record = await second.task("untold")
    assert (record["state"], record["webhook"]["state"]) == ("succeeded", "delivered")
    assert len(receiver.messages) == before + 1
    first_message, last = receiver.messages[0], receiver.messages[-1]
    assert first_message.id == last.id == record["webhook"]["id"], "the receiver can tell that it is the same"
    assert first_message.body == last.body
    assert last.path == "/hook?token=1"
    assert last.verified()["type"] == "task.succeeded"
    assert second.executed == 0, "the task is not run again for it"
    (await second.run(body, "untold")).ok()
    assert len(receiver.messages) == before + 1


async def test_delivery_that_waits_for_another_instances_task_leaves_telling_to_it(
    make_agent: MakeAgent, receiver: Receiver
) -> None:
    settings = told(AGENT_INVOCATION="gateway")
    first, second = await asyncio.gather(make_agent(**settings), make_agent(**settings))
    body = {"prompt": slow(50), "webhook": receiver.url}
    deliveries = [asyncio.create_task(first.run(body, "shared-end"))]
    await second.running_later("shared-end")
    deliveries.append(asyncio.create_task(second.run(body, "shared-end")))
    for answer in await asyncio.gather(*deliveries):
        answer.ok()
    assert len(receiver.messages) == 1
    assert (await second.task("shared-end"))["webhook"]["state"] == "delivered"


async def test_task_that_lost_all_its_instances_tells_that_it_failed(
    make_agent: MakeAgent, receiver: Receiver
) -> None:
    settings = told(AGENT_INVOCATION="gateway", AGENT_MAX_ATTEMPTS=1)
    first, second = await asyncio.gather(make_agent(**settings), make_agent(**settings))
    body = {"prompt": slow(500), "webhook": receiver.url}
    delivery = asyncio.create_task(first.run(body, "all-lost"))
    await first.running_later("all-lost")
    await first.kill()
    await asyncio.gather(delivery, return_exceptions=True)
    (await second.run(body, "all-lost")).error(503, "InstanceLost")
    (message,) = receiver.messages
    told_of = message.verified()
    assert (told_of["type"], told_of["data"]["error"]["code"]) == ("task.failed", "InstanceLost")
    assert (await second.task("all-lost"))["webhook"]["state"] == "delivered"


async def test_redis_that_is_restarted_while_an_end_is_told_learns_how_it_went(
    make_agent: MakeAgent, private_redis: RedisServer, receiver: Receiver
) -> None:
    agent = await make_agent(**told(REDIS_URL=private_redis.url))
    receiver.stall()
    (await agent.run({"prompt": slow(3), "webhook": receiver.url}, "restart")).ok()
    await receiver.got()
    await asyncio.to_thread(private_redis.stop)
    receiver.release()
    await asyncio.to_thread(private_redis.start)
    webhook = await delivered(agent, "restart")
    assert (webhook["attempts"], webhook["last_status"]) == (1, 204)
    assert len(receiver.messages) == 1


async def test_without_redis_the_end_of_a_synchronous_run_is_told_all_the_same(
    make_agent: MakeAgent, private_redis: RedisServer, receiver: Receiver
) -> None:
    agent = await make_agent(**told(REDIS_URL=private_redis.url))
    await asyncio.to_thread(private_redis.stop)
    answer = await agent.run({"prompt": slow(3), "webhook": receiver.url})
    answer.ok()
    (message,) = await receiver.got()
    assert message.verified()["type"] == "task.succeeded"
    await asyncio.to_thread(private_redis.start)
    webhook = await delivered(agent, answer.headers["task-id"])
    assert webhook["id"] == message.id, "the record comes late, with how it went"
    assert len(receiver.messages) == 1


async def test_sigterm_lets_a_message_arrive_that_is_on_its_way(
    make_agent: MakeAgent, receiver: Receiver
) -> None:
    agent, other = await asyncio.gather(
        make_agent(**told(AGENT_SHUTDOWN_SECONDS=PATIENCE_SECONDS)), make_agent()
    )
    receiver.stall()
    await agent.begin({"prompt": slow(3), "webhook": receiver.url}, "on-its-way")
    await receiver.got()
    stopping = asyncio.create_task(agent.stop(PATIENCE_SECONDS))
    await other.until("on-its-way", lambda r: r["state"] == "succeeded")
    receiver.release()
    assert await stopping == 0
    assert (await delivered(other, "on-its-way"))["attempts"] == 1
    assert len(receiver.messages) == 1
