"""Webhooks behind the platform: an instance sleeps as soon as no request is open, so all is told before that."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.gateway.caller import PATIENCE_SECONDS, Caller
from tests.gateway.conftest import Deploy
from tests.gateway.function import AsyncConfig
from tests.gateway.test_agent_async import invoked
from tests.integration.agent.graphs import BLUE, RED, painted
from tests.integration.agent.receiver import SECRET, Receiver
from tests.integration.reliability.fleet import slow

TOLD = {"AGENT_FETCH_ALLOW": "127.0.0.1", "AGENT_WEBHOOK_SECRETS": SECRET}


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver().listening() as listening:
        yield listening


async def told(caller: Caller, task_id: str) -> tuple[str, int]:
    webhook = (await caller.task(task_id))["webhook"]
    return webhook["state"], webhook["attempts"]


async def test_end_is_told_before_the_instance_sleeps_also_when_that_takes_two_tries(
    deploy_gpu: Deploy, receiver: Receiver
) -> None:
    function, caller = await deploy_gpu(environment=TOLD)
    receiver.answers = [500]
    await invoked(function, caller, {"prompt": painted(RED), "webhook": f"{receiver.url}?a=1"}, "told")
    assert [message.verified()["type"] for message in receiver.messages] == ["task.succeeded"] * 2
    assert len({message.id for message in receiver.messages}) == 1
    assert await told(caller, "told") == ("delivered", 2)
    await function.queue.deliver_again("told")
    assert len(receiver.messages) == 2


async def test_refusal_that_reaches_no_caller_reaches_the_default_webhook(
    deploy_gpu: Deploy, receiver: Receiver
) -> None:
    function, caller = await deploy_gpu(environment={**TOLD, "AGENT_WEBHOOK_URL": receiver.url})
    await invoked(function, caller, b"{", "bad-json")
    (message,) = receiver.messages
    assert message.verified()["data"]["error"]["code"] == "InvalidJson"
    assert await told(caller, "bad-json") == ("delivered", 1)


async def test_delivery_that_comes_twice_tells_the_end_once(deploy_gpu: Deploy, receiver: Receiver) -> None:
    function, caller = await deploy_gpu(
        max_instances=2,
        instance_concurrency=1,
        asynchronous=AsyncConfig(duplicate_every=1),
        environment=TOLD,
    )
    # The first duplicate comes beside its original, on another instance; the second one after its end.
    for number in range(2):
        body = {"prompt": slow(30), "webhook": receiver.url}
        await invoked(function, caller, body, f"twice-{number}")
        assert len(receiver.about(f"twice-{number}")) == 1
        assert await told(caller, f"twice-{number}") == ("delivered", 1)


async def test_failure_that_is_delivered_again_is_told_apart_from_the_success_that_follows(
    deploy_gpu: Deploy, receiver: Receiver
) -> None:
    function, caller = await deploy_gpu(
        "--fault",
        "oom@node=1,times=2",
        asynchronous=AsyncConfig(retry_seconds=0.01),
        environment=TOLD,
    )
    await invoked(function, caller, {"prompt": painted(BLUE), "webhook": receiver.url}, "transient")
    failed, succeeded = receiver.messages
    assert failed.verified()["data"]["error"]["transient"] is True
    assert succeeded.verified()["type"] == "task.succeeded"
    assert failed.id != succeeded.id


async def test_front_and_function_tell_an_asynchronous_end_once(
    deploy_gpu: Deploy, deploy_front: Deploy, receiver: Receiver
) -> None:
    gpu, _ = await deploy_gpu(environment=TOLD)
    _, caller = await deploy_front(gpu, environment=TOLD)
    body = {"prompt": painted(RED), "webhook": receiver.url}
    assert (await caller.hand_in(body, "through")).status == 202
    await caller.until("through", lambda r: r["webhook"]["state"] == "delivered", 40)
    (message,) = receiver.messages
    assert message.verified()["type"] == "task.succeeded"


async def test_task_that_no_instance_will_finish_is_ended_and_told_at_the_next_poll_of_a_frozen_front(
    deploy_gpu: Deploy, deploy_front: Deploy, receiver: Receiver
) -> None:
    told = {**TOLD, "AGENT_DELIVERY_SECONDS": "4"}
    gpu, _ = await deploy_gpu(asynchronous=AsyncConfig(max_retries=0), environment=told)
    front, caller = await deploy_front(gpu, environment=told)
    body = {"prompt": slow(1000), "webhook": receiver.url}
    assert (await caller.hand_in(body, "orphan")).status == 202
    await caller.until_running("orphan", PATIENCE_SECONDS)
    await gpu.fleet.alive[0].kill()
    record = await caller.until("orphan", lambda r: r["webhook"]["state"] == "delivered", PATIENCE_SECONDS)
    assert (record["state"], record["error"]["code"]) == ("failed", "InstanceLost")
    assert record["finished_at"] is not None
    (message,) = receiver.messages
    assert message.verified()["type"] == "task.failed"
    assert not gpu.fleet.alive, "no GPU was needed for it"
    assert len(front.fleet.instances) == 1
