"""A task's end is told to the URL that the request or the settings name: signed, tried again, kept in the record."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from agent.app import build_app
from agent.settings import SettingsError
from agent.webhooks import notifier as notifier_module
from tests.integration.agent import graphs
from tests.integration.agent.receiver import PATIENCE_SECONDS, SECRET, Receiver
from tests.integration.agent.service import Agent, MakeAgent, settings_of
from tests.integration.agent.test_front import listening
from tests.ports import free_port
from tests.redis_server import RedisServer

QUERY = "?token=s3cret-query"


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifier_module, "PAUSES", (0.05,))


@pytest_asyncio.fixture(loop_scope="session")
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver().listening() as listening:
        yield listening


@pytest_asyncio.fixture(loop_scope="session")
async def make(make_agent: MakeAgent) -> MakeAgent:
    async def make(**settings: Any) -> Agent:
        return await make_agent(**{"fetch_allow": ["127.0.0.1"], "webhook_secrets": [SECRET], **settings})

    return make


@pytest.fixture
def shared(redis_server: RedisServer, redis_prefix: str) -> dict[str, Any]:
    return {"redis_url": redis_server.url, "redis_prefix": redis_prefix}


def asking(receiver: Receiver | str, graph: graphs.Graph | None = None) -> dict[str, Any]:
    url = receiver if isinstance(receiver, str) else receiver.url
    return {"prompt": graph or graphs.painted(), "webhook": url}


async def told(agent: Agent, task_id: str) -> dict[str, Any]:
    """The record's webhook once nobody is at it any more."""
    record = await agent.until(task_id, lambda r: r["webhook"]["state"] != "pending", PATIENCE_SECONDS)
    webhook: dict[str, Any] = record["webhook"]
    return webhook


