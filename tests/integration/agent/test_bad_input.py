"""What callers get wrong: a code, a sentence, the node concerned; the engine is not asked, and goes on."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.integration.agent import graphs
from tests.integration.agent.pictures import color_of
from tests.integration.agent.service import PATIENCE_SECONDS, Agent, check_error, eventually

OK = graphs.painted()

UI_EXPORT = {
    "last_node_id": 2,
    "nodes": [{"id": 1, "type": "EmptyImage", "widgets_values": [8, 8, 1, 0]}],
    "links": [],
    "groups": [],
    "version": 0.4,
}


def with_value(text: str) -> bytes:
    """A workflow with this piece of JSON as the value of an input."""
    return json.dumps(OK).replace('"agent-test"', text).encode()


REFUSED: dict[str, tuple[Any, str, str | None]] = {
    "nothing": (b"", "InvalidJson", None),
    "not JSON": (b"{not json", "InvalidJson", None),
    "half": (json.dumps(OK).encode()[:-5], "InvalidJson", None),
    "form": (b"prompt=1&x=2", "InvalidJson", None),
    "not UTF-8": (b'{"1": "\xff\xfe"}', "InvalidJson", None),
    "UTF-16": (json.dumps(OK).encode("utf-16"), "InvalidJson", None),
    "trailing text": (json.dumps(OK).encode() + b" x", "InvalidJson", None),
    "NaN": (with_value("NaN"), "InvalidJson", None),
    "Infinity": (with_value("-Infinity"), "InvalidJson", None),
    "1e400": (with_value("1e400"), "InvalidWorkflow", "2"),
    "1e400 in a list": (with_value("[1, [1e400]]"), "InvalidWorkflow", None),
    "1e400 in an object": (with_value('{"a": 1e400}'), "InvalidWorkflow", None),
    "deep nesting": (b'{"1":' * 50_000 + b"1" + b"}" * 50_000, "InvalidJson", None),
    "deep list": (b"[" * 100_000, "InvalidJson", None),
    "lone surrogate": (with_value('"\\ud800"'), "InvalidJson", None),
    "list": ([OK], "InvalidWorkflow", None),
    "string": ("workflow", "InvalidWorkflow", None),
    "number": (7, "InvalidWorkflow", None),
    "true": (True, "InvalidWorkflow", None),
    "null": (None, "InvalidWorkflow", None),
    "empty workflow": ({}, "InvalidWorkflow", None),
    "UI export": (UI_EXPORT, "InvalidWorkflow", None),
    "UI export in an envelope": ({"prompt": UI_EXPORT}, "InvalidWorkflow", None),
    "empty envelope": ({"prompt": {}}, "InvalidWorkflow", None),
    "envelope with null": ({"prompt": None}, "InvalidWorkflow", None),
    "envelope with text": ({"prompt": json.dumps(OK)}, "InvalidWorkflow", None),
    "node is a number": ({**OK, "3": 5}, "InvalidWorkflow", "3"),
    "node is null": ({**OK, "3": None}, "InvalidWorkflow", "3"),
    "node is a list": ({**OK, "3": []}, "InvalidWorkflow", "3"),
    "node without class": ({**OK, "3": {"inputs": {}}}, "InvalidWorkflow", "3"),
    "class is no text": ({**OK, "3": {"class_type": 5, "inputs": {}}}, "InvalidWorkflow", "3"),
    "node without inputs": ({**OK, "3": {"class_type": "EmptyImage"}}, "InvalidWorkflow", "3"),
    "inputs is a list": ({**OK, "3": {"class_type": "EmptyImage", "inputs": []}}, "InvalidWorkflow", "3"),
    "link to nowhere": (graphs.chain(graphs.save(images=["99", 0])), "InvalidWorkflow", "1"),
    "cycle": (graphs.cycle(), "InvalidWorkflow", "2"),
    "link to itself": (graphs.chain(graphs.save(images=["1", 0])), "InvalidWorkflow", "1"),
    "no output node": (graphs.chain(graphs.empty()), "InvalidWorkflow", None),
    "unknown class": ({**OK, "3": graphs.node("NoSuchNode", "Mine")}, "UnknownNodeClass", "3"),
    "class with odd letters": ({**OK, "3": graphs.node("Näh\n<b>")}, "UnknownNodeClass", "3"),
    "unknown option": ({"prompt": OK, "wrong": 1}, "InvalidOptions", None),
    "extra_data is no object": ({"prompt": OK, "extra_data": "x"}, "InvalidOptions", None),
    "number is no number": ({"prompt": OK, "number": "first"}, "InvalidOptions", None),
    "front is no bool": ({"prompt": OK, "front": 1}, "InvalidOptions", None),
    "extra_data with 1e400": (
        b'{"prompt": %s, "extra_data": {"a": [1e400]}}' % json.dumps(OK).encode(),
        "InvalidOptions",
        None,
    ),
}

#: These are ComfyUI's to find, so that it is asked, but queues nothing.
REFUSED_BY_ENGINE: dict[str, tuple[Any, str]] = {
    "missing input": (graphs.chain(graphs.node("EmptyImage", width=8, height=8), graphs.save()), "1"),
    "no image linked": (graphs.chain(graphs.node("SaveImage", filename_prefix="x")), "1"),
    "value out of range": (graphs.painted(size=(0, 8)), "1"),
    "value of wrong type": (graphs.painted(size=("wide", 8)), "1"),  # type: ignore[arg-type]
    "link to a slot that is not there": (
        graphs.chain(graphs.empty(), graphs.save(images=["1", 7])),
        "2",
    ),
    "link to the wrong kind": (
        graphs.chain(graphs.node("PrimitiveInt", value=1), graphs.save()),
        "2",
    ),
}


@pytest.mark.real
@pytest.mark.parametrize(("body", "code", "node_id"), REFUSED.values(), ids=REFUSED)
async def test_request_is_refused_without_asking_the_engine(
    agent: Agent, body: Any, code: str, node_id: str | None
) -> None:
    async with agent.engine.asked(0):
        answer = await agent.run(body)
    error = answer.error(400, code)
    if node_id is not None:
        assert error["node_id"] == node_id
    assert color_of(*(await agent.run(graphs.painted(graphs.RED))).results("2")) == (255, 0, 0)


@pytest.mark.real
@pytest.mark.parametrize(("body", "node_id"), REFUSED_BY_ENGINE.values(), ids=REFUSED_BY_ENGINE)
async def test_refusal_of_the_engine_is_passed_on_whole(agent: Agent, body: Any, node_id: str) -> None:
    async with agent.engine.asked(1):
        error = (await agent.run(body)).error(400, "WorkflowRejected")
    assert error["node_id"] in error["node_errors"]
    assert node_id in error["node_errors"]
    assert error["node_errors"][node_id]["errors"][0]["type"]
    assert f'"{node_id}"' in error["detail"]
    await eventually(agent.engine.is_idle)


@pytest.mark.real
async def test_editor_export_is_recognised_and_the_remedy_is_named(agent: Agent) -> None:
    for body in (UI_EXPORT, {"prompt": UI_EXPORT}):
        assert "Export (API)" in (await agent.run(body)).error(400, "InvalidWorkflow")["detail"]


@pytest.mark.real
async def test_unknown_class_names_node_title_and_class(agent: Agent) -> None:
    error = (await agent.run({**OK, "3": graphs.node("NoSuchNode", "My node")})).error(
        400, "UnknownNodeClass"
    )
    assert (error["node_id"], error["node_title"], error["node_class"]) == ("3", "My node", "NoSuchNode")
    assert error["unknown"] == ["NoSuchNode"]


async def test_refused_task_can_be_read_with_its_error(agent: Agent) -> None:
    (await agent.run(graphs.chain(graphs.empty()), "refused-1")).error(400, "InvalidWorkflow")
    record = await agent.task("refused-1")
    assert (record["state"], record["error"]["code"]) == ("failed", "InvalidWorkflow")


BIG = 50 * 2**20


@pytest.mark.parametrize("is_chunked", [False, True], ids=["with length", "chunked"])
async def test_body_of_50_megabytes_is_refused(agent: Agent, is_chunked: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield bytes(2**20)

    started = time.monotonic()
    async with agent.engine.asked(0):
        answer = await agent.call("POST", "/api/run", data=pieces() if is_chunked else io.BytesIO(bytes(BIG)))
    error = answer.error(413, "BodyTooLarge")
    assert error["limit"] == agent.settings.max_body_bytes
    assert time.monotonic() - started < PATIENCE_SECONDS
    assert (await agent.run(graphs.painted())).status == 200


@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"], ids=["at once", "after 100-continue"])
async def test_body_that_is_announced_too_large_is_refused_before_it_is_sent(
    agent: Agent, expect: bytes
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", agent.port)
    writer.write(b"POST /api/run HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n" % (expect, BIG))
    async with asyncio.timeout(PATIENCE_SECONDS):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 413 "), head
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        check_error(json.loads(await reader.readexactly(length)), "BodyTooLarge")
    writer.close()


async def test_body_that_waits_for_100_continue_is_asked_for(agent: Agent) -> None:
    answer = await agent.call("POST", "/api/run", json=graphs.painted(), expect100=True)
    assert answer.status == 200


async def test_compressed_body_counts_by_its_unpacked_size(agent: Agent) -> None:
    packed = gzip.compress(bytes(BIG))
    answer = await agent.call("POST", "/api/run", data=packed, headers={"Content-Encoding": "gzip"})
    answer.error(413, "BodyTooLarge")


async def test_body_within_the_limit_runs(make_agent: Any) -> None:
    body = json.dumps(graphs.painted()).encode()
    exact = await make_agent(max_body_bytes=len(body))
    assert (await exact.run(body)).status == 200
    (await exact.run(body + b" ")).error(413, "BodyTooLarge")


ROUTES = [
    ("POST", "/", 405),
    ("GET", "/nowhere", 404),
    ("POST", "/nowhere", 404),
    ("GET", "/api", 404),
    ("GET", "/api/run/", 404),
    ("GET", "/api/tasks/", 404),
    ("GET", "/view?filename=x.png", 404),
    ("POST", "/prompt", 404),
    ("GET", "/api/run", 405),
    ("PUT", "/api/run", 405),
    ("DELETE", "/api/run", 405),
    ("OPTIONS", "/api/run", 405),
    ("POST", "/api/status", 405),
    ("POST", "/api/tasks", 405),
    ("PATCH", "/api/tasks/x", 405),
    ("POST", "/api/run/ws", 405),
    ("POST", "/healthz", 405),
]


@pytest.mark.parametrize(("method", "path", "status"), ROUTES)
async def test_unknown_route_and_wrong_method_answer_like_every_error(
    agent: Agent, method: str, path: str, status: int
) -> None:
    answer = await agent.call(method, path)
    answer.error(status, {404: "NotFound", 405: "MethodNotAllowed"}[status])
    assert ("Allow" in answer.headers) == (status == 405)


async def test_wrong_method_names_those_that_are_allowed(agent: Agent) -> None:
    assert (await agent.get("/api/run")).headers["Allow"] == "POST"
    assert set((await agent.call("PUT", "/api/tasks/x")).headers["Allow"].split(", ")) == {
        "DELETE",
        "GET",
        "HEAD",
    }


async def test_plain_get_of_the_websocket_route_is_an_error_in_json(agent: Agent) -> None:
    handshake = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    key = "MDEyMzQ1Njc4OWFiY2RlZg=="
    for headers in (
        {},
        {"Upgrade": "websocket"},
        handshake,
        {**handshake, "Sec-WebSocket-Key": "short"},
        {**handshake, "Sec-WebSocket-Key": "é"},
        {**handshake, "Sec-WebSocket-Key": key, "Sec-WebSocket-Version": "1"},
    ):
        answer = await agent.get("/api/run/ws", headers=headers)
        assert "is a WebSocket" in answer.error(400, "InvalidRequest")["detail"]
