"""What the HTTP client makes of answers, good and bad."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import respx

from comfyui.client import Client, FileRef, HistoryEntry
from comfyui.errors import (
    EngineUnreachableError,
    FileMissingError,
    PromptRejectedError,
    UnexpectedAnswerError,
)
from comfyui.http import ConnectError, NetworkError, RemoteProtocolError, Response, TimeoutException

URL = "http://engine"
PROMPT_ID = "5d0c6ab5-8d2f-4a55-9f39-4f3f9cbb1f10"


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    one = Client(f"{URL}/")
    yield one
    await one.close()


@pytest.fixture
def engine() -> Any:
    with respx.mock(base_url=URL, assert_all_called=False) as router:
        yield router


async def submit(client: Client, **more: Any) -> Any:
    return await client.submit({"1": {}}, prompt_id=PROMPT_ID, client_id="c", **more)


def sent(engine: Any) -> Any:
    return json.loads(engine.calls.last.request.content)


ACCEPTED = {"prompt_id": PROMPT_ID, "number": 3, "node_errors": {}}


async def test_a_submission_is_exactly_this(client: Client, engine: Any) -> None:
    engine.post("/prompt").respond(json=ACCEPTED)
    submitted = await submit(client)
    assert (submitted.prompt_id, submitted.number, submitted.node_errors) == (PROMPT_ID, 3, {})
    assert sent(engine) == {"prompt": {"1": {}}, "client_id": "c", "prompt_id": PROMPT_ID}


@pytest.mark.parametrize("extra_data", [None, {}])
async def test_empty_extra_data_is_never_sent(client: Client, engine: Any, extra_data: Any) -> None:
    engine.post("/prompt").respond(json=ACCEPTED)
    await submit(client, extra_data=extra_data)
    assert "extra_data" not in sent(engine)


async def test_numbers_leave_as_they_came(client: Client, engine: Any) -> None:
    engine.post("/prompt").respond(json=ACCEPTED)
    text = (
        '{"a":18446744073709551615,"b":9007199254740993,"c":1.0,"d":0.1,"e":-0.0,"f":1e22,"g":'
        + "9" * 400
        + "}"
    )
    await client.submit({"1": json.loads(text)}, prompt_id=PROMPT_ID, client_id="c")
    body = engine.calls.last.request.content.decode()
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


async def test_text_of_any_script_leaves_as_it_came(client: Client, engine: Any) -> None:
    engine.post("/prompt").respond(json=ACCEPTED)
    graph = {"1": {"text": '猫 "quoted" \\ \n é \U0001f408 \x7f \u2028'}}
    await client.submit(graph, prompt_id=PROMPT_ID, client_id="c")
    assert sent(engine)["prompt"] == graph


async def test_400_with_reasons_is_a_refusal(client: Client, engine: Any) -> None:
    error = {
        "type": "prompt_outputs_failed_validation",
        "message": "Prompt outputs failed validation",
        "details": "",
    }
    node_errors = {
        "1": {"errors": [{"type": "value_not_in_list"}], "dependent_outputs": ["9"], "class_type": "X"}
    }
    engine.post("/prompt").respond(400, json={"error": error, "node_errors": node_errors})
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
    client: Client, engine: Any, answer: Any, message: str
) -> None:
    engine.post("/prompt").respond(400, json=answer)
    with pytest.raises(PromptRejectedError, match=message) as refused:
        await submit(client)
    assert refused.value.node_errors == {}
    assert refused.value.type == ""


@pytest.mark.parametrize("node_errors", [None, [], "x"])
async def test_an_acceptance_without_node_errors_has_none(
    client: Client, engine: Any, node_errors: Any
) -> None:
    engine.post("/prompt").respond(json=ACCEPTED | {"node_errors": node_errors})
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


@pytest.mark.parametrize("error", [ConnectError, TimeoutException, RemoteProtocolError, NetworkError])
async def test_no_answer_is_an_unreachable_engine(client: Client, engine: Any, error: Any) -> None:
    engine.route().mock(side_effect=error(""))
    for method in calls(client).values():
        with pytest.raises(EngineUnreachableError, match=error.__name__):
            await method()


@pytest.mark.parametrize("status", [204, 302, 401, 403, 404, 405, 413, 500, 502])
async def test_another_status_is_an_answer_outside_the_protocol(
    client: Client, engine: Any, status: int
) -> None:
    engine.route().respond(status, text="500 Internal Server Error\n\nServer got itself in trouble")
    for name, method in calls(client).items():
        if name == "has_file":
            assert not await method()
        elif name == "fetch_file" and status in (403, 404):
            with pytest.raises(FileMissingError):
                await method()
        else:
            with pytest.raises(UnexpectedAnswerError, match="got itself in trouble") as raised:
                await method()
            assert raised.value.status == status


async def test_a_long_answer_is_not_repeated_whole(client: Client, engine: Any) -> None:
    engine.route().respond(500, text="x" * 100_000)
    with pytest.raises(UnexpectedAnswerError) as raised:
        await client.queue()
    assert len(str(raised.value)) < 700


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"null", b"7", b'"x"', b"{", b"\xff\xfe", b"[" * 100_000]
)
async def test_what_is_no_json_object_is_outside_the_protocol(
    client: Client, engine: Any, body: bytes
) -> None:
    engine.route().respond(200, content=body)
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
    client: Client, engine: Any, method: str, answer: Any
) -> None:
    engine.route().respond(json=answer)
    with pytest.raises(UnexpectedAnswerError, match="not as expected"):
        await calls(client)[method]()


async def test_a_400_without_json_is_outside_the_protocol(client: Client, engine: Any) -> None:
    engine.post("/prompt").respond(400)
    with pytest.raises(UnexpectedAnswerError, match="400"):
        await submit(client)


async def test_a_prompt_without_history_is_none(client: Client, engine: Any) -> None:
    engine.get("/history/p").respond(json={})
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
    client: Client, engine: Any, entry: Any, expected: HistoryEntry
) -> None:
    engine.get("/history/p").respond(json={"p": entry})
    assert await client.history("p") == expected


@pytest.mark.parametrize(
    ("status", "there"), [(200, True), (400, False), (403, False), (404, False), (500, False)]
)
async def test_a_file_is_there_when_view_would_serve_it(
    client: Client, engine: Any, status: int, there: bool
) -> None:
    engine.head("/view").respond(status)
    assert await client.has_file(FileRef("a.png")) is there


@pytest.mark.parametrize(
    "name", ["a b.png", "a&b=c.png", "a+b.png", "50%.png", "中文.png", "#?.png", "a%20b.png"]
)
async def test_names_reach_view_as_they_are(client: Client, engine: Any, name: str) -> None:
    engine.get("/view").respond(200, content=b"x")
    await client.fetch_file(FileRef(name, f"sub {name}", "temp"))
    params = engine.calls.last.request.url.params
    assert dict(params) == {"filename": name, "subfolder": f"sub {name}", "type": "temp"}


async def test_a_file_is_fetched_byte_for_byte(client: Client, engine: Any) -> None:
    data = bytes(range(256)) * 10
    engine.get("/view").respond(200, content=data)
    assert await client.fetch_file(FileRef("a.png")) == data


class Refused(Exception):
    """There is no room for a file."""


@pytest.mark.parametrize("says_its_length", [True, False])
async def test_a_file_is_read_no_further_than_there_is_room(
    client: Client, engine: Any, says_its_length: bool
) -> None:
    sent: list[int] = []

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(100):
            sent.append(number)
            yield bytes(10)

    headers = {"Content-Length": "1000"} if says_its_length else {}
    engine.get("/view").mock(side_effect=lambda _: Response(200, headers=headers, content=pieces()))
    room = 1000

    def reserve(size: int) -> None:
        nonlocal room
        room -= size
        if room < 0:
            raise Refused

    assert len(await client.fetch_file(FileRef("a.png"), reserve)) == 1000
    assert room == 0
    room, sent[:] = 35, []
    with pytest.raises(Refused):
        await client.fetch_file(FileRef("a.png"), reserve)
    assert len(sent) == (0 if says_its_length else 4)


async def test_an_answer_that_was_packed_counts_as_what_it_unpacks_to(client: Client, engine: Any) -> None:
    packed = gzip.compress(bytes(10_000))
    engine.get("/view").respond(200, headers={"Content-Encoding": "gzip"}, content=packed)
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
    client: Client, engine: Any, answer: Any, name: str
) -> None:
    engine.post("/upload/image").respond(json=answer)
    assert await client.upload("a.png", b"data") == name


async def test_an_upload_is_a_form_with_the_bytes_and_the_folder(client: Client, engine: Any) -> None:
    engine.post("/upload/image").respond(json={"name": "a.png"})
    await client.upload("a.png", b"\x00\xffdata", "temp")
    body = engine.calls.last.request.content
    assert b'name="image"; filename="a.png"' in body
    assert b"\r\n\r\n\x00\xffdata\r\n" in body
    assert b'name="type"\r\n\r\ntemp\r\n' in body
    assert b"overwrite" not in body


class TestInterrupt:
    """Versions before 0.3.57 interrupt whatever runs, so there the queue is asked first."""

    @pytest.fixture
    def interrupt(self, engine: Any) -> Any:
        engine.get("/queue").respond(
            json={"queue_running": [[1, "running"]], "queue_pending": [[2, "pending"]]}
        )
        return engine.post("/interrupt").respond(200)

    @pytest.mark.parametrize("version", ["0.3.56", "0.3.43", "0.2.9", "0.3", "0.0.1"])
    async def test_an_old_version_is_spared_when_another_prompt_runs(
        self, client: Client, interrupt: Any, version: str
    ) -> None:
        client.version = version
        await client.interrupt("pending")
        await client.interrupt("unknown")
        assert not interrupt.called
        await client.interrupt("running")
        assert interrupt.call_count == 1

    @pytest.mark.parametrize("version", ["0.3.57", "0.3.64", "0.4.0", "0.10", "1.0", "", "unknown"])
    async def test_a_new_or_unknown_version_is_told_the_prompt(
        self, client: Client, interrupt: Any, engine: Any, version: str
    ) -> None:
        client.version = version
        await client.interrupt("pending")
        assert interrupt.call_count == 1
        assert sent(engine) == {"prompt_id": "pending"}

    @pytest.mark.parametrize(
        "stats", [{}, {"system": None}, {"system": {}}, {"system": {"comfyui_version": None}}]
    )
    async def test_a_version_that_is_not_told_is_empty(self, client: Client, engine: Any, stats: Any) -> None:
        engine.get("/system_stats").respond(json=stats)
        await client.system_stats()
        assert client.version == ""


async def test_what_is_posted_is_exactly_this(client: Client, engine: Any) -> None:
    for path in ("/queue", "/history", "/free"):
        engine.post(path).respond(200)
    await client.dequeue("p")
    assert sent(engine) == {"delete": ["p"]}
    await client.forget(iter(["p", "q"]))
    assert sent(engine) == {"delete": ["p", "q"]}
    await client.free(unload_models=False, free_memory=True)
    assert sent(engine) == {"unload_models": False, "free_memory": True}


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch, engine: Any) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    client = Client(URL)
    engine.get("/queue").mock(return_value=Response(200, json={"queue_running": [], "queue_pending": []}))
    assert (await client.queue()).running == ()
    assert client._http._mounts == {}
    await client.close()
