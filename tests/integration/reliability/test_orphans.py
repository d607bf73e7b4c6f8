"""A task that nobody is left to end is ended, and its end told, by whoever is alive; nobody has to ask for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest_asyncio
from aiohttp import web

from agent.tasks.redis import RedisStore
from tests.integration.agent.receiver import PATIENCE_SECONDS, SECRET, Receiver
from tests.integration.reliability.conftest import MakeAgent
from tests.integration.reliability.fleet import AgentProcess, outcomes, slow
from tests.ports import free_port
from tests.redis_server import RedisServer
from tests.serving import serving

TOLD = {
    "AGENT_FETCH_ALLOW": "127.0.0.1",
    "AGENT_WEBHOOK_SECRETS": SECRET,
    "AGENT_WEBHOOK_TIMEOUT_SECONDS": PATIENCE_SECONDS,
}


@pytest_asyncio.fixture(loop_scope="session")
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver().listening() as listening:
        yield listening


@pytest_asyncio.fixture(loop_scope="session")
async def idle_function() -> AsyncIterator[str]:
    """The address of a function that takes every task and never runs it: 202 to what is to be queued, no answer to
    the rest."""

    async def take(request: web.Request) -> web.Response:
        await request.read()
        if "X-Fc-Invocation-Type" not in request.headers:
            await asyncio.Event().wait()
        return web.Response(status=202)

    async with serving(web.post("/api/run", take), port=free_port()) as url:
        yield url


async def fronts(
    make_agent: MakeAgent, count: int, url: str = "http://127.0.0.1:9", **environment: Any
) -> list[AgentProcess]:
    settings = {"AGENT_ROLE": "front", "AGENT_ENGINE_URL": url, **TOLD, **environment}
    return await asyncio.gather(*(make_agent(**settings) for _ in range(count)))


async def ended(receiver: Receiver, code: str, *alive: AgentProcess) -> dict[str, Any]:
    """The record, once the one message of its end has come. The receiver is who waits: nobody polls."""
    (message,) = await receiver.got()
    told = message.verified()
    assert (told["type"], told["data"]["error"]["code"]) == ("task.failed", code)
    agent, task_id = alive[0], message.task
    record = await agent.until(task_id, lambda r: r["webhook"]["state"] == "delivered", PATIENCE_SECONDS)
    assert (record["state"], record["error"]["code"]) == ("failed", code)
    assert record["finished_at"] >= record["created_at"]
    lines = [line for one in alive for line in one.logged("task.ended") if line["task_id"] == task_id]
    assert len(lines) == 1, "one of them ended it, once"
    assert len(receiver.messages) == 1
    return record


async def test_task_of_a_killed_instance_is_ended_and_told_though_nobody_asks(
    make_agent: MakeAgent, receiver: Receiver
) -> None:
    owner, engine, (front,) = await asyncio.gather(
        make_agent(**TOLD), make_agent(**TOLD), fronts(make_agent, 1)
    )
    await owner.submit({"prompt": slow(1000), "webhook": receiver.url}, "orphan")
    await owner.running("orphan")
    await owner.kill()
    record = await ended(receiver, "InstanceLost", front, engine)
    assert outcomes(record) == ["lost"]


async def test_instance_that_wakes_after_its_task_was_ended_changes_nothing(
    make_agent: MakeAgent, receiver: Receiver, tmp_path: Path
) -> None:
    (tmp_path / "nas").mkdir()
    shared = {"REDIS_URL": "", "AGENT_STORE_DIR": tmp_path / "nas"}
    owner, (front,) = await asyncio.gather(make_agent(**TOLD, **shared), fronts(make_agent, 1, **shared))
    await owner.submit({"prompt": slow(30), "webhook": receiver.url}, "late")
    await owner.running("late")
    owner.pause()
    record = await ended(receiver, "InstanceLost", front)
    owner.resume()
    await owner.freed()
    assert await front.task("late") == await owner.task("late") == record
    assert len(receiver.messages) == 1


async def test_end_that_a_killed_instance_did_not_tell_is_told_by_whoever_is_alive(
    make_agent: MakeAgent, receiver: Receiver
) -> None:
    owner, (front,) = await asyncio.gather(
        make_agent(**{**TOLD, "AGENT_WEBHOOK_TIMEOUT_SECONDS": 2}), fronts(make_agent, 1)
    )
    receiver.stall()
    await owner.submit({"prompt": slow(3), "webhook": receiver.url}, "untold")
    await receiver.got()
    await owner.kill()
    receiver.release()
    first, second = await receiver.got(2)
    assert first.id == second.id, "the receiver can tell that it is the same message"
    assert second.verified()["type"] == "task.succeeded"
    await front.until("untold", lambda r: r["webhook"]["state"] == "delivered", PATIENCE_SECONDS)


async def test_queued_task_that_is_never_delivered_is_ended_and_told(
    make_agent: MakeAgent, receiver: Receiver, idle_function: str
) -> None:
    alive = await fronts(make_agent, 1, idle_function, AGENT_DELIVERY_SECONDS=2)
    answer = await alive[0].submit({"prompt": slow(3), "webhook": receiver.url}, "undelivered")
    assert answer.status == 202
    record = await ended(receiver, "NotDelivered", *alive)
    assert record["attempts"] == []


async def test_task_that_a_killed_front_had_in_the_air_is_ended_and_told(
    make_agent: MakeAgent,
    receiver: Receiver,
    idle_function: str,
    redis_server: RedisServer,
    redis_prefix: str,
) -> None:
    first, second = await fronts(make_agent, 2, idle_function)
    run = asyncio.create_task(first.run({"prompt": slow(3), "webhook": receiver.url}, "in-the-air"))
    store = RedisStore(redis_server.url, prefix=redis_prefix, record_ttl_seconds=60, output_ttl_seconds=60)
    try:
        said: set[float] = set()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(said) < 3:
                stored = await store.read("in-the-air")
                if stored is not None and stored.record.deliver_until is not None:
                    said.add(stored.record.deliver_until)
                await asyncio.sleep(0.1)
        assert not receiver.messages, "the front says again and again that it waits for an instance"
    finally:
        await store.close()
    await first.kill()
    with contextlib.suppress(aiohttp.ClientError):
        await run
    await ended(receiver, "NotDelivered", second)
