"""The port that `comfyui-agent forward` opens, before an agent that notes what reaches it."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from agent.commands.forwarder import Forwarder
from tests.ports import free_port

KEY = "sesame"
SECONDS = 20


class Agent:
    """Answers a text or a redirect to `location`, or takes a WebSocket. `asked`: paths and the keys that came with them."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[tuple[str, str | None]] = []
        self.location: str | None = None
        self.takes_sockets = False
        self.refuses_key = False

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.raw_path, request.headers.get("X-Api-Key")))
        if self.refuses_key:
            return web.Response(status=401)
        if self.location is not None:
            return web.Response(status=302, headers={"Location": self.location})
        if self.takes_sockets:
            near = web.WebSocketResponse()
            await near.prepare(request)
            async for _ in near:
                pass
            return near
        return web.Response(text="here")


async def serve(agent: Agent) -> tuple[web.AppRunner, str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", agent.handle)
    runner = web.AppRunner(app, shutdown_timeout=1, max_line_size=64 * 1024)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    return runner, f"http://127.0.0.1:{port}"


@pytest.fixture
async def agent() -> AsyncIterator[Agent]:
    made = Agent()
    runner, made.url = await serve(made)
    yield made
    await runner.cleanup()


@pytest.fixture
async def port(agent) -> AsyncIterator[int]:
    chosen = free_port()
    async with Forwarder(agent.url, KEY) as forwarder:
        await forwarder.listen(chosen)
        yield chosen


@pytest.fixture
async def http(port) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as made:
        yield made


async def send(port: int, target: str, host: str | None = None) -> str:
    """The status line and body for a request that no library would send."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    named = f"localhost:{port}" if host is None else host
    writer.write(f"GET {target} HTTP/1.1\r\nHost: {named}\r\nConnection: close\r\n\r\n".encode())
    async with asyncio.timeout(SECONDS):
        answer = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_key_goes_nowhere_but_to_the_agent(agent, http):
    other = Agent()
    runner, agent.location = await serve(other)
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await http.ws_connect("/ws")
    assert refused.value.status == 502
    async with http.get("/view?filename=a.png", allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (302, agent.location)
    assert agent.asked == [("/comfyui/ws", KEY), ("/comfyui/view?filename=a.png", KEY)]
    assert other.asked == []
    await runner.cleanup()


async def test_agent_may_be_named_in_any_case(agent):
    chosen = free_port()
    async with Forwarder(agent.url.replace("127.0.0.1", "LOCALHOST"), KEY) as forwarder:
        await forwarder.listen(chosen)
        assert (await send(chosen, "/queue")).endswith("\r\n\r\nhere")


async def test_redirect_within_the_editor_stays_on_the_port(agent, http):
    agent.location = "/comfyui/assets/images/logo.svg"
    async with http.get("/logo.svg", allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (302, "/assets/images/logo.svg")


@pytest.mark.parametrize(
    "target",
    [
        "/../api/tasks",
        "/%2e%2E/api/tasks",
        "/x/.%2e/../api/tasks",
        "/..%2fapi/tasks",
        "/..%5Capi/tasks",
        "/./prompt",
    ],
)
async def test_path_that_would_become_another_one_is_not_passed_on(agent, port, target):
    assert (await send(port, target)).startswith("HTTP/1.1 404 ")
    assert agent.asked == []


async def test_whole_address_as_a_target_is_understood(agent, port):
    assert (await send(port, f"http://localhost:{port}/queue?a=%41")).endswith("\r\n\r\nhere")
    assert agent.asked == [("/comfyui/queue?a=%41", KEY)]


async def test_port_answers_to_this_machine_by_any_of_its_names(agent, port):
    for name in ("localhost", "LocalHost", "127.0.0.1", "[::1]"):
        assert (await send(port, "/prompt", f"{name}:{port}")).endswith("\r\n\r\nhere"), name
    for host in (
        "example.com",
        "localhost",
        f"localhost.example.com:{port}",
        "",
        f"localhost:{port}@example.com",
    ):
        assert "HostNotAllowed" in await send(port, "/prompt", host), host
    assert len(agent.asked) == 4


async def test_localhost_is_here_by_ipv6_too(port):
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("this machine has no IPv6")
    async with aiohttp.ClientSession() as http, http.get(f"http://[::1]:{port}/prompt") as answer:
        assert await answer.text() == "here"


async def test_what_is_no_http_leaves_no_traceback(agent, port, http, caplog):
    caplog.set_level(logging.DEBUG)
    assert (await send(port, "no path")).startswith("HTTP/1.0 400 ")
    assert not [record for record in caplog.records if record.exc_info]
    async with http.get("/prompt") as answer:
        assert answer.status == 200


async def test_long_address_is_passed_on(agent, http):
    path = f"/view?filename={'a' * 20_000}"
    async with http.get(path) as answer:
        assert answer.status == 200
    assert agent.asked == [(f"/comfyui{path}", KEY)]


async def test_answer_that_is_no_socket_is_not_taken_for_success(http):
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await http.ws_connect("/ws")
    assert refused.value.status == 502


async def test_key_that_ends_is_said_once_each_time(agent, http, capsys):
    for refused in (True, True, False, True):
        agent.refuses_key = refused
        async with http.get("/prompt") as answer:
            assert answer.status == (401 if refused else 200)
            assert ("does not take this API key" in await answer.text()) == refused
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await http.ws_connect("/ws")
    assert capsys.readouterr().err.count("does not take this API key any more") == 2


async def test_sockets_are_told_when_the_port_closes(agent):
    agent.takes_sockets, chosen = True, free_port()
    async with aiohttp.ClientSession() as http:
        async with Forwarder(agent.url, KEY) as forwarder:
            await forwarder.listen(chosen)
            ws = await http.ws_connect(f"http://127.0.0.1:{chosen}/ws")
            ended = asyncio.create_task(ws.receive())
        async with asyncio.timeout(SECONDS):
            assert (await ended).type is aiohttp.WSMsgType.CLOSE
        assert ws.close_code == aiohttp.WSCloseCode.GOING_AWAY
        await ws.close()
