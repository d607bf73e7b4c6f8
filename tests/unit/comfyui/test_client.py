"""What the HTTP client makes of answers, good and bad."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from comfyui.client import Client, FileRef, HistoryEntry
from comfyui.errors import (
    EngineUnreachableError,
    FileMissingError,
    PromptRejectedError,
    UnexpectedAnswerError,
)
from tests.ports import free_port
from tests.unit.comfyui.canned import CannedEngine, break_off, refuse

PROMPT_ID = "5d0c6ab5-8d2f-4a55-9f39-4f3f9cbb1f10"


@pytest.fixture
async def engine() -> AsyncIterator[CannedEngine]:
    one = CannedEngine()
    await one.start()
    yield one
    await one.stop()


@pytest.fixture
async def client(engine: CannedEngine) -> AsyncIterator[Client]:
    one = Client(f"{engine.url}/")
    yield one
    await one.close()


async def submit(client: Client, **more: Any) -> Any:
    return await client.submit({"1": {}}, prompt_id=PROMPT_ID, client_id="c", **more)


def sent(engine: CannedEngine) -> Any:
    return json.loads(engine.asked[-1].body)


ACCEPTED = {"prompt_id": PROMPT_ID, "number": 3, "node_errors": {}}


async def test_a_submission_is_exactly_this(client: Client, engine: CannedEngine) -> None:
    engine.respond("POST /prompt", json=ACCEPTED)
    submitted = await submit(client)
    assert (submitted.prompt_id, submitted.number, submitted.node_errors) == (PROMPT_ID, 3, {})
    assert sent(engine) == {"prompt": {"1": {}}, "client_id": "c", "prompt_id": PROMPT_ID}


@pytest.mark.parametrize("extra_data", [None, {}])
async def test_empty_extra_data_is_never_sent(client: Client, engine: CannedEngine, extra_data: Any) -> None:
    engine.respond("POST /prompt", json=ACCEPTED)
    await submit(client, extra_data=extra_data)
    assert "extra_data" not in sent(engine)


async def test_numbers_leave_as_they_came(client: Client, engine: CannedEngine) -> None:
    engine.respond("POST /prompt", json=ACCEPTED)
    text = (
        '{"a":18446744073709551615,"b":9007199254740993,"c":1.0,"d":0.1,"e":-0.0,"f":1e22,"g":'
        + "9" * 400
        + "}"
    )
    await client.submit({"1": json.loads(text)}, prompt_id=PROMPT_ID, client_id="c")
    body = engine.asked[-1].body.decode()
    for part in (
        '"a":18446744073709551615',
        '"b":9007199254740993',
        '"c":1.0',
        '"d":0.1',
        '"e":-0.0',
        "9" * 400,
    ):
        assert part in body
    assert sent(engine)["prompt"]["1"]["f"] == 1e22


async def test_text_of_any_script_leaves_as_it_came(client: Client, engine: CannedEngine) -> None:
    engine.respond("POST /prompt", json=ACCEPTED)
    graph = {"1": {"text": '猫 "quoted" \\ \n é \U0001f408 \x7f \u2028'}}
    await client.submit(graph, prompt_id=PROMPT_ID, client_id="c")
    assert sent(engine)["prompt"] == graph


async def test_400_with_reasons_is_a_refusal(client: Client, engine: CannedEngine) -> None:
    error = {
        "type": "prompt_outputs_failed_validation",
        "message": "Prompt outputs failed validation",
        "details": "",
    }
    node_errors = {
        "1": {"errors": [{"type": "value_not_in_list"}], "dependent_outputs": ["9"], "class_type": "X"}
    }
    engine.respond("POST /prompt", 400, json={"error": error, "node_errors": node_errors})
    with pytest.raises(PromptRejectedError, match="Prompt outputs failed validation") as refused:
        await submit(client)
    assert (refused.value.error, refused.value.node_errors) == (error, node_errors)
    assert refused.value.type == "prompt_outputs_failed_validation"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"error": "no prompt", "node_errors": []}, "no prompt"),
        ({"error": {"message": "Bad"}, "node_errors": []}, "Bad"),
        ({"error": None}, "refused"),
        ({"error": []}, "refused"),
        ({}, "refused"),
        ({"error": {}, "node_errors": None}, "refused"),
    ],
)
async def test_a_refusal_of_an_older_form_is_one_too(
    client: Client, engine: CannedEngine, answer: Any, message: str
) -> None:
    engine.respond("POST /prompt", 400, json=answer)
    with pytest.raises(PromptRejectedError, match=message) as refused:
        await submit(client)
    assert refused.value.node_errors == {}
    assert refused.value.type == ""


@pytest.mark.parametrize("node_errors", [None, [], "x"])
async def test_an_acceptance_without_node_errors_has_none(
    client: Client, engine: CannedEngine, node_errors: Any
) -> None:
    engine.respond("POST /prompt", json=ACCEPTED | {"node_errors": node_errors})
    assert (await submit(client)).node_errors == {}


def calls(client: Client) -> dict[str, Any]:
    """Every method, as a function without arguments."""
    return {
        "system_stats": client.system_stats,
        "object_info": client.object_info,
        "submit": lambda: submit(client),
        "queue": client.queue,
        "dequeue": lambda: client.dequeue("p"),
        "interrupt": lambda: client.interrupt("p"),
        "history": lambda: client.history("p"),
        "forget": lambda: client.forget(["p"]),
        "free": lambda: client.free(unload_models=True, free_memory=True),
        "fetch_file": lambda: client.fetch_file(FileRef("a.png")),
        "has_file": lambda: client.has_file(FileRef("a.png")),
        "upload": lambda: client.upload("a.png", b"x"),
    }


JSON_METHODS = ["system_stats", "object_info", "submit", "queue", "history", "upload"]


@pytest.mark.parametrize("fault", [refuse, break_off])
async def test_half_an_answer_or_none_is_an_unreachable_engine(
    client: Client, engine: CannedEngine, fault: Any
) -> None:
    engine.answers[""] = fault
    for name, method in calls(client).items():
        if name == "has_file" and fault is break_off:
            continue  # nobody waits for the body of an answer to HEAD
        with pytest.raises(EngineUnreachableError, match="/"):
            await method()


async def test_an_engine_that_does_not_listen_is_unreachable() -> None:
    client = Client(f"http://127.0.0.1:{free_port()}")
    for method in calls(client).values():
        with pytest.raises(EngineUnreachableError):
            await method()
    await client.close()


async def test_an_engine_that_says_nothing_is_unreachable_in_the_end(
    client: Client, engine: CannedEngine
) -> None:
    async def say_nothing(_request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    engine.answers["GET /system_stats"] = say_nothing
    with pytest.raises(EngineUnreachableError, match="GET /system_stats"):
        await client.system_stats(timeout=0.2)


@pytest.mark.parametrize("status", [204, 302, 401, 403, 404, 405, 413, 500, 502])
async def test_another_status_is_an_answer_outside_the_protocol(
    client: Client, engine: CannedEngine, status: int
) -> None:
    engine.respond("", status, body=b"500 Internal Server Error\n\nServer got itself in trouble")
    for name, method in calls(client).items():
        if name == "has_file":
            assert not await method()
        elif name == "fetch_file" and status in (403, 404):
            with pytest.raises(FileMissingError):
                await method()
        else:
            trouble = "204" if status == 204 else "got itself in trouble"
            with pytest.raises(UnexpectedAnswerError, match=trouble) as raised:
                await method()
            assert raised.value.status == status


async def test_a_long_answer_is_not_repeated_whole(client: Client, engine: CannedEngine) -> None:
    engine.respond("", 500, body=b"x" * 100_000)
    with pytest.raises(UnexpectedAnswerError) as raised:
        await client.queue()
    assert len(str(raised.value)) < 700


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"null", b"7", b'"x"', b"{", b"\xff\xfe", b"[" * 100_000]
)
async def test_what_is_no_json_object_is_outside_the_protocol(
    client: Client, engine: CannedEngine, body: bytes
) -> None:
    engine.respond("", 200, body=body)
    for method in JSON_METHODS:
        with pytest.raises(UnexpectedAnswerError, match="200"):
            await calls(client)[method]()


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("submit", {}),
        ("submit", {"prompt_id": "p"}),
        ("submit", {"prompt_id": "p", "number": None}),
        ("submit", {"prompt_id": "p", "number": "x"}),
        ("queue", {}),
        ("queue", {"queue_running": [], "queue_pending": None}),
        ("queue", {"queue_running": [1], "queue_pending": []}),
        ("queue", {"queue_running": [], "queue_pending": [[]]}),
        ("queue", {"queue_running": [], "queue_pending": [[1, "a"], ["x", "b"]]}),
        ("history", {"p": []}),
        ("history", {"p": "x"}),
        ("history", {"p": {"status": []} | {"outputs": [1]}}),
        ("history", {"p": {"status": {"messages": [1]}}}),
        ("history", {"p": {"status": {"messages": [["only"]]}}}),
        ("upload", {}),
        ("upload", {"subfolder": "x"}),
        ("system_stats", {"system": [1]}),
    ],
)
async def test_an_object_that_lacks_what_it_must_have_is_outside_the_protocol(
    client: Client, engine: CannedEngine, method: str, answer: Any
) -> None:
    engine.respond("", json=answer)
    with pytest.raises(UnexpectedAnswerError, match="not as expected"):
        await calls(client)[method]()


async def test_a_400_without_json_is_outside_the_protocol(client: Client, engine: CannedEngine) -> None:
    engine.respond("POST /prompt", 400)
    with pytest.raises(UnexpectedAnswerError, match="400"):
        await submit(client)


async def test_a_prompt_without_history_is_none(client: Client, engine: CannedEngine) -> None:
    engine.respond("GET /history/p", json={})
    assert await client.history("p") is None


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({}, HistoryEntry(succeeded=False, outputs={}, messages=())),
        ({"status": None, "outputs": None}, HistoryEntry(succeeded=False, outputs={}, messages=())),
        (
            {
                "status": {"status_str": "success", "messages": [["execution_start", {"a": 1}]]},
                "outputs": {"9": {"images": []}},
            },
            HistoryEntry(
                succeeded=True, outputs={"9": {"images": []}}, messages=(("execution_start", {"a": 1}),)
            ),
        ),
        (
            {"outputs": {"8": None, "9": {"text": ["a"]}}},
            HistoryEntry(succeeded=False, outputs={"9": {"text": ["a"]}}, messages=()),
        ),
    ],
)
async def test_a_history_entry_is_read(
    client: Client, engine: CannedEngine, entry: Any, expected: HistoryEntry
) -> None:
    engine.respond("GET /history/p", json={"p": entry})
    assert await client.history("p") == expected


@pytest.mark.parametrize(
    ("status", "there"), [(200, True), (400, False), (403, False), (404, False), (500, False)]
)
async def test_a_file_is_there_when_view_would_serve_it(
    client: Client, engine: CannedEngine, status: int, there: bool
) -> None:
    engine.respond("HEAD /view", status)
    assert await client.has_file(FileRef("a.png")) is there


@pytest.mark.parametrize(
    "name", ["a b.png", "a&b=c.png", "a+b.png", "50%.png", "中文.png", "#?.png", "a%20b.png"]
)
async def test_names_reach_view_as_they_are(client: Client, engine: CannedEngine, name: str) -> None:
    engine.respond("GET /view", 200, body=b"x")
    await client.fetch_file(FileRef(name, f"sub {name}", "temp"))
    assert engine.asked[-1].query == {"filename": name, "subfolder": f"sub {name}", "type": "temp"}


async def test_a_file_is_fetched_byte_for_byte(client: Client, engine: CannedEngine) -> None:
    data = bytes(range(256)) * 10
    engine.respond("GET /view", 200, body=data)
    assert await client.fetch_file(FileRef("a.png")) == data


#: More than what the buffers on the way between two sockets take.
SIZE, PIECE = 40 * 2**20, 2**16


class Refused(Exception):
    """There is no room for a file."""


@pytest.mark.parametrize("says_its_length", [True, False])
async def test_a_file_is_read_no_further_than_there_is_room(
    client: Client, engine: CannedEngine, says_its_length: bool
) -> None:
    ended = asyncio.Event()

    async def in_pieces(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(SIZE)} if says_its_length else {})
        try:
            await response.prepare(request)
            for _ in range(0, SIZE, PIECE):
                await response.write(bytes(PIECE))
        finally:
            ended.set()
        return response

    engine.answers["GET /view"] = in_pieces
    room = SIZE

    def reserve(size: int) -> None:
        nonlocal room
        room -= size
        if room < 0:
            raise Refused

    assert len(await client.fetch_file(FileRef("a.png"), reserve)) == SIZE
    assert room == 0
    ended.clear()
    room = 35
    with pytest.raises(Refused):
        await client.fetch_file(FileRef("a.png"), reserve)
    assert room > -SIZE if not says_its_length else room == 35 - SIZE
    async with asyncio.timeout(20):
        await ended.wait()  # the connection was closed, not read to its end


async def test_an_answer_that_was_packed_counts_as_what_it_unpacks_to(
    client: Client, engine: CannedEngine
) -> None:
    packed = gzip.compress(bytes(10_000))
    engine.respond("GET /view", headers={"Content-Encoding": "gzip"}, body=packed)
    reserved: list[int] = []
    assert await client.fetch_file(FileRef("a.png"), reserved.append) == bytes(10_000)
    assert sum(reserved) == 10_000


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ({"name": "a.png", "subfolder": "", "type": "input"}, "a.png"),
        ({"name": "a (1).png", "subfolder": "", "type": "input"}, "a (1).png"),
        ({"name": "a.png", "subfolder": "sub/dir", "type": "input"}, "sub/dir/a.png"),
        ({"name": "a.png"}, "a.png"),
        ({"name": "a.png", "subfolder": None, "asset": {"id": 1}}, "a.png"),
    ],
)
async def test_an_upload_returns_the_name_for_a_loader(
    client: Client, engine: CannedEngine, answer: Any, name: str
) -> None:
    engine.respond("POST /upload/image", json=answer)
    assert await client.upload("a.png", b"data") == name


async def test_an_upload_is_a_form_with_the_bytes_and_the_folder(
    client: Client, engine: CannedEngine
) -> None:
    engine.respond("POST /upload/image", json={"name": "a.png"})
    await client.upload("a.png", b"\x00\xffdata", "temp")
    body = engine.asked[-1].body
    assert b'name="image"; filename="a.png"' in body
    assert b"\r\n\r\n\x00\xffdata\r\n" in body
    assert b'name="type"\r\n\r\ntemp\r\n' in body
    assert b"overwrite" not in body


class TestInterrupt:
    """Versions before 0.3.57 interrupt whatever runs, so there the queue is asked first."""

    @pytest.fixture(autouse=True)
    def queue(self, engine: CannedEngine) -> None:
        engine.respond(
            "GET /queue", json={"queue_running": [[1, "running"]], "queue_pending": [[2, "pending"]]}
        )
        engine.respond("POST /interrupt")

    @pytest.mark.parametrize("version", ["0.3.56", "0.3.43", "0.2.9", "0.3", "0.0.1"])
    async def test_an_old_version_is_spared_when_another_prompt_runs(
        self, client: Client, engine: CannedEngine, version: str
    ) -> None:
        client.version = version
        await client.interrupt("pending")
        await client.interrupt("unknown")
        assert engine.count("POST /interrupt") == 0
        await client.interrupt("running")
        assert engine.count("POST /interrupt") == 1

    @pytest.mark.parametrize("version", ["0.3.57", "0.3.64", "0.4.0", "0.10", "1.0", "", "unknown"])
    async def test_a_new_or_unknown_version_is_told_the_prompt(
        self, client: Client, engine: CannedEngine, version: str
    ) -> None:
        client.version = version
        await client.interrupt("pending")
        assert engine.count("POST /interrupt") == 1
        assert sent(engine) == {"prompt_id": "pending"}

    @pytest.mark.parametrize(
        "stats", [{}, {"system": None}, {"system": {}}, {"system": {"comfyui_version": None}}]
    )
    async def test_a_version_that_is_not_told_is_empty(
        self, client: Client, engine: CannedEngine, stats: Any
    ) -> None:
        engine.respond("GET /system_stats", json=stats)
        await client.system_stats()
        assert client.version == ""


async def test_what_is_posted_is_exactly_this(client: Client, engine: CannedEngine) -> None:
    for path in ("/queue", "/history", "/free"):
        engine.respond(f"POST {path}")
    await client.dequeue("p")
    assert sent(engine) == {"delete": ["p"]}
    await client.forget(iter(["p", "q"]))
    assert sent(engine) == {"delete": ["p", "q"]}
    await client.free(unload_models=False, free_memory=True)
    assert sent(engine) == {"unload_models": False, "free_memory": True}


async def test_proxies_of_the_environment_are_not_used(
    monkeypatch: pytest.MonkeyPatch, client: Client, engine: CannedEngine
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    engine.respond("GET /queue", json={"queue_running": [], "queue_pending": []})
    assert (await client.queue()).running == ()


async def test_large_bodies_arrive_whole(client: Client, engine: CannedEngine) -> None:
    engine.respond("POST /upload/image", json={"name": "a.png"})
    engine.respond("POST /prompt", json=ACCEPTED)
    data = bytes(range(256)) * 9000
    await client.upload("a.png", data)
    assert data in engine.asked[-1].body
    assert engine.asked[-1].headers["Content-Length"] == str(len(engine.asked[-1].body))
    text = "é" * 1_000_000
    await client.submit({"1": {"text": text}}, prompt_id=PROMPT_ID, client_id="c")
    assert sent(engine)["prompt"] == {"1": {"text": text}}


async def test_connections_are_used_again(client: Client, engine: CannedEngine) -> None:
    ports = set()

    async def note(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        ports.add(request.transport.get_extra_info("peername"))
        return web.json_response({"queue_running": [], "queue_pending": []})

    engine.answers["GET /queue"] = note
    for _ in range(3):
        await client.queue()
    assert len(ports) == 1