class TestMessage:
    async def test_success_is_signed_and_holds_the_record_without_pictures(
        self, make: MakeAgent, receiver: Receiver
    ) -> None:
        agent = await make()
        (await agent.run(asking(receiver), "good")).ok()
        (message,) = await receiver.got()
        body = message.verified()
        assert message.headers["Content-Type"] == "application/json"
        assert message.headers["User-Agent"].startswith("comfyui-agent/")
        assert body["type"] == "task.succeeded"
        webhook = await told(agent, "good")
        record = await agent.task("good")
        assert body["data"] == {name: value for name, value in record.items() if name != "webhook"}
        assert b'"results"' not in message.body
        assert body["timestamp"].endswith("+00:00")
        assert webhook == {
            "url": receiver.url,
            "state": "delivered",
            "id": message.id,
            "attempts": 1,
            "last_status": 204,
            "error": None,
            "delivered_at": webhook["delivered_at"],
            "sending_until": None,
        }
        assert webhook["delivered_at"] >= record["finished_at"]

    async def test_failure_tells_what_went_wrong(self, make: MakeAgent, receiver: Receiver) -> None:
        agent = await make()
        (await agent.run(asking(receiver, graphs.raising("kaputt")), "bad")).error(500, "NodeFailed")
        (message,) = await receiver.got()
        body = message.verified()
        assert body["type"] == "task.failed"
        assert (body["data"]["state"], body["data"]["error"]["exception_message"]) == ("failed", "kaputt")
        assert (await told(agent, "bad"))["state"] == "delivered"

    async def test_cancel_is_told_too(self, make: MakeAgent, receiver: Receiver) -> None:
        agent = await make()
        await agent.begin(asking(receiver, graphs.stepping()), "ended")
        await agent.running("ended")
        assert (await agent.task("ended"))["webhook"]["state"] == "pending"
        (await agent.cancel("ended")).ok()
        (message,) = await receiver.got()
        assert message.verified()["type"] == "task.cancelled"
        assert (await told(agent, "ended"))["state"] == "delivered"

    async def test_run_over_a_websocket_has_one_too(self, make: MakeAgent, receiver: Receiver) -> None:
        agent = await make()
        async with agent.http.ws_connect("/api/run/ws", headers={"task-id": "socket"}) as socket:
            await socket.send_json(asking(receiver))
            async for _ in socket:
                pass
        (message,) = await receiver.got()
        assert message.verified()["data"]["id"] == "socket"

    async def test_every_secret_signs(self, make: MakeAgent, receiver: Receiver) -> None:
        new = "whsec_bmV3IHNlY3JldCBvZiB0aGlydHktdHdvIGJ5dGVzISE"
        agent = await make(webhook_secrets=[new, SECRET])
        (await agent.run(asking(receiver))).ok()
        (message,) = await receiver.got()
        assert message.verified(new) == message.verified(SECRET)

    async def test_without_a_secret_it_is_not_signed(self, make: MakeAgent, receiver: Receiver) -> None:
        agent = await make(webhook_secrets=[])
        (await agent.run(asking(receiver))).ok()
        (message,) = await receiver.got()
        assert "webhook-signature" not in message.headers
        assert message.id.startswith("msg_")

    async def test_settings_name_the_default_and_the_request_wins(
        self, make: MakeAgent, receiver: Receiver
    ) -> None:
        agent = await make(webhook_url=f"{receiver.url}/default{QUERY}")
        (await agent.run(graphs.painted(), "by-default")).ok()
        (await agent.run(asking(f"{receiver.url}/own"), "by-request")).ok()
        await receiver.got(2)
        assert [m.path for m in receiver.about("by-default")] == [f"/hook/default{QUERY}"]
        assert [m.path for m in receiver.about("by-request")] == ["/hook/own"]
        assert (await told(agent, "by-default"))["url"] == f"{receiver.url}/default"

    async def test_task_without_a_webhook_has_none(self, make: MakeAgent) -> None:
        agent = await make()
        (await agent.run(graphs.painted(), "quiet")).ok()
        assert (await agent.task("quiet"))["webhook"] is None

    async def test_the_engine_learns_nothing_of_it(self, make: MakeAgent, receiver: Receiver) -> None:
        agent = await make()
        task = asyncio.create_task(agent.run(asking(receiver, graphs.stepping(steps=20)), "engine"))
        await agent.running_later("engine")
        assert "hook" not in json.dumps(await agent.engine.get("/queue"))
        (await task).ok()


