"""What one caller can make us hold is bounded: files before the engine is up, answers that nobody reads."""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
from typing import Any

import aiohttp
import pytest

from agent.api import slow
from agent.inputs.resolve import PARALLEL_PREFETCHES
from tests.integration.agent import graphs
from tests.integration.agent.graphs import Graph
from tests.integration.agent.pictures import color_of, png
from tests.integration.agent.service import PATIENCE_SECONDS, Agent, MakeAgent, eventually
from tests.integration.inputs.conftest import MediaServer, answer

READ_SECONDS = 0.3

#: What is shown of these fills every buffer between us and a client in a few messages.
MANY_NODES = 1500


async def test_files_fetched_before_the_engine_is_up_are_bounded_and_all_arrive(
    make_agent: MakeAgent, media: MediaServer
) -> None:
    colors = [(number, 5, 9) for number in range(40)]
    graph: Graph = {}
    for number, color in enumerate(colors):
        media.answers[f"/{number}.png"] = answer("200 OK", png(color))
        graph[f"load{number}"] = graphs.node("LoadImage", image=media.url(f"/{number}.png"))
        graph[f"save{number}"] = graphs.node("SaveImage", images=[f"load{number}", 0], filename_prefix="many")
    agent = await make_agent(engine=["--startup-seconds", "4"], wait=False, fetch_allow=["127.0.0.1"])
    run = asyncio.create_task(agent.run(graph))
    most = 0
    while (asked := len(media.requests)) is not None and (await agent.get("/readyz")).status != 200:
        most = max(most, asked)
        assert not run.done(), run.result()
        await asyncio.sleep(0.01)  # between two looks
    assert most == PARALLEL_PREFETCHES, "each file that was answered is held until the engine is up"
    done = await run
    for number, color in enumerate(colors):
        assert color_of(*done.results(f"save{number}")) == color
    assert len(media.requests) == len(colors), "a file was fetched twice"


def talkative() -> Graph:
    """Takes half a minute, with many nodes that are part of what is shown at each step."""
    graph = graphs.stepping(steps=1000, seconds=0.03)
    title = "a title that is shown each time " * 6
    return graph | {f"n{n}": graphs.node("EmptyImage", title) for n in range(MANY_NODES)}


async def connect(agent: Agent, path: str, **headers: str) -> socket.socket:
    """A client that asks and never reads. Its buffer is small, so that little is under way."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", agent.port))
    lines = [f"GET {path} HTTP/1.1", "Host: agent", *(f"{name}: {value}" for name, value in headers.items())]
    await loop.sock_sendall(client, ("\r\n".join(lines) + "\r\n\r\n").encode())
    return client


def is_served(agent: Agent, client: socket.socket) -> bool:
    """Whether the agent still holds its end of the connection."""
    server = agent._runner.server
    assert server is not None
    peers = [
        handler.transport.get_extra_info("peername") for handler in server.connections if handler.transport
    ]
    return client.getsockname() in peers


async def is_cut(agent: Agent, client: socket.socket) -> None:
    async def look() -> bool:
        return not is_served(agent, client)

    await eventually(look, PATIENCE_SECONDS)


def frame(message: Any) -> bytes:
    """One text message of a WebSocket client."""
    data, mask = json.dumps(message).encode(), os.urandom(4)
    masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
    return b"\x81\xff" + len(data).to_bytes(8, "big") + mask + masked


async def test_websocket_client_who_does_not_read_is_cut_and_his_task_ends(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slow, "READ_SECONDS", READ_SECONDS)
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    key = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "task-id": "unread"}
    with await connect(agent, "/api/run/ws", **upgrade, **key) as client:
        await asyncio.get_running_loop().sock_sendall(client, frame(talkative()))
        await agent.running_later("unread")
        assert is_served(agent, client)
        await is_cut(agent, client)
        record = await agent.until("unread", lambda r: r["state"] == "cancelled")
    assert record["error"]["code"] == "CallerGone"
    await eventually(agent.engine.is_idle)


async def test_event_stream_that_nobody_reads_is_cut_and_its_task_goes_on(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slow, "READ_SECONDS", READ_SECONDS)
    task_id = await agent.begin(talkative())
    await agent.running(task_id)
    with await connect(agent, f"/api/tasks/{task_id}/events") as client:

        async def begun() -> bool:
            return is_served(agent, client)

        await eventually(begun)
        await is_cut(agent, client)
    assert (await agent.task(task_id))["state"] == "running"
    assert (await agent.cancel(task_id)).ok()["state"] == "cancelled"
    await eventually(agent.engine.is_idle)


async def test_client_of_comfyuis_own_routes_who_does_not_read_is_cut(
    make_agent: MakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slow, "READ_SECONDS", READ_SECONDS)
    agent = await make_agent(pass_through=["/view"])
    form = aiohttp.FormData()
    large = io.BytesIO(bytes(24 * 2**20))  # more than all buffers on the way hold
    form.add_field("image", large, filename="large.bin", content_type="application/octet-stream")
    async with agent.engine.http.post("/upload/image", data=form) as uploaded:
        assert uploaded.status == 200
    with await connect(agent, "/view?filename=large.bin&type=input") as client:

        async def begun() -> bool:
            return is_served(agent, client)

        await eventually(begun)
        await is_cut(agent, client)
