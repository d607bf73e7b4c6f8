"""`comfyui-agent forward`: what ComfyUI's clients find at its port, and who does not get in."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import signal
import socket
from collections.abc import Iterator

import aiohttp
import pytest

from agent.commands.forwarder import hosts_of
from tests.integration.cli import graphs
from tests.integration.cli.conftest import SECONDS, Command, answers, serving, until
from tests.ports import free_port

KEY = "sesame"
URL, KEY_VARIABLE = "COMFYUI_AGENT_URL", "COMFYUI_AGENT_API_KEY"


@pytest.fixture(scope="module")
def opened_url(tmp_path_factory) -> Iterator[str]:
    """An agent that lets ComfyUI's clients in, with a key."""
    command = Command(tmp_path_factory.mktemp("home"))
    command.settings = {
        "AGENT_API_KEYS": KEY,
        "AGENT_PASS_THROUGH": "all",
        "AGENT_SHUTDOWN_SECONDS": "1",
        "AGENT_INVOCATION": "standalone",
        "COMFYUI_PORT": str(free_port()),
        "COMFYUI_ARGS": f"--step-seconds 0.02 --base-directory {command.home / 'engine'}",
    }
    with serving(command, wait=False) as url:
        yield url


@contextlib.contextmanager
def forwarding(command: Command, url: str, *said: str) -> Iterator[str]:
    """The address of a port of this machine that leads there; `said`: what its terminal has to tell of meanwhile."""
    port = free_port()
    command.settings = {URL: url, KEY_VARIABLE: KEY}
    process = command.start("forward", "--port", str(port))
    try:
        until(lambda: answers(port) or process.poll() is not None, "the port is open")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=SECONDS)
        assert (process.returncode, out) == (0, "")
        assert err.splitlines() == [
            f"http://127.0.0.1:{port} is now the ComfyUI of {url}. Ctrl-C ends it.",
            *(f"comfyui-agent: {sentence}" for sentence in said),
        ]


async def is_ready(http: aiohttp.ClientSession) -> None:
    async with asyncio.timeout(SECONDS):
        while True:
            async with http.get("/object_info/SaveImage") as answer:
                if answer.status == 200:
                    return
            await asyncio.sleep(0.05)


async def test_script_of_comfyui_runs_its_prompt(command, opened_url):
    graph = graphs.flat()
    with forwarding(command, opened_url) as url:
        async with aiohttp.ClientSession(url) as http:
            await is_ready(http)
            async with http.ws_connect("/ws", params={"clientId": "me"}) as ws:
                async with http.post("/prompt", json={"prompt": graph, "client_id": "me"}) as answer:
                    prompt_id = (await answer.json())["prompt_id"]
                kinds = []
                async with asyncio.timeout(SECONDS):
                    while kinds[-1:] != ["execution_success"]:
                        kinds.append(json.loads((await ws.receive()).data)["type"])
            assert {"status", "execution_start", "executed"} <= set(kinds)
            async with http.get(f"/history/{prompt_id}") as answer:
                outputs = (await answer.json())[prompt_id]["outputs"]
            (file,) = (image for node in outputs.values() for image in node["images"])
            async with http.get("/api/view", params=file) as answer:  # as the editor asks
                picture = await answer.read()
                assert (answer.status, answer.content_type) == (200, "image/png")
                assert picture.startswith(b"\x89PNG")
            async with http.get("/view", params=file, headers={"Range": "bytes=1-3"}) as answer:
                assert (answer.status, await answer.read()) == (206, b"PNG")
            form = aiohttp.FormData({"overwrite": "true"})
            form.add_field("image", picture, filename="sent.png")
            async with http.post("/upload/image", data=form) as answer:
                assert (await answer.json())["name"] == "sent.png"
            packed, how = gzip.compress(b"{}"), {"Content-Encoding": "gzip"}
            async with http.post("/queue", data=packed, headers=how) as answer:
                assert answer.status == 200, "it arrives as it was sent"
            async with http.get("/") as answer:
                assert (answer.status, answer.content_type) == (200, "text/html")
            async with http.get("/api/tasks") as answer:
                assert answer.status == 404, "the agent's own routes are not ComfyUI's"