class TestTries:
    async def test_errors_of_the_receiver_are_tried_again_under_the_same_id(
        self, make: MakeAgent, receiver: Receiver
    ) -> None:
        agent = await make()
        receiver.answers = [500, 404, 503, 200]
        (await agent.run(asking(receiver), "again")).ok()
        messages = await receiver.got(4)
        assert len({message.id for message in messages}) == 1
        assert len({message.body for message in messages}) == 1
        for message in messages:
            message.verified()
        webhook = await told(agent, "again")
        assert (webhook["state"], webhook["attempts"], webhook["last_status"]) == ("delivered", 4, 200)
        assert webhook["error"] is None

    async def test_it_is_given_up_after_the_last_try(self, make: MakeAgent, receiver: Receiver) -> None:
        agent = await make(webhook_attempts=3)
        receiver.answers = [500] * 9
        (await agent.run(asking(receiver), "never")).ok()
        webhook = await told(agent, "never")
        assert (webhook["state"], webhook["attempts"], webhook["last_status"]) == ("failed", 3, 500)
        assert webhook["error"] == "The receiver answered 500."
        assert webhook["delivered_at"] is None
        assert len(receiver.messages) == 3
        assert (await agent.task("never"))["state"] == "succeeded", "the task itself did not fail"

    @pytest.mark.parametrize("status", [410, 301, 302, 307, 308])
    async def test_gone_and_redirects_end_it_at_once(
        self, make: MakeAgent, receiver: Receiver, status: int
    ) -> None:
        agent = await make()
        receiver.answers = [(status, {"Location": f"{receiver.url}/elsewhere"})]
        (await agent.run(asking(receiver), "gone")).ok()
        webhook = await told(agent, "gone")
        assert (webhook["state"], webhook["attempts"], webhook["last_status"]) == ("failed", 1, status)
        assert [message.path for message in receiver.messages] == ["/hook"]

    async def test_receiver_may_ask_for_a_longer_pause(self, make: MakeAgent, receiver: Receiver) -> None:
        agent = await make()
        receiver.answers = [(429, {"Retry-After": "1"})]
        (await agent.run(asking(receiver), "throttled")).ok()
        webhook = await told(agent, "throttled")
        assert (webhook["state"], webhook["attempts"]) == ("delivered", 2)
        times = [int(message.headers["webhook-timestamp"]) for message in receiver.messages]
        assert times[1] - times[0] >= 1

    async def test_pause_beyond_the_time_for_all_tries_ends_it(
        self, make: MakeAgent, receiver: Receiver
    ) -> None:
        agent = await make()
        receiver.answers = [(503, {"Retry-After": "3600"})]
        (await agent.run(asking(receiver), "later")).ok()
        webhook = await told(agent, "later")
        assert (webhook["state"], webhook["attempts"], webhook["last_status"]) == ("failed", 1, 503)

    async def test_receiver_that_stalls_is_given_up_in_time(
        self, make: MakeAgent, receiver: Receiver
    ) -> None:
        agent = await make(webhook_timeout_seconds=0.2, webhook_attempts=2)
        receiver.stall()
        (await agent.run(asking(receiver), "stalled")).ok()
        webhook = await told(agent, "stalled")
        assert (webhook["state"], webhook["attempts"], webhook["last_status"]) == ("failed", 2, None)
        assert webhook["error"] == "The receiver did not answer within 0.2 seconds."

    async def test_receiver_that_is_not_there_is_tried_again(self, make: MakeAgent) -> None:
        agent = await make(webhook_attempts=2)
        (await agent.run(asking(f"http://127.0.0.1:{free_port()}/x"), "nobody")).ok()
        webhook = await told(agent, "nobody")
        assert (webhook["state"], webhook["attempts"], webhook["last_status"]) == ("failed", 2, None)
        assert "cannot be reached" in webhook["error"]

    async def test_caller_does_not_wait_for_a_receiver_that_stalls(
        self, make: MakeAgent, receiver: Receiver
    ) -> None:
        agent = await make(webhook_timeout_seconds=PATIENCE_SECONDS)
        receiver.stall()
        (await agent.run(asking(receiver), "unhurried")).ok()
        await receiver.got()
        assert (await agent.task("unhurried"))["webhook"]["state"] == "pending"
        receiver.release()
        assert (await told(agent, "unhurried"))["state"] == "delivered"


class TestDoors:
    @pytest.mark.parametrize(
        "url",
        [
            "ftp://example.com/hook",
            "example.com/hook",
            "https://",
            "http://10.0.0.1/hook",
            "http://169.254.169.254/latest/meta-data",
            "http://[::1]/hook",
            "http://2130706433/hook",
            7,
            "",
            ["https://example.com"],
        ],
    )
    async def test_url_that_cannot_be_one_is_refused_before_anything_runs(
        self, make_agent: MakeAgent, url: Any
    ) -> None:
        agent = await make_agent()
        async with agent.engine.asked(0):
            error = (await agent.run({**asking("x"), "webhook": url})).error(400, "InvalidOptions")
        assert error["option"] == "webhook"

    async def test_name_of_a_private_host_is_found_out_when_it_is_looked_up(
        self, make_agent: MakeAgent, receiver: Receiver
    ) -> None:
        agent = await make_agent()
        url = receiver.url.replace("127.0.0.1", "localhost")
        (await agent.run(asking(url), "dark")).ok()
        webhook = await told(agent, "dark")
        assert (webhook["state"], webhook["attempts"], webhook["last_status"]) == ("failed", 1, None)
        assert "AGENT_FETCH_ALLOW" in webhook["error"]
        assert receiver.messages == []

    @pytest.mark.parametrize("url", ["http://10.0.0.1/hook", "ftp://x/y", "nonsense"])
    def test_default_that_cannot_be_one_stops_the_start(self, url: str) -> None:
        with pytest.raises(SettingsError, match="AGENT_WEBHOOK_URL"):
            build_app(settings_of(webhook_url=url + QUERY))


