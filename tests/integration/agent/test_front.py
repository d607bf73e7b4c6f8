"""A front: it has no engine, has another agent run the tasks, and answers for them from the shared store."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import random
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from PIL import Image

from agent.api.keys import BOARD, RUNNER
from tests.integration.agent import graphs
from tests.integration.agent.conversation import conversation, events
from tests.integration.agent.pictures import b64, color_of, encode, look, png
from tests.integration.agent.service import PATIENCE_SECONDS, Agent, MakeAgent, eventually, take
from tests.object_store import Bucket
from tests.redis_server import RedisServer
from tests.serving import serving

KEY = "the-engine-functions-own-key"


@pytest.fixture
def shared(redis_server: RedisServer, redis_prefix: str) -> dict[str, Any]:
    return {"redis_url": redis_server.url, "redis_prefix": redis_prefix}


@pytest_asyncio.fixture(loop_scope="session")
async def engine(make_agent: MakeAgent, shared: dict[str, Any]) -> Agent:
    """The agent that runs the tasks, with an engine of its own. Nobody but the front has its key."""
    agent = await make_agent(engine=[], role="engine", api_keys=[KEY], fetch_allow=["127.0.0.1"], **shared)
    agent.http.headers["X-Api-Key"] = KEY
    return agent


@pytest_asyncio.fixture(loop_scope="session")
async def front(make_agent: MakeAgent, engine: Agent, shared: dict[str, Any]) -> Agent:
    return await make_agent(role="front", engine_url=engine.url, engine_api_key=KEY, **shared)


async def test_synchronous_run_returns_the_pictures(front: Agent, engine: Agent) -> None:
    color = graphs.fresh_color()
    answer = await front.run(graphs.painted(color), "through-the-front")
    assert answer.headers["task-id"] == "through-the-front"
    assert [color_of(picture) for picture in answer.results("2")] == [graphs.rgb(color)]
    record = await front.task("through-the-front")
    assert record["state"] == "succeeded"
    assert record == await engine.task("through-the-front")
    assert (await front.output("through-the-front", 0)).body == answer.results("2")[0]


async def test_options_beside_the_workflow_arrive(front: Agent, engine: Agent) -> None:
    graph = graphs.painted(graphs.fresh_color())
    envelope = {"prompt": graph, "extra_data": {"extra_pnginfo": {"seen": 2**64 - 1}}}
    through = await front.run(envelope)
    direct = await engine.run({**envelope, "prompt": graphs.painted(graphs.fresh_color())})
    assert b"18446744073709551615" in through.results("2")[0]
    assert b"18446744073709551615" in direct.results("2")[0]


@pytest.mark.parametrize(
    "headers", [{"X-Fc-Invocation-Type": "Async"}, {"Prefer": "wait=1, respond-async"}], ids=["fc", "prefer"]
)
async def test_asynchronous_run_is_answered_at_once_and_followed_at_the_front(
    front: Agent, headers: dict[str, str]
) -> None:
    color = graphs.fresh_color()
    answer = await front.run(graphs.stepping(steps=20, color=color), "later", headers=headers)
    assert (answer.status, answer.json["task_id"], answer.json["state"]) == (202, "later", "queued")
    seen = await take(events(front, "later"))
    assert seen[-1]["state"] == "succeeded"
    assert len({record["progress"] for record in seen}) > 2
    assert color_of((await front.output("later", 0)).body) == graphs.rgb(color)
    assert (await front.status("later")).results("3")


async def test_polls_and_streams_never_reach_the_engine_function(
    make_agent: MakeAgent, shared: dict[str, Any]
) -> None:
    """The function of this test counts what it is asked, and runs nothing."""
    asked: list[str] = []

    async def count(request: web.Request) -> web.Response:
        asked.append(f"{request.method} {request.path}")
        return web.Response(status=202)

    async with listening(count) as url:
        front = await make_agent(role="front", engine_url=url, **shared)
        await front.submit(graphs.painted(), "waits")
        for _ in range(3):
            assert (await front.task("waits"))["state"] == "queued"
            assert (await front.status("waits")).status == 200
        async with asyncio.timeout(PATIENCE_SECONDS), contextlib.aclosing(events(front, "waits")) as records:
            assert (await anext(records))["state"] == "queued"
        assert [task["id"] for task in (await front.get("/api/tasks")).ok()["tasks"]] == ["waits"]
        for path in ("/healthz", "/readyz", "/api/queue", "/openapi.json"):
            assert (await front.get(path)).status == 200
        assert (await front.cancel("waits")).ok()["state"] == "cancelled"
    assert asked == ["POST /api/run"]


async def test_cancelled_before_its_delivery_it_does_not_run(
    make_agent: MakeAgent, engine: Agent, shared: dict[str, Any]
) -> None:
    async def accept(request: web.Request) -> web.Response:
        return web.Response(status=202)

    graph = graphs.painted(graphs.fresh_color())
    async with listening(accept) as url:
        front = await make_agent(role="front", engine_url=url, **shared)
        await front.submit(graph, "unwanted")
        await front.cancel("unwanted")
        async with engine.engine.asked(0):
            (await engine.run(graph, "unwanted")).error(410, "TaskCancelled")


async def test_running_task_is_cancelled_through_the_front(front: Agent, engine: Agent) -> None:
    await front.submit(graphs.stepping(steps=1000), "endless")
    await front.running_later("endless")
    assert (await front.cancel("endless")).ok()["state"] == "cancelled"
    await eventually(engine.engine.is_idle)


async def test_caller_of_the_front_who_hangs_up_cancels(front: Agent, engine: Agent) -> None:
    call = asyncio.create_task(front.run(graphs.stepping(steps=1000), "left"))
    await front.running_later("left")
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert (await front.finished("left"))["error"]["code"] == "CallerGone"
    await eventually(engine.engine.is_idle)


async def test_two_callers_of_one_task_share_one_call(front: Agent, engine: Agent) -> None:
    graph = graphs.stepping(steps=20, color=graphs.fresh_color())
    async with engine.engine.asked(1):
        answers = await asyncio.gather(*(front.run(graph, "shared") for _ in range(5)))
    assert len({answer.body for answer in answers}) == 1
    async with engine.engine.asked(0):
        later = await front.run(graph, "shared")
    assert later.results("3") == answers[0].results("3")
    (await front.run(graphs.painted(), "shared")).error(409, "TaskConflict")


async def test_one_of_two_callers_leaves_and_the_other_gets_the_result(front: Agent) -> None:
    graph = graphs.stepping(steps=60, color=graphs.fresh_color())
    first = asyncio.create_task(front.run(graph, "one-stays"))
    await front.running_later("one-stays")
    second = asyncio.create_task(front.run(graph, "one-stays"))
    await asyncio.sleep(0.1)  # until it has joined, which nothing shows
    first.cancel()
    assert (await second).results("3")


async def test_fault_of_the_workflow_is_the_engines_and_is_stored(front: Agent) -> None:
    error = (await front.run(graphs.raising("no such luck"), "raises")).error(500, "NodeFailed")
    assert error["exception_message"].startswith("no such luck")
    assert (await front.status("raises")).error(500, "NodeFailed") == error


async def test_what_is_no_workflow_does_not_reach_the_function(front: Agent, engine: Agent) -> None:
    async with engine.engine.asked(0):
        (await front.run(b"{")).error(400, "InvalidJson")
        (await front.submit({"1": {"class_type": "X"}})).error(400, "InvalidWorkflow")


async def test_large_picture_goes_through_in_pieces(front: Agent) -> None:
    """aiohttp warns of bodies of more than 1 MiB that are sent in one piece, and a warning fails a test."""
    noise = random.Random(7).randbytes(1024 * 1024 * 3)
    data = encode(Image.frombytes("RGB", (1024, 1024), noise))
    graph = graphs.loaded(f"data:image/png;base64,{b64(data)}")
    body = io.BytesIO(json.dumps(graph).encode())
    (result,) = (await front.call("POST", "/api/run", data=body)).results("2")
    assert look(result).tobytes() == noise


async def test_unknown_class_is_refused_and_readable(front: Agent) -> None:
    graph = {"1": {"class_type": "NoSuchNode", "inputs": {}}}
    (await front.run(graph, "unknown-class")).error(400, "UnknownNodeClass")
    record = await front.finished("unknown-class")
    assert (record["state"], record["error"]["code"]) == ("failed", "UnknownNodeClass")


async def test_websocket_shows_progress_and_the_result(front: Agent) -> None:
    color = graphs.fresh_color()
    async with conversation(front, graphs.stepping(steps=40, color=color)) as talk:
        pictures = await talk.results("3")
    assert [color_of(picture) for picture in pictures] == [graphs.rgb(color)]
    assert [message["type"] for message in talk.seen].count("progress") > 2


class TestParking:
    """Requests that are larger than what the platform takes with an asynchronous one."""

    async def test_large_picture_is_parked_and_arrives_byte_for_byte(
        self, make_agent: MakeAgent, engine: Agent, shared: dict[str, Any]
    ) -> None:
        sizes: list[int] = []

        async def pass_on(request: web.Request) -> web.Response:
            body = await request.read()
            sizes.append(len(body))
            named = {"task-id": request.headers["task-id"], "X-Fc-Invocation-Type": "Async", "X-Api-Key": KEY}
            async with engine.http.post("/api/run", data=body, headers=named) as answer:
                return web.Response(status=answer.status, body=await answer.read())

        picture = noise()
        graph = graphs.loaded(b64(picture))
        async with listening(pass_on) as url:
            front = await make_agent(role="front", engine_url=url, **shared)
            await front.submit(graph, "parked")
            await front.submit(graph, "parked")  # sent twice, it is the same task for everybody
            await front.succeeded("parked")
        assert len(picture) > 128 * 1024 > max(sizes)
        assert (await engine.run(graph, "parked")).ok() == (await front.run(graph, "parked")).ok()

    async def test_pictures_are_parked_in_the_object_store_where_there_is_one(
        self, make_agent: MakeAgent, shared: dict[str, Any], bucket: Bucket
    ) -> None:
        picture = noise()
        engine = await make_agent(**shared, **bucket.settings())
        front = await make_agent(role="front", engine_url=engine.url, **shared, **bucket.settings())
        await front.submit(graphs.loaded(b64(picture)), "in-the-bucket")
        assert (await front.succeeded("in-the-bucket"))["outputs"]
        (key,) = filter(re.compile("parked").match, bucket.keys())
        objects = front.parts[BOARD].objects
        assert objects is not None
        assert (await objects.get(key, 2**24))[0].decode() == b64(picture)

    async def test_an_object_store_that_is_away_leaves_the_task_store(
        self, make_agent: MakeAgent, engine: Agent, shared: dict[str, Any], bucket: Bucket
    ) -> None:
        away = {
            **bucket.settings(),
            "object_store_endpoint": "http://127.0.0.1:9",
            "object_store_timeout_seconds": 1,
        }
        front = await make_agent(role="front", engine_url=engine.url, engine_api_key=KEY, **shared, **away)
        await front.submit(graphs.loaded(b64(noise())), "in-redis")
        await front.succeeded("in-redis")

    async def test_workflow_that_is_too_large_without_its_pictures_is_refused(self, front: Agent) -> None:
        graph = {str(i): graphs.node("EmptyImage", title="x" * 190, width=8) for i in range(1000)}
        error = (await front.submit(graph, "huge")).error(413, "AsyncBodyTooLarge")
        assert error["limit"] == 128 * 1024

    async def test_picture_that_is_no_longer_parked_is_named(self, engine: Agent) -> None:
        body = {"prompt": graphs.loaded(""), "parked": {"1": {"image": "ab" * 32}}}
        error = (await engine.run(body)).error(400, "InvalidInput")
        assert (error["node_id"], error["input"]) == ("1", "image")

    @pytest.mark.parametrize(
        "parked",
        [
            {"1": {"image": "../../etc"}},
            {"1": {"nothing": "ab" * 32}},
            {"9": {"image": "ab" * 32}},
            {"1": "x"},
            "x",
        ],
    )
    async def test_nonsense_is_refused(self, engine: Agent, parked: Any) -> None:
        (await engine.run({"prompt": graphs.loaded(""), "parked": parked})).error(400, "InvalidOptions")


class TestTheFunctionFails:
    """What the platform or the way to it does."""

    async def test_nobody_there(
        self, make_agent: MakeAgent, shared: dict[str, Any], quick_retries: None
    ) -> None:
        front = await make_agent(role="front", engine_url="http://127.0.0.1:9", **shared)
        assert (await front.run(graphs.painted(), "alone")).error(502, "EngineUnreachable")["transient"]
        assert (await front.task("alone"))["error"]["code"] == "EngineUnreachable"
        (await front.submit(graphs.painted(), "alone-later")).error(502, "EngineUnreachable")
        assert (await front.task("alone-later"))["state"] == "failed"

    async def test_job_of_runpods_that_nobody_takes_is_no_answer_without_a_status(
        self, make_agent: MakeAgent, shared: dict[str, Any], quick_retries: None
    ) -> None:
        async def answer_late(_request: web.Request) -> web.Response:
            await asyncio.sleep(0.2)  # longer than the answer waits before it begins
            return web.Response(status=404)

        async with listening(answer_late) as url:
            front = await make_agent(role="front", engine_url=url, early_answer_seconds=0.02, **shared)
            body = json.dumps({"input": {"workflow": graphs.painted()}}).encode()
            answer = await front.call("POST", "/runsync", data=body)
        assert (answer.status, answer.json["code"]) == (502, "EngineUnreachable")

    @pytest.mark.parametrize(
        ("status", "headers", "code", "expected"),
        [
            (429, {}, "EngineBusy", 429),
            (403, {}, "EngineAccessDenied", 502),
            (404, {}, "EngineUnreachable", 502),
            (302, {"Location": "http://127.0.0.1:1/"}, "EngineUnreachable", 502),
            (502, {}, "EngineUnreachable", 502),
            (200, {"X-Fc-Error-Type": "InitializationError", "task-id": "x"}, "EngineUnreachable", 502),
            (200, {}, "EngineUnreachable", 502),
        ],
    )
    async def test_the_platform_answers_instead(
        self,
        make_agent: MakeAgent,
        shared: dict[str, Any],
        quick_retries: None,
        status: int,
        headers: dict[str, str],
        code: str,
        expected: int,
    ) -> None:
        async def answer(request: web.Request) -> web.Response:
            return web.Response(status=status, headers=headers, text='{"ErrorCode": "platform"}')

        async with listening(answer) as url:
            front = await make_agent(role="front", engine_url=url, **shared)
            (await front.run(graphs.painted(), "sync")).error(expected, code)
            (await front.submit(graphs.painted(), "async")).error(expected, code)
            for task_id in ("sync", "async"):
                assert (await front.task(task_id))["error"]["code"] == code

    async def test_wrong_key_is_not_the_callers_fault(
        self, make_agent: MakeAgent, engine: Agent, shared: dict[str, Any]
    ) -> None:
        front = await make_agent(role="front", engine_url=engine.url, engine_api_key="wrong", **shared)
        answer = await front.run(graphs.painted())
        answer.error(502, "EngineAccessDenied")
        assert b"wrong" not in answer.body

    async def test_answer_that_is_lost_is_found_in_the_store(
        self, make_agent: MakeAgent, engine: Agent, shared: dict[str, Any], quick_retries: None
    ) -> None:
        """The way breaks while the task runs; it goes on, and is not run again."""
        calls: list[asyncio.Task[Any]] = []

        async def cut(request: web.Request) -> web.Response:
            body = await request.read()
            named = {"task-id": request.headers["task-id"], "X-Fc-Invocation-Type": "Async"}
            calls.append(asyncio.create_task(engine.call("POST", "/api/run", data=body, headers=named)))
            await engine.running_later(named["task-id"])
            assert request.transport is not None
            request.transport.abort()
            return web.Response()

        color = graphs.fresh_color()
        async with listening(cut) as url:
            front = await make_agent(role="front", engine_url=url, **shared)
            async with engine.engine.asked(1):
                answer = await front.run(graphs.stepping(steps=40, color=color), "cut")
        assert [color_of(picture) for picture in answer.results("3")] == [graphs.rgb(color)]
        assert len(calls) == 1
        await asyncio.gather(*calls)

    async def test_way_that_breaks_without_a_sign_costs_no_result(
        self,
        make_agent: MakeAgent,
        engine: Agent,
        shared: dict[str, Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The task runs and ends, and of its answer nothing comes, not even the end of the connection."""
        monkeypatch.setattr("agent.front.runner.LOOK_SECONDS", 0.05)
        monkeypatch.setattr("agent.front.runner.ANSWER_SECONDS", 0.1)

        async def swallow(request: web.Request) -> web.Response:
            headers = {"task-id": request.headers["task-id"]}
            await engine.call("POST", "/api/run", data=await request.read(), headers=headers)
            await asyncio.sleep(PATIENCE_SECONDS * 10)
            return web.Response()

        color = graphs.fresh_color()
        async with listening(swallow) as url:
            front = await make_agent(role="front", engine_url=url, webhook_total_seconds=0.1, **shared)
            async with engine.engine.asked(1), asyncio.timeout(PATIENCE_SECONDS):
                answer = await front.run(graphs.painted(color), "swallowed")
        assert [color_of(picture) for picture in answer.results("2")] == [graphs.rgb(color)]

    async def test_caller_who_leaves_while_his_task_is_handed_over_leaves_no_task_that_waits_for_ever(
        self, make_agent: MakeAgent, engine: Agent, shared: dict[str, Any]
    ) -> None:
        """Accepted or not: what was announced is handed over all the same."""
        is_asked, is_gone = asyncio.Event(), asyncio.Event()

        async def accept_late(request: web.Request) -> web.Response:
            is_asked.set()
            await is_gone.wait()
            named = {"task-id": request.headers["task-id"], "X-Fc-Invocation-Type": "Async"}
            answer = await engine.call("POST", "/api/run", data=await request.read(), headers=named)
            return web.Response(status=answer.status, body=answer.body)

        color = graphs.fresh_color()
        async with listening(accept_late) as url:
            front = await make_agent(role="front", engine_url=url, **shared)
            call = asyncio.create_task(front.submit(graphs.painted(color), "impatient"))
            await asyncio.wait_for(is_asked.wait(), PATIENCE_SECONDS)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            for _ in range(3):
                assert (await front.get("/healthz")).status == 200  # by now the front has seen it
            is_gone.set()
            await front.succeeded("impatient")

    async def test_shutdown_gives_up_what_is_being_handed_over(
        self, make_agent: MakeAgent, shared: dict[str, Any]
    ) -> None:
        is_asked = asyncio.Event()

        async def never(request: web.Request) -> web.Response:
            is_asked.set()
            await asyncio.sleep(PATIENCE_SECONDS * 10)
            return web.Response()

        async with listening(never) as url:
            front = await make_agent(role="front", engine_url=url, shutdown_seconds=0, **shared)
            call = asyncio.create_task(front.submit(graphs.painted(), "unsent"))
            await asyncio.wait_for(is_asked.wait(), PATIENCE_SECONDS)
            await front.parts[RUNNER].drain()
            (await call).error(503, "ShuttingDown")
            record = await front.task("unsent")
            assert (record["state"], record["error"]["code"]) == ("failed", "ShuttingDown")

    async def test_shared_folder_in_redis_place(self, make_agent: MakeAgent, tmp_path: Path) -> None:
        folder = {"store_dir": str(tmp_path)}
        engine = await make_agent(**folder)
        front = await make_agent(role="front", engine_url=engine.url, **folder)
        color = graphs.fresh_color()
        await front.submit(graphs.painted(color), "on-the-nas")
        await front.succeeded("on-the-nas")
        assert color_of((await front.output("on-the-nas", 0)).body) == graphs.rgb(color)

    async def test_store_away(self, make_agent: MakeAgent, engine: Agent, private_redis: RedisServer) -> None:
        """A synchronous run of no name still succeeds; what could not be kept is refused."""
        front = await make_agent(
            role="front", engine_url=engine.url, engine_api_key=KEY, redis_url=private_redis.url
        )
        await asyncio.to_thread(private_redis.stop)
        assert (await front.run(graphs.painted())).results("2")
        (await front.submit(graphs.painted(), "kept-nowhere")).error(503, "StoreUnavailable")
        (await front.get("/readyz")).error(503, "StoreUnavailable")
        assert (await front.get("/healthz")).status == 200


