"""ComfyUI's own routes through the agent, for programs that were written for ComfyUI."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from tests.integration.agent import graphs
from tests.integration.agent.conversation import conversation
from tests.integration.agent.pictures import color_of, png
from tests.integration.agent.service import Agent, Answer, MakeAgent
from tests.redis_server import RedisServer
from tests.serving import serving

#: What the published couple-photo page calls.
PAGE = ["/view", "/upload/image", "/object_info", "/object_info/{node_class}"]

#: Headers of an answer that is not whole, by the name of the file.
HALF = {"of-known-length.png": {"Content-Length": "2000"}, "of-any-length.png": {}}


@pytest_asyncio.fixture(loop_scope="session")
async def open_agent(make_agent: MakeAgent) -> Agent:
    return await make_agent(pass_through=PAGE, max_body_bytes=100_000)


async def upload(agent: Agent, data: bytes, name: str, **headers: str) -> Answer:
    form = aiohttp.FormData()
    form.add_field("image", data, filename=name, content_type="image/png")
    form.add_field("overwrite", "true")
    return await agent.call("POST", "/upload/image", data=form, headers=headers)


@pytest.mark.parametrize("kind", ["output", "", "../output"])
async def test_upload_puts_nothing_among_the_outputs(open_agent: Agent, kind: str) -> None:
    form = aiohttp.FormData()
    form.add_field("image", png((1, 2, 3)), filename="forged.png", content_type="image/png")
    form.add_field("type", kind)
    answer = await open_agent.call("POST", "/upload/image", data=form)
    assert "input" in answer.error(400, "InvalidRequest")["detail"]


@pytest.mark.real
async def test_couple_photo_page_works(open_agent: Agent) -> None:
    """Upload, ask for a node, run over the WebSocket, poll, and show the picture by its name."""
    uploaded = (await upload(open_agent, png((9, 8, 7)), "portrait-of-a-page.png")).ok()
    assert uploaded == {"name": "portrait-of-a-page.png", "subfolder": "", "type": "input"}
    assert "LoadImage" in (await open_agent.get("/object_info")).ok()
    assert list((await open_agent.get("/object_info/LoadImage")).ok()) == ["LoadImage"]
    async with conversation(open_agent, graphs.loaded(uploaded["name"]), **{"task-id": "couple"}) as talk:
        last = await talk.hear_out()
    (file,) = last["data"]["2"]["images"]
    shown = await open_agent.get("/view", params=file)
    assert (shown.status, color_of(shown.body)) == (200, (9, 8, 7))
    assert shown.headers["Content-Type"] == "image/png"
    assert shown.headers["Content-Security-Policy"].startswith("sandbox")
    assert (await open_agent.status("couple")).results("2") == [shown.body]


async def test_only_routes_that_are_named_are_passed_on(agent: Agent, open_agent: Agent) -> None:
    (await agent.get("/view", params={"filename": "x"})).error(404, "NotFound")
    (await open_agent.get("/system_stats")).error(404, "NotFound")
    (await open_agent.call("POST", "/view")).error(405, "MethodNotAllowed")
    for path in ("/prompt", "/interrupt", "/free", "/history"):
        (await open_agent.call("POST", path, json={})).error(404, "NotFound")


async def test_fault_of_comfyui_is_passed_on_as_it_is(open_agent: Agent) -> None:
    assert (await open_agent.get("/view", params={"filename": "no-such-file.png"})).status == 404
    assert (await open_agent.get("/view", params={"filename": "../../etc/passwd"})).status in (400, 403)


async def test_upload_that_is_too_large_is_cut_off(open_agent: Agent) -> None:
    (await upload(open_agent, bytes(200_000), "large.png")).error(413, "BodyTooLarge")

    async def endless() -> Any:
        yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="large.png"\r\n\r\n'
        for _ in range(20):
            yield bytes(10_000)

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    (await open_agent.call("POST", "/upload/image", data=endless(), headers=headers)).error(
        413, "BodyTooLarge"
    )
    assert not await open_agent.engine.has_input("large.png")


#: Ways to name a file: filename and subfolder.
NAMES = [
    ("{}", ""),
    ("./{}", "."),
    ("sub/../{}", "sub"),
    (".", "{}"),
    ("{}/.", ""),
    ("{}", "sub/.."),
    ("//{}", ""),
]


@pytest.mark.real
@pytest.mark.parametrize("route", ["/upload/image", "/upload/mask"])
async def test_input_file_of_the_agent_cannot_be_overwritten(make_agent: MakeAgent, route: str) -> None:
    """Whoever did so would have the next task with that picture get his own."""
    agent = await make_agent(pass_through=[*PAGE, "/upload/mask"])
    ours, theirs = png((5, 6, 7)), png((200, 0, 0))
    picture = f"data:image/png;base64,{base64.b64encode(ours).decode()}"
    assert color_of(*(await agent.run(graphs.loaded(picture))).results("2")) == (5, 6, 7)
    name = f"{hashlib.sha256(ours).hexdigest()}.png"
    assert await agent.engine.view(name, folder="input") == ours
    for filename, subfolder in NAMES:
        form = aiohttp.FormData(quote_fields=False)
        form.add_field("overwrite", "1")
        form.add_field("subfolder", subfolder.format(name))
        form.add_field("original_ref", json.dumps({"filename": name, "type": "input"}))
        form.add_field("image", theirs, filename=filename.format(name))
        (await agent.call("POST", route, data=form)).error(400, "InvalidRequest")
    for disposition in (
        f"filename*=utf-8''{name[:1]}%{ord(name[1]):x}{name[2:]}",
        f"filename=harmless.png; filename*=utf-8''{name}",
    ):
        body = aiohttp.MultipartWriter("form-data")
        body.append("true", {"Content-Disposition": 'form-data; name="overwrite"'})
        body.append(theirs, {"Content-Disposition": f'form-data; name="image"; {disposition}'})
        (await agent.call("POST", route, data=body)).error(400, "InvalidRequest")
    assert color_of(*(await agent.run(graphs.loaded(picture))).results("2")) == (5, 6, 7)
    assert await agent.engine.view(name, folder="input") == ours


@pytest.mark.real
async def test_upload_under_such_a_name_gets_another_one(open_agent: Agent) -> None:
    name = f"{hashlib.sha256(b'one').hexdigest()}.png"
    for number, color in enumerate([(1, 1, 1), (2, 2, 2)]):
        form = aiohttp.FormData()
        form.add_field("image", png(color), filename=name)
        answer = (await open_agent.call("POST", "/upload/image", data=form)).ok()
        assert answer["name"] == (name if number == 0 else name.replace(".png", " (1).png"))


@pytest.mark.real
@pytest.mark.parametrize("name", ["a b.png", "50%.png", "a%20b.png", "中文;.png", 'a"b.png', "a\\b.png"])
async def test_names_of_uploads_arrive_as_they_are(open_agent: Agent, name: str) -> None:
    """Such as a header could trip over."""
    body = aiohttp.MultipartWriter("form-data")
    disposition = f"form-data; name=\"image\"; filename*=utf-8''{quote(name, safe='')}"
    body.append(png((1, 2, 3)), {"Content-Disposition": disposition})
    body.append("sub ü", {"Content-Disposition": 'form-data; name="subfolder"'})
    answer = (await open_agent.call("POST", "/upload/image", data=body)).ok()
    assert answer == {"name": name, "subfolder": "sub ü", "type": "input"}
    assert color_of(await open_agent.engine.view(name, "sub ü", "input")) == (1, 2, 3)


async def test_upload_that_is_none_is_refused(open_agent: Agent) -> None:
    form = aiohttp.FormData({"image": "a text"}, default_to_multipart=True)
    broken = aiohttp.MultipartWriter("form-data")
    disposition = "form-data; name=image; filename*=utf-8''a%0D%0Ab.png"
    broken.append(png((1, 2, 3)), {"Content-Disposition": disposition})
    folder = aiohttp.FormData({"subfolder": f"{'a' * 64}.png"})  # which no picture could be uploaded beside
    folder.add_field("image", png((1, 2, 3)), filename="x.png")
    odd = aiohttp.FormData({"subfolder": "a\0b"})
    odd.add_field("image", png((1, 2, 3)), filename="x.png")
    for data in (form, broken, folder, odd, b"picture", None):
        (await open_agent.call("POST", "/upload/image", data=data)).error(400, "InvalidRequest")


async def test_keys_guard_them_and_do_not_reach_comfyui(make_agent: MakeAgent) -> None:
    agent = await make_agent(pass_through=PAGE, api_keys=["secret"])
    (await agent.get("/object_info")).error(401, "Unauthorized")
    assert (await agent.get("/object_info", headers={"X-Api-Key": "secret"})).status == 200


async def test_engine_that_is_away_is_said(make_agent: MakeAgent) -> None:
    agent = await make_agent(comfyui_url="http://127.0.0.1:9", pass_through=PAGE, wait=False)
    (await agent.get("/object_info")).error(503, "EngineUnavailable")


async def test_caller_who_leaves_ends_it(open_agent: Agent) -> None:
    call = asyncio.create_task(open_agent.get("/object_info"))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert (await open_agent.get("/object_info/LoadImage")).status == 200


async def test_front_passes_them_on_to_the_function(
    make_agent: MakeAgent, redis_server: RedisServer, redis_prefix: str
) -> None:
    shared = {"redis_url": redis_server.url, "redis_prefix": redis_prefix, "pass_through": PAGE}
    function = await make_agent(role="engine", api_keys=["secret"], **shared)
    front = await make_agent(role="front", engine_url=function.url, engine_api_key="secret", **shared)
    (await upload(front, png((1, 2, 3)), "through-the-front.png")).ok()
    shown = await front.get("/view", params={"filename": "through-the-front.png", "type": "input"})
    assert color_of(shown.body) == (1, 2, 3)


@pytest.mark.parametrize("name", ["/prompt", "view", "/nothing"])
def test_what_is_not_offered_is_an_error_at_start(name: str) -> None:
    from agent.settings import SettingsError, load_settings  # noqa: PLC0415

    with pytest.raises(SettingsError, match=r"AGENT_PASS_THROUGH.*/view"):
        load_settings({}, pass_through=[name])


class TestStrangeAnswers:
    """In ComfyUI's place stands a server that notes what it is asked, and sends packed whatever may be packed."""

    @pytest_asyncio.fixture(loop_scope="session")
    async def asked(self) -> AsyncIterator[tuple[str, list[str]]]:
        seen: list[str] = []

        async def answer(request: web.Request) -> web.StreamResponse:
            if request.path != "/system_stats":  # the agent's own question
                seen.append(request.raw_path)
            if request.path == "/view":  # half an answer, and the end
                half = web.StreamResponse(headers=HALF[request.query["filename"]])
                await half.prepare(request)
                await half.write(bytes(1000))
                assert request.transport is not None
                request.transport.abort()
                return half
            response = web.json_response({"classes": ["LoadImage"] * 100})
            response.enable_compression()
            return response

        async with serving(web.route("*", "/{path:.*}", answer)) as url:
            yield url, seen

    async def test_answer_arrives_unpacked(self, make_agent: MakeAgent, asked: tuple[str, list[str]]) -> None:
        """With `--enable-compress-response-body` ComfyUI packs what the asker can unpack."""
        agent = await make_agent(comfyui_url=asked[0], pass_through=PAGE, wait=False)
        assert (await agent.get("/object_info")).ok()["classes"] == ["LoadImage"] * 100

    @pytest.mark.parametrize("name", HALF)
    async def test_answer_that_breaks_off_breaks_off_here_too(
        self,
        make_agent: MakeAgent,
        asked: tuple[str, list[str]],
        name: str,
    ) -> None:
        agent = await make_agent(comfyui_url=asked[0], pass_through=PAGE, wait=False)
        with pytest.raises(aiohttp.ClientError):
            await agent.get("/view", params={"filename": name})
        (await agent.get("/object_info")).ok()

    @pytest.mark.parametrize("path", ["/object_info/..", "/object_info/%2e%2e", "/object_info/."])
    async def test_name_that_leads_to_another_route_is_not_passed_on(
        self, make_agent: MakeAgent, asked: tuple[str, list[str]], path: str
    ) -> None:
        agent = await make_agent(comfyui_url=asked[0], pass_through=PAGE, wait=False)
        reader, writer = await asyncio.open_connection("127.0.0.1", agent.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        assert answer.startswith(b"HTTP/1.1 404 "), answer[:300]
        assert [found for found in asked[1] if not found.startswith("/ws")] == []