class TestBehindAPlatform:
    @pytest_asyncio.fixture(loop_scope="session")
    async def behind(self, make: MakeAgent) -> Agent:
        return await make(invocation="gateway")

    async def test_request_ends_after_the_message_is_out(self, behind: Agent, receiver: Receiver) -> None:
        receiver.stall()
        run = asyncio.create_task(behind.run(asking(receiver), "inside"))
        await receiver.got()
        record = await behind.task("inside")
        assert (record["state"], record["webhook"]["state"]) == ("succeeded", "pending")
        assert not run.done(), "the instance is frozen as soon as no request is open"
        receiver.release()
        (await run).ok()
        assert (await behind.task("inside"))["webhook"]["state"] == "delivered"

    async def test_failure_is_answered_after_the_message_is_out(
        self, behind: Agent, receiver: Receiver
    ) -> None:
        (await behind.run(asking(receiver, graphs.raising()), "failed")).error(500, "NodeFailed")
        assert (await behind.task("failed"))["webhook"]["state"] == "delivered"
        assert receiver.messages[0].verified()["type"] == "task.failed"

    async def test_refusal_is_told_where_its_webhook_is_known(
        self, make: MakeAgent, receiver: Receiver
    ) -> None:
        full = await make(invocation="gateway", queue_size=0, concurrency=1)
        holder = asyncio.create_task(full.run(graphs.stepping(), "holder"))
        await full.running_later("holder")
        graph = asking(receiver)
        (await full.run(graph, "refused")).error(429, "QueueFull")
        body = receiver.messages[0].verified()
        assert (body["type"], body["data"]["error"]["transient"]) == ("task.failed", True)
        (await full.run(graph, "refused")).error(429, "QueueFull")
        assert len(receiver.messages) == 1, "the same end is told once"
        await full.cancel("holder")
        await holder
        (await full.run(graph, "refused")).ok()
        assert receiver.messages[1].verified()["type"] == "task.succeeded"
        assert receiver.messages[1].id != receiver.messages[0].id

    async def test_request_that_cannot_be_read_is_told_to_the_default(
        self, make: MakeAgent, receiver: Receiver
    ) -> None:
        agent = await make(invocation="gateway", webhook_url=receiver.url)
        (await agent.run(b"{", "unreadable")).error(400, "InvalidJson")
        body = receiver.messages[0].verified()
        assert (body["type"], body["data"]["error"]["code"]) == ("task.failed", "InvalidJson")
        assert (await agent.task("unreadable"))["webhook"]["state"] == "delivered"

    async def test_conflict_is_never_told(self, behind: Agent, receiver: Receiver) -> None:
        (await behind.run(asking(receiver), "taken")).ok()
        (await behind.run(asking(receiver), "taken")).error(409, "TaskConflict")
        assert len(receiver.messages) == 1

    async def test_deliveries_of_the_same_task_tell_its_end_once(
        self, behind: Agent, receiver: Receiver
    ) -> None:
        graph = asking(receiver, graphs.stepping(steps=10))
        answers = await asyncio.gather(*(behind.run(graph, "twice") for _ in range(3)))
        answers.append(await behind.run(graph, "twice"))
        assert len({answer.body for answer in answers}) == 1
        assert len(receiver.messages) == 1

    async def test_cancel_of_a_task_that_nobody_runs_is_told_before_it_is_answered(
        self, make: MakeAgent, receiver: Receiver, shared: dict[str, Any]
    ) -> None:
        first, second = [await make(invocation="gateway", **shared) for _ in range(2)]
        run = asyncio.create_task(first.run(asking(receiver.url + QUERY, graphs.stepping()), "put-back"))
        await second.running_later("put-back")
        await first.get("/pre-stop")
        (await run).error(503, "ShuttingDown")
        assert receiver.messages == [], "it is not over"
        record = (await second.cancel("put-back")).ok()
        assert record["state"] == "cancelled"
        assert receiver.messages[0].verified()["type"] == "task.cancelled"
        assert receiver.messages[0].path == f"/hook{QUERY}"
        assert (await second.task("put-back"))["webhook"]["state"] == "delivered"