async def test_only_pages_of_the_port_itself_get_in(command, opened_url):
    with forwarding(command, opened_url) as url:
        port = url.rpartition(":")[2]
        async with aiohttp.ClientSession(url) as http:
            for host, origin, status in (
                (f"127.0.0.1:{port}", None, 200),
                (f"localhost:{port}", f"http://localhost:{port}", 200),
                (f"127.0.0.1:{port}", "https://example.com", 403),
                (f"127.0.0.1:{port}", "null", 403),
                (f"example.com:{port}", None, 403),
                (f"example.com:{port}", f"http://example.com:{port}", 403),
            ):
                headers = {"Host": host} | ({"Origin": origin} if origin else {})
                async with http.get("/prompt", headers=headers) as answer:
                    assert answer.status == status, (host, origin)
                if status == 403:
                    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                        await http.ws_connect("/ws", headers=headers)
                    assert refused.value.status == 403


async def test_agent_that_goes_away_is_told_of(command, tmp_path):
    (tmp_path / "other").mkdir()
    agent = Command(tmp_path / "other", {"AGENT_PASS_THROUGH": "all", "COMFYUI_PORT": str(free_port())})
    agent.settings |= {"AGENT_SHUTDOWN_SECONDS": "0", "AGENT_INVOCATION": "standalone"}
    with contextlib.ExitStack() as stack:
        ends = stack.enter_context(contextlib.ExitStack())
        agent_url = ends.enter_context(serving(agent))
        said = f"{agent_url} cannot be reached: Connection refused."
        url = stack.enter_context(forwarding(command, agent_url, said))
        async with aiohttp.ClientSession(url) as http, http.ws_connect("/ws") as ws:
            assert json.loads((await ws.receive()).data)["type"] == "status"
            await asyncio.to_thread(ends.close)
            async with asyncio.timeout(SECONDS):
                message = await ws.receive()
            assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING)
            async with http.get("/prompt") as answer:
                assert answer.status == 502
                assert (await answer.json())["error"]["type"] == "AgentUnreachable"
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await http.ws_connect("/ws")
            assert refused.value.status == 502


@pytest.fixture
def silent_url() -> Iterator[str]:
    """An address where nobody answers, and nobody will."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_what_cannot_work_is_said_at_once(command, opened_url, agent_url, silent_url):
    for settings, code, words in (
        ({URL: opened_url}, 2, "valid API key"),
        ({URL: opened_url, KEY_VARIABLE: "wrong"}, 2, "valid API key"),
        ({URL: opened_url, KEY_VARIABLE: "two words"}, 2, "blanks"),
        ({URL: agent_url}, 1, "AGENT_PASS_THROUGH=all"),
        ({URL: silent_url}, 3, "cannot be reached"),
        ({URL: "ftp://example.com"}, 2, "no address of an agent"),
    ):
        command.settings = settings
        done = command.run("forward", "--port", str(free_port()))
        assert (done.returncode, done.stdout) == (code, "")
        assert words in done.stderr
        assert KEY not in done.stderr
    command.settings = {URL: opened_url, KEY_VARIABLE: KEY}
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = command.run("forward", "--port", str(port))
    assert done.returncode == 2
    assert done.stderr.startswith(f"comfyui-agent: port {port} cannot be opened: Address already in use.")


def test_port_of_http_itself_is_not_named_by_browsers() -> None:
    assert hosts_of(8188) == {"127.0.0.1:8188", "localhost:8188", "[::1]:8188"}
    assert hosts_of(80) == {"127.0.0.1:80", "localhost:80", "[::1]:80", "127.0.0.1", "localhost", "[::1]"}
