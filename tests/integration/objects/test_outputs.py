"""Outputs that go to the object store: asked for, or because an answer would be too large."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from agent.client import AgentClient
from tests.integration.agent import graphs
from tests.integration.agent.pictures import b64, color_of, png
from tests.integration.agent.service import Agent, Answer, MakeAgent
from tests.integration.reliability.proxy import TcpProxy
from tests.object_store import KEY_SECRET, Bucket, call
from tests.redis_server import RedisServer

RED, GREEN = (255, 0, 0), (0, 255, 0)


def two_pictures() -> graphs.Graph:
    """Node "2" saves a red picture, node "4" a green one."""
    one, other = graphs.painted(graphs.RED), graphs.painted(graphs.GREEN)
    save = {**other["2"], "inputs": {**other["2"]["inputs"], "images": ["3", 0]}}
    return {**one, "3": other["1"], "4": save}


def wanting(graph: graphs.Graph, outputs: str) -> dict[str, Any]:
    return {"prompt": graph, "outputs": outputs}


async def download(url: str) -> bytes:
    return (await asyncio.to_thread(call, url))[1]


def urls_of(answer: Answer, node: str = "2") -> list[str]:
    found: list[str] = answer.ok()[node]["urls"]
    assert "results" not in answer.json[node]
    return found


async def test_synchronous_run_answers_with_signed_urls(make_agent: MakeAgent, bucket: Bucket) -> None:
    agent = await make_agent(**bucket.settings("pre/fix", signed_url_seconds=123))
    answer = await agent.run(wanting(two_pictures(), "url"), "sync-url")
    (red,), (green,) = urls_of(answer, "2"), urls_of(answer, "4")
    assert [color_of(await download(url)) for url in (red, green)] == [RED, GREEN]
    assert parse_qs(urlsplit(red).query)["X-Amz-Expires"] == ["123"]
    assert "results" not in answer.json["1"]
    keys = bucket.keys()
    assert [key.rpartition("-agent")[0] for key in keys] == ["pre/fix/sync-url/1/0", "pre/fix/sync-url/1/1"]
    outputs = (await agent.task("sync-url"))["outputs"]
    assert [output["object_key"] for output in outputs] == keys
    assert [output["url"] for output in outputs] == [f"/api/tasks/sync-url/outputs/{n}" for n in (0, 1)]
    assert color_of(await download(outputs[1]["signed_url"])) == GREEN


async def test_output_redirects_to_the_same_bytes_and_nobody_keeps_the_redirect(
    make_agent: MakeAgent, bucket: Bucket, engine: Any
) -> None:
    agent = await make_agent(**bucket.settings(outputs="url"))
    answer = await agent.run(graphs.painted(graphs.RED))
    task_id = answer.headers["task-id"]
    (image,) = answer.json["2"]["images"]
    redirect = await agent.output(task_id, 0)
    assert (redirect.status, redirect.headers["Cache-Control"]) == (302, "no-store")
    stored = await engine.view(image["filename"])
    assert await download(redirect.headers["Location"]) == stored
    assert (await agent.output(task_id, 1)).error(404, "OutputNotFound")


async def test_asynchronous_run_with_redis_keeps_the_bytes_out_of_it(
    make_agent: MakeAgent, bucket: Bucket, redis_server: RedisServer, redis_prefix: str
) -> None:
    shared = {"redis_url": redis_server.url, "redis_prefix": redis_prefix, **bucket.settings("p")}
    one, other = await make_agent(**shared), await make_agent(**shared)
    with capture_logs() as lines:
        task_id = await one.begin(wanting(graphs.painted(graphs.GREEN), "url"))
        record = await other.succeeded(task_id)
        (url,) = urls_of(await other.status(task_id))
        page = (await other.get("/api/tasks")).ok()["tasks"]
        stream = (await other.get(f"/api/tasks/{task_id}/events")).body.decode()
    assert color_of(await download(url)) == GREEN
    assert "upload" in record["timings"]
    shown = [record["outputs"][0], page[0]["outputs"][0], json.loads(stream[6:])["outputs"][0]]
    for output in shown:
        assert await download(output["signed_url"]) == await download(url)
    async with Redis.from_url(redis_server.url) as client:
        keys = [key async for key in client.scan_iter(f"{redis_prefix}*")]
        assert [key for key in keys if b":output:" in key] == []
        kept = str([await client.dump(key) for key in keys])
    for text in (kept, str(lines)):
        assert "X-Amz" not in text
        assert "Signature" not in text
        assert KEY_SECRET not in text


async def test_request_says_inline_where_the_server_would_say_url(
    make_agent: MakeAgent, bucket: Bucket
) -> None:
    agent = await make_agent(**bucket.settings(outputs="url"))
    answer = await agent.run(wanting(graphs.painted(graphs.RED), "inline"))
    assert [color_of(data) for data in answer.results("2")] == [RED]
    assert bucket.keys() == []
    record = await agent.task(answer.headers["task-id"])
    assert (record["outputs"][0]["object_key"], record["outputs"][0]["signed_url"]) == (None, None)


async def test_websocket_gives_urls_too(make_agent: MakeAgent, bucket: Bucket) -> None:
    agent = await make_agent(**bucket.settings())
    async with agent.http.ws_connect("/api/run/ws") as socket:
        await socket.send_json(wanting(graphs.painted(graphs.RED), "url"))
        async for message in socket:
            last = message.json()
    assert last["type"] == "result"
    assert color_of(await download(last["data"]["2"]["urls"][0])) == RED


async def test_python_client_gives_the_same_pictures_either_way(
    make_agent: MakeAgent, bucket: Bucket
) -> None:
    agent = await make_agent(api_keys=["k"], **bucket.settings())

    def use() -> list[Any]:
        with AgentClient(agent.url, api_key="k") as client:
            by_url = client.run(wanting(two_pictures(), "url"), "client-1")
            inline = client.run(wanting(two_pictures(), "inline"), "client-2")
            assert "urls" not in by_url.nodes["2"]
            assert client.fetch_output("client-1", 1) == by_url.outputs[1].data
            return [picture.getpixel((0, 0)) for result in (by_url, inline) for picture in result.images()]

    assert await asyncio.to_thread(use) == [RED, GREEN, RED, GREEN]


@pytest.mark.parametrize("value", ["url", "inline "])
async def test_urls_without_a_store_are_refused_before_anything_runs(
    make_agent: MakeAgent, engine: Any, value: str
) -> None:
    agent = await make_agent()
    async with engine.asked(0):
        error = (await agent.run(wanting(graphs.painted(), value))).error(400, "InvalidOptions")
        await agent.submit(wanting(graphs.painted(), value), "refused-url")
    assert "outputs" in error["detail"]
    assert value != "url" or "AGENT_OBJECT_STORE" in error["detail"]


async def test_failed_upload_delivers_inline_with_a_warning(make_agent: MakeAgent, bucket: Bucket) -> None:
    async with TcpProxy(bucket.server.port) as proxy:
        limits = {"object_store_endpoint": proxy.url, "object_store_timeout_seconds": 1}
        agent = await make_agent(**bucket.settings(**limits))
        proxy.refuses = True
        answer = await agent.run(wanting(two_pictures(), "url"), "not-uploaded")
        assert [color_of(data) for node in "24" for data in answer.results(node)] == [RED, GREEN]
        record = await agent.task("not-uploaded")
        assert (record["state"], len(record["attempts"])) == ("succeeded", 1)
        assert [(w["code"], w["node_id"]) for w in record["warnings"]] == [
            ("OutputNotUploaded", "2"),
            ("OutputNotUploaded", "4"),
        ]
        assert [output["object_key"] for output in record["outputs"]] == [None, None]
        assert color_of((await agent.output("not-uploaded", 1)).body) == GREEN


async def test_upload_that_is_interrupted_is_tried_again(make_agent: MakeAgent, bucket: Bucket) -> None:
    async with TcpProxy(bucket.server.port) as proxy:
        agent = await make_agent(**bucket.settings(object_store_endpoint=proxy.url))
        proxy.refuses = True
        running = asyncio.create_task(agent.run(wanting(graphs.painted(graphs.RED), "url")))
        async with asyncio.timeout(20):
            while not proxy.refused:
                await asyncio.sleep(0.01)  # the run has to come that far
        proxy.refuses = False
        (url,) = urls_of(await running)
    assert len(bucket.keys()) == 1
    assert "X-Amz-Signature" in url


async def test_answer_over_the_limit_goes_to_the_store(make_agent: MakeAgent, bucket: Bucket) -> None:
    agent = await make_agent(max_answer_bytes=700, **bucket.settings())
    answer = await agent.run(graphs.painted(graphs.RED, (64, 64)), "spilled")
    (url,) = urls_of(answer)
    assert color_of(await download(url)) == RED
    assert len(bucket.keys()) == 1
    small = await make_agent(max_answer_bytes=4000, **bucket.settings())
    assert [color_of(d) for d in (await small.run(graphs.painted(graphs.RED))).results("2")] == [RED]


async def test_without_a_store_a_large_answer_points_to_the_agents_own_route(
    make_agent: MakeAgent, redis_server: RedisServer, redis_prefix: str
) -> None:
    agent = await make_agent(
        max_answer_bytes=700, redis_url=redis_server.url, redis_prefix=redis_prefix, invocation="gateway"
    )
    graph = graphs.painted(graphs.RED, (64, 64))
    answer = await agent.run(graph, "own-route")
    assert urls_of(answer) == ["/api/tasks/own-route/outputs/0"]
    assert urls_of(await agent.status("own-route")) == ["/api/tasks/own-route/outputs/0"]
    output = await agent.output("own-route", 0)
    assert color_of(output.body) == RED
    async with agent.http.ws_connect("/api/run/ws", headers={"task-id": "own-route"}) as socket:
        await socket.send_json(graph)
        messages = [message.json() async for message in socket]
    assert messages[-1]["data"]["2"]["urls"] == ["/api/tasks/own-route/outputs/0"]

    def use() -> bytes:
        with AgentClient(agent.url) as client:
            return client.run(graph, "own-route").outputs[0].data

    assert await asyncio.to_thread(use) == output.body


async def test_large_answer_whose_store_is_away_may_be_asked_for_again(
    make_agent: MakeAgent, private_redis: RedisServer
) -> None:
    agent = await make_agent(max_answer_bytes=700, redis_url=private_redis.url, redis_timeout_seconds=1)
    graph = graphs.painted(graphs.RED, (64, 64))
    await asyncio.to_thread(private_redis.stop)
    answer = await agent.run(graph, "too-early")
    assert answer.error(503, "StoreUnavailable")["transient"] is True
    await asyncio.to_thread(private_redis.start)
    (url,) = urls_of(await agent.run(graph, "not-too-early"))
    assert color_of((await agent.get(url)).body) == RED


async def test_too_large_an_upload_that_fails_has_no_place_and_may_be_tried_again(
    make_agent: MakeAgent, bucket: Bucket
) -> None:
    async with TcpProxy(bucket.server.port) as proxy:
        limits = {"object_store_endpoint": proxy.url, "object_store_timeout_seconds": 1}
        agent = await make_agent(max_answer_bytes=700, invocation="gateway", **bucket.settings(**limits))
        proxy.refuses = True
        answer = await agent.run(graphs.painted(graphs.RED, (64, 64)), "no-place")
        error = answer.error(503, "ObjectStoreUnavailable")
        assert error["transient"] is True
        assert answer.headers["x-fc-status"] == "404"
        proxy.refuses = False
        again = await agent.run(graphs.painted(graphs.RED, (64, 64)), "no-place")
        assert len(urls_of(again)) == 1


async def test_batch_that_surely_is_too_large_is_refused_before_the_gpu(
    make_agent: MakeAgent, engine: Any
) -> None:
    agent = await make_agent(max_answer_bytes=10_000)
    graph = graphs.sampled()
    graph["4"]["inputs"]["batch_size"] = 8
    async with engine.asked(0):
        error = (await agent.run(graph, "refused")).error(413, "AnswerTooLarge")
    assert (error["node_id"], error["pixels"], error["limit"]) == ("7", 64 * 64 * 8, 10_000)
    assert "AGENT_OBJECT_STORE" in error["detail"]
    assert "smaller batch" in error["detail"]


async def test_answer_that_turns_out_too_large_without_a_place_fails_whole(make_agent: MakeAgent) -> None:
    agent = await make_agent(max_answer_bytes=700)
    answer = await agent.run(graphs.painted(graphs.RED, (64, 64)), "after-all")
    assert answer.error(413, "AnswerTooLarge")["transient"] is False
    record = await agent.task("after-all")
    assert (record["state"], record["error"]["code"]) == ("failed", "AnswerTooLarge")


class TestRange:
    """A file that is too large for one answer is fetched in parts."""

    async def whole(self, agent: Agent) -> tuple[str, bytes]:
        answer = await agent.run(graphs.painted(graphs.RED, (64, 64)))
        task_id = answer.headers["task-id"]
        return task_id, answer.results("2")[0]

    async def part(self, agent: Agent, task_id: str, wanted: str, **more: str) -> Answer:
        return await agent.get(f"/api/tasks/{task_id}/outputs/0", headers={"Range": wanted, **more})

    async def test_parts_make_the_whole(self, make_agent: MakeAgent) -> None:
        agent = await make_agent()
        task_id, data = await self.whole(agent)
        size, parts = len(data), []
        for first in range(0, size, 50):
            answer = await self.part(agent, task_id, f"bytes={first}-{first + 49}")
            assert answer.status == 206
            last = min(first + 49, size - 1)
            assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{size}"
            parts.append(answer.body)
        assert b"".join(parts) == data
        assert (await self.part(agent, task_id, "bytes=10-")).body == data[10:]
        assert (await self.part(agent, task_id, "bytes=-7")).body == data[-7:]
        assert (await agent.output(task_id, 0)).headers["Accept-Ranges"] == "bytes"

    async def test_what_is_not_there_is_416(self, make_agent: MakeAgent) -> None:
        agent = await make_agent()
        task_id, data = await self.whole(agent)
        for wanted in (f"bytes={len(data)}-", "bytes=-0"):
            answer = await self.part(agent, task_id, wanted)
            answer.error(416, "RangeNotSatisfiable")
            assert answer.headers["Content-Range"] == f"bytes */{len(data)}"

    @pytest.mark.parametrize("wanted", ["bytes=0-1,4-5", "lines=1-2", "bytes=5-2", "bytes=-", "x"])
    async def test_what_is_no_single_range_gets_the_whole(self, make_agent: MakeAgent, wanted: str) -> None:
        agent = await make_agent()
        task_id, data = await self.whole(agent)
        answer = await self.part(agent, task_id, wanted)
        assert (answer.status, answer.body) == (200, data)
        answer = await self.part(agent, task_id, "bytes=0-1", **{"If-Range": '"x"'})
        assert (answer.status, answer.body) == (200, data)

    async def test_client_fetches_what_is_too_large_in_parts(
        self, make_agent: MakeAgent, redis_server: RedisServer, redis_prefix: str
    ) -> None:
        shared = {"redis_url": redis_server.url, "redis_prefix": redis_prefix}
        task_id, data = await self.whole(await make_agent(**shared))
        agent = await make_agent(max_answer_bytes=100, **shared)
        error = (await agent.output(task_id, 0)).error(413, "AnswerTooLarge")
        assert (error["bytes"], error["limit"]) == (len(data), 100)

        def fetch() -> bytes:
            with AgentClient(agent.url) as client:
                return client.fetch_output(task_id, 0)

        assert await asyncio.to_thread(fetch) == data


async def test_engine_runs_the_next_prompt_while_outputs_are_on_their_way(
    make_agent: MakeAgent, bucket: Bucket
) -> None:
    async with TcpProxy(bucket.server.port) as proxy:
        limits = {"object_store_endpoint": proxy.url, "object_store_timeout_seconds": 60}
        agent = await make_agent(concurrency=1, **bucket.settings(**limits))
        proxy.stall()
        uploading = asyncio.create_task(agent.run(wanting(graphs.painted(graphs.RED), "url"), "first"))
        async with asyncio.timeout(20):
            while not proxy.accepted:
                await asyncio.sleep(0.01)  # the run has to come that far
        second = await agent.run(graphs.painted(graphs.GREEN), "second")
        assert [color_of(data) for data in second.results("2")] == [GREEN]
        assert (await agent.task("first"))["state"] == "running"
        proxy.resume()
        (url,) = urls_of(await uploading)
    assert color_of(await download(url.replace(proxy.url, bucket.server.url))) == RED


async def test_cancel_ends_a_task_whose_outputs_are_on_their_way(
    make_agent: MakeAgent, bucket: Bucket
) -> None:
    async with TcpProxy(bucket.server.port) as proxy:
        agent = await make_agent(**bucket.settings(object_store_endpoint=proxy.url))
        proxy.stall()
        uploading = asyncio.create_task(agent.run(wanting(graphs.painted(), "url"), "unwanted"))
        async with asyncio.timeout(20):
            while not proxy.accepted:
                await asyncio.sleep(0.01)  # the run has to come that far
        assert (await agent.cancel("unwanted")).ok()["state"] == "cancelled"
        (await uploading).error(410, "TaskCancelled")
        proxy.resume()


async def test_another_owner_writes_beside_what_the_first_one_wrote(
    make_agent: MakeAgent, bucket: Bucket
) -> None:
    agent = await make_agent(**bucket.settings())
    graph = wanting(graphs.stepping(steps=500, color=graphs.RED), "url")
    hung_up = asyncio.create_task(agent.run(graph, "twice"))
    await agent.running_later("twice")
    hung_up.cancel()
    await asyncio.gather(hung_up, return_exceptions=True)
    await agent.finished("twice")
    assert bucket.keys() == []
    second = asyncio.create_task(agent.run(graph, "twice"))
    (url,) = urls_of(await second, "3")
    assert color_of(await download(url)) == RED
    (key,) = bucket.keys()
    assert key.startswith("twice/2/0-")


async def test_front_signs_what_the_engine_function_has_stored(
    make_agent: MakeAgent, bucket: Bucket, redis_server: RedisServer, redis_prefix: str
) -> None:
    shared = {"redis_url": redis_server.url, "redis_prefix": redis_prefix, **bucket.settings()}
    function = await make_agent(role="engine", **shared)
    front = await make_agent(role="front", engine_url=function.url, **shared)
    (url,) = urls_of(await front.run(wanting(graphs.painted(graphs.RED), "url"), "through"))
    redirect = await front.output("through", 0)
    record = await front.task("through")
    links = [url, redirect.headers["Location"], record["outputs"][0]["signed_url"]]
    assert [color_of(await download(link)) for link in links] == [RED] * 3
    blind = await make_agent(role="front", engine_url=function.url, **{**shared, "object_store": None})
    (await blind.output("through", 0)).error(503, "ObjectStoreUnavailable")
    assert urls_of(await blind.status("through")) == ["/api/tasks/through/outputs/0"]


async def run_named(agent: Agent, accept: str, **options: Any) -> Answer:
    body = {"parameters": {"image": b64(png(RED))}, **options}
    return await agent.call("POST", "/api/workflows/invert/run", json=body, headers={"Accept": accept})


async def test_picture_itself_is_answered_inline_unless_its_caller_says_url(
    make_agent: MakeAgent, bucket: Bucket
) -> None:
    agent = await make_agent(**bucket.settings(outputs="url"))
    inline = await run_named(agent, "image/webp")
    assert (inline.status, inline.headers["Content-Type"]) == (200, "image/webp")
    assert bucket.keys() == []
    redirect = await run_named(agent, "image/webp", outputs="url")
    assert (redirect.status, redirect.body) == (303, b"")
    assert redirect.headers["Cache-Control"] == "no-store"
    assert color_of(await download(redirect.headers["Location"])) == (0, 255, 255)


async def test_picture_of_a_front_that_lies_in_the_object_store_is_a_redirect(
    make_agent: MakeAgent, bucket: Bucket, redis_server: RedisServer, redis_prefix: str
) -> None:
    shared = {"redis_url": redis_server.url, "redis_prefix": redis_prefix, **bucket.settings()}
    engine = await make_agent(**shared)
    front = await make_agent(role="front", engine_url=engine.url, **shared)
    redirect = await run_named(front, "image/png", outputs="url")
    assert redirect.status == 303
    assert color_of(await download(redirect.headers["Location"])) == (0, 255, 255)