class TestBehindAFront:
    async def test_engine_function_tells_what_the_front_was_asked_to_tell(
        self, make: MakeAgent, receiver: Receiver, shared: dict[str, Any]
    ) -> None:
        engine = await make(role="engine", invocation="gateway", **shared)
        front = await make(role="front", engine_url=engine.url, **shared)
        (await front.run(asking(receiver.url + QUERY), "through")).ok()
        (message,) = receiver.messages
        assert (message.path, message.verified()["type"]) == (f"/hook{QUERY}", "task.succeeded")
        assert (await front.task("through"))["webhook"]["state"] == "delivered"
        (await front.run({**asking(receiver), "webhook": "http://10.0.0.1/"})).error(400, "InvalidOptions")

    async def test_front_tells_of_a_task_that_never_reached_the_function(
        self, make: MakeAgent, receiver: Receiver, shared: dict[str, Any]
    ) -> None:
        async def accept(request: web.Request) -> web.Response:
            return web.Response(status=202)

        async with listening(accept) as url:
            front = await make(role="front", invocation="gateway", engine_url=url, **shared)
            await front.submit(asking(receiver), "unwanted")
            assert (await front.task("unwanted"))["webhook"]["state"] == "pending"
            (await front.cancel("unwanted")).ok()
        assert receiver.messages[0].verified()["type"] == "task.cancelled"
        assert (await front.task("unwanted"))["webhook"]["state"] == "delivered"


class TestTheEnd:
    async def test_stop_waits_for_a_message_that_is_on_its_way(
        self, make_agent: MakeAgent, agent: Agent, receiver: Receiver
    ) -> None:
        settings = settings_of(
            comfyui_url=agent.engine.url, fetch_allow=["127.0.0.1"], shutdown_seconds=PATIENCE_SECONDS
        )
        async with Agent(settings) as stopping:
            await stopping.ready()
            receiver.stall()
            (await stopping.run(asking(receiver))).ok()
            await receiver.got()
            asyncio.get_running_loop().call_later(0.2, receiver.release)
        assert len(receiver.messages) == 1

    async def test_stop_does_not_wait_for_ever(self, agent: Agent, receiver: Receiver) -> None:
        settings = settings_of(comfyui_url=agent.engine.url, fetch_allow=["127.0.0.1"], shutdown_seconds=0)
        receiver.stall()
        async with asyncio.timeout(PATIENCE_SECONDS), Agent(settings) as stopping:
            await stopping.ready()
            (await stopping.run(asking(receiver))).ok()
            await receiver.got()

    async def test_stop_cuts_a_pause_short_and_tries_once_more(
        self, agent: Agent, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(notifier_module, "PAUSES", (PATIENCE_SECONDS,))
        settings = settings_of(comfyui_url=agent.engine.url, fetch_allow=["127.0.0.1"], shutdown_seconds=5)
        receiver.answers = [500, 500, 500]
        async with Agent(settings) as stopping:
            await stopping.ready()
            (await stopping.run(asking(receiver), "cut")).ok()
            await stopping.until("cut", lambda r: r["webhook"]["attempts"] == 1)
        assert len(receiver.messages) == 2