async def test_finished_task_is_answered_although_the_front_is_full(
    make_agent: MakeAgent, engine: Agent, shared: dict[str, Any]
) -> None:
    front = await make_agent(
        role="front", engine_url=engine.url, engine_api_key=KEY, concurrency=1, queue_size=0, **shared
    )
    graph = graphs.painted(graphs.fresh_color())
    over = (await front.run(graph, "over")).ok()
    call = asyncio.create_task(front.run(graphs.stepping(steps=1000), "fills-it"))
    await front.running_later("fills-it")
    (await front.run(graphs.painted(), "new")).error(429, "QueueFull")
    assert (await front.run(graph, "over")).ok() == over
    await front.cancel("fills-it")
    (await call).error(410, "TaskCancelled")


async def test_pre_stop_lets_the_flights_land(front: Agent) -> None:
    call = asyncio.create_task(front.run(graphs.stepping(steps=20, color=graphs.fresh_color()), "landing"))
    await front.running_later("landing")
    assert front.parts[RUNNER].queue()["running"] == ["landing"]
    assert (await front.get("/pre-stop")).ok() == {"status": "ok"}
    assert (await call).results("3")
    (await front.run(graphs.painted())).error(503, "ShuttingDown")
    (await front.get("/readyz")).error(503, "ShuttingDown")


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.front.runner.RETRY_PAUSES", (0.01, 0.01))


def noise() -> bytes:
    """A picture that does not fit into an asynchronous request."""
    file = io.BytesIO()
    Image.frombytes("RGB", (300, 300), random.Random(0).randbytes(270_000)).save(file, "PNG")
    return file.getvalue()


def listening(
    handler: Callable[[web.Request], Awaitable[web.Response]],
) -> contextlib.AbstractAsyncContextManager[str]:
    """An address at which this handler answers every request."""
    return serving(web.route("*", "/{path:.*}", handler), client_max_size=2**26)


class TestNamedWorkflows:
    """The front fills in the values itself, and forwards the graph as any other."""

    async def run(self, agent: Agent, headers: dict[str, str], **parameters: Any) -> Any:
        return await agent.call(
            "POST", "/api/workflows/invert/run", json={"parameters": parameters}, headers=headers
        )

    async def test_run_is_forwarded_and_named(self, front: Agent, engine: Agent) -> None:
        picture = b64(png((255, 0, 0)))
        answer = await self.run(front, {"task-id": "named-forward"}, image=picture)
        assert color_of(*answer.results("3")) == (0, 255, 255)
        for agent in (front, engine):
            assert (await agent.task("named-forward"))["workflow_name"] == "invert"
        again = await self.run(front, {"task-id": "named-forward", "Accept": "image/webp"}, image=picture)
        assert (again.status, again.headers["Content-Type"]) == (200, "image/webp")
        direct = await self.run(front, {"Accept": "image/png"}, image=b64(png((0, 0, 255))))
        assert color_of(direct.body) == (255, 255, 0)
        assert direct.headers["task-id"]

    async def test_wrong_value_is_refused_at_the_front(self, front: Agent, engine: Agent) -> None:
        async with engine.engine.asked(0):
            answer = await self.run(front, {"Prefer": "respond-async"}, image=5)
        assert answer.error(422, "InvalidParameter")["parameter"] == "image"

    async def test_asynchronous_run_is_followed_at_the_front(self, front: Agent) -> None:
        headers = {"Prefer": "respond-async", "task-id": "named-later"}
        answer = await self.run(front, headers, image=b64(png((255, 0, 0))))
        assert answer.status == 202
        assert (await front.succeeded("named-later"))["workflow_name"] == "invert"

    async def test_list_leaves_open_what_is_available(self, front: Agent) -> None:
        found = (await front.get("/api/workflows")).ok()["workflows"]
        assert {workflow["available"] for workflow in found} == {None}
