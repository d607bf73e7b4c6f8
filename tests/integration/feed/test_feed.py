"""The one WebSocket of an instance: when it connects, what it says first, and whom it tells what."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from structlog.testing import capture_logs
from websockets.asyncio.server import ServerConnection, serve

from comfyui.events import Event, NodeAdvanced, PreviewImage, PromptEnded, PromptStarted
from comfyui.feed import ConnectionLost, ConnectionRestored, Feed
from tests.integration.feed.engine import quick
from tests.integration.feed.proxy import Proxy
from tests.integration.feed.run import CONNECT_SECONDS, DEADLINE, Running, eventually
from tests.ports import free_port

HELLO = {"type": "feature_flags", "data": {"supports_preview_metadata": True}}


class Script:
    """A WebSocket server that sends what the test says; whatever connects is kept."""

    def __init__(self) -> None:
        self.connections: list[ServerConnection] = []

    async def handle(self, connection: ServerConnection) -> None:
        self.connections.append(connection)
        await connection.wait_closed()

    async def send(self, kind: str, **data: Any) -> None:
        await self.connections[-1].send(json.dumps({"type": kind, "data": data}))

    async def send_raw(self, message: str | bytes) -> None:
        await self.connections[-1].send(message)


@contextlib.asynccontextmanager
async def connected_feed(url: str) -> AsyncIterator[Feed]:
    feed = Feed(url)
    await feed.start()
    feed.resume()
    assert await feed.wait_connected(CONNECT_SECONDS)
    try:
        yield feed
    finally:
        await feed.stop()


@pytest.fixture
async def script() -> AsyncIterator[Script]:
    made = Script()
    async with serve(made.handle, "127.0.0.1", 0, close_timeout=1) as server:
        made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"  # type: ignore[attr-defined]
        yield made


@pytest.fixture
async def scripted(script: Script) -> AsyncIterator[Feed]:
    async with connected_feed(script.url) as feed:  # type: ignore[attr-defined]
        await eventually(lambda: bool(script.connections))
        yield feed


async def take(events: asyncio.Queue[Event], until: Callable[[Event], bool]) -> list[Event]:
    """The events up to and with the first of this kind."""
    taken: list[Event] = []
    async with asyncio.timeout(DEADLINE):
        while not taken or not until(taken[-1]):
            taken.append(await events.get())
    return taken


def is_end(event: Event) -> bool:
    return isinstance(event, PromptEnded)


async def test_it_waits_until_it_is_told_that_the_engine_is_there(proxy: Proxy) -> None:
    feed = Feed(proxy.url)
    await feed.start()
    assert not await feed.wait_connected(0.1)
    assert proxy.accepted == 0
    feed.resume()
    assert await feed.wait_connected(CONNECT_SECONDS)
    await feed.stop()
    assert not feed.is_connected


async def test_it_does_not_knock_while_paused(feed: Feed, proxy: Proxy) -> None:
    feed.pause()
    proxy.cut()
    await eventually(lambda: not feed.is_connected)
    before = proxy.accepted
    await asyncio.sleep(0.4)  # several of the first pauses between attempts; nothing can be waited for here
    assert proxy.accepted == before
    feed.resume()
    assert await feed.wait_connected(CONNECT_SECONDS)


async def test_it_reconnects_and_says_hello_each_time(feed: Feed, proxy: Proxy) -> None:
    for number in (1, 2, 3):
        await eventually(lambda: len(proxy.hellos) == number)  # noqa: B023 - called before the loop goes on
        assert proxy.accepted == number
        proxy.cut()
        await eventually(lambda: feed.reconnects == number)  # noqa: B023
        assert await feed.wait_connected(CONNECT_SECONDS)
    await eventually(lambda: len(proxy.hellos) == 4)
    assert proxy.hellos == [HELLO] * 4


async def test_it_keeps_trying_while_nobody_listens() -> None:
    port = free_port()
    feed = Feed(f"http://127.0.0.1:{port}")
    await feed.start()
    feed.resume()
    assert not await feed.wait_connected(0.2)
    made = Script()
    async with serve(made.handle, "127.0.0.1", port, close_timeout=1):
        assert await feed.wait_connected(CONNECT_SECONDS)
        await feed.stop()


async def test_it_can_be_told_to_take_another_connection(feed: Feed, proxy: Proxy) -> None:
    with feed.follow("p") as events:
        feed.reconnect()
        taken = await take(events, lambda e: isinstance(e, ConnectionRestored))
    assert [type(event) for event in taken] == [ConnectionLost, ConnectionRestored]
    assert proxy.accepted == 2


async def test_telling_it_to_reconnect_without_a_connection_does_nothing() -> None:
    feed = Feed("http://127.0.0.1:1")
    feed.reconnect()
    await feed.stop()
    assert feed.reconnects == 0


async def test_every_follower_learns_of_a_broken_connection(feed: Feed, proxy: Proxy) -> None:
    with feed.follow("p") as one, feed.follow("q") as other:
        proxy.cut()
        for events in (one, other):
            taken = await take(events, lambda e: isinstance(e, ConnectionRestored))
            assert [type(event) for event in taken] == [ConnectionLost, ConnectionRestored]


async def test_events_reach_the_follower_of_their_prompt_in_order(script: Script, scripted: Feed) -> None:
    with scripted.follow("p") as mine, scripted.follow("q") as other:
        await script.send("execution_start", prompt_id="p")
        await script.send("execution_start", prompt_id="stranger")
        await script.send("execution_start", prompt_id="q")
        for value in (1, 2, 3):
            await script.send("progress", prompt_id="p", node="3", value=value, max=3)
        await script.send("executing", prompt_id="p", node=None)
        await script.send("executing", prompt_id="q", node=None)
        assert await take(mine, is_end) == [
            PromptStarted("p"),
            *(NodeAdvanced("p", "3", value, 3) for value in (1, 2, 3)),
            PromptEnded("p"),
        ]
        assert await take(other, is_end) == [PromptStarted("q"), PromptEnded("q")]


async def test_a_preview_without_metadata_belongs_to_what_runs(script: Script, scripted: Feed) -> None:
    picture = struct.pack(">II", 1, 1) + b"jpeg"
    with scripted.follow("p") as mine, scripted.follow("q") as other:
        await script.send_raw(picture)  # nothing runs
        await script.send("execution_start", prompt_id="p")
        await script.send("progress", prompt_id="p", node="3", value=1, max=3)
        await script.send_raw(picture)
        await script.send("executing", prompt_id="p", node=None)
        await script.send_raw(picture)  # nothing runs any more
        await script.send("execution_start", prompt_id="q")
        await script.send("executing", prompt_id="q", node="5", display_node="5")
        await script.send_raw(picture)
        await script.send("executing", prompt_id="q", node=None)
        previews = [e for e in await take(mine, is_end) if isinstance(e, PreviewImage)]
        assert previews == [PreviewImage("p", "3", "image/jpeg", b"jpeg")]
        previews = [e for e in await take(other, is_end) if isinstance(e, PreviewImage)]
        assert previews == [PreviewImage("q", "5", "image/jpeg", b"jpeg")]


async def test_a_preview_with_metadata_belongs_to_whom_it_names(script: Script, scripted: Feed) -> None:
    about = json.dumps({"prompt_id": "q", "node_id": "7", "image_type": "image/png"}).encode()
    with scripted.follow("p") as mine, scripted.follow("q") as other:
        await script.send("execution_start", prompt_id="p")
        await script.send_raw(struct.pack(">II", 4, len(about)) + about + b"png")
        for prompt in "pq":
            await script.send("executing", prompt_id=prompt, node=None)
        assert await take(other, is_end) == [PreviewImage("q", "7", "image/png", b"png"), PromptEnded("q")]
        assert await take(mine, is_end) == [PromptStarted("p"), PromptEnded("p")]


async def test_the_replay_after_a_reconnect_is_nobodys(script: Script, scripted: Feed) -> None:
    with scripted.follow("p") as events:
        await script.send("executing", node="12")
        await script.send("executing", node=None)
        await script.send("executing", prompt_id="p", node=None)
        assert await take(events, is_end) == [PromptEnded("p")]


async def test_unknown_messages_are_reported_once_each_and_end_nothing(
    script: Script, scripted: Feed
) -> None:
    with capture_logs() as lines, scripted.follow("p") as events:
        for _ in range(3):
            await script.send("crystools.monitor", cpu=3)
            await script.send("executing", prompt_id=["p"], node={"a": 1})
            await script.send("progress", prompt_id="p", node="1")
            await script.send_raw("not JSON")
            await script.send_raw(b"\0\0\0\x63")
            await script.send_raw(b"")
        await script.send("executing", prompt_id="p", node=None)
        assert await take(events, is_end) == [PromptEnded("p")]
    reported = [line["type"] for line in lines if line["event"] == "feed.unknown_message"]
    assert len(reported) == len(set(reported))
    assert {"crystools.monitor", "binary 99"} <= set(reported)
    assert scripted.reconnects == 0


async def test_the_reports_of_unknown_messages_have_an_end(script: Script, scripted: Feed) -> None:
    with capture_logs() as lines, scripted.follow("p") as events:
        for number in range(150):
            await script.send(f"custom-{number}")
        await script.send("executing", prompt_id="p", node=None)
        await take(events, is_end)
    assert len([line for line in lines if line["event"] == "feed.unknown_message"]) == 100


async def test_a_large_picture_arrives_whole(script: Script, scripted: Feed) -> None:
    about = json.dumps({"prompt_id": "p", "node_id": "7", "image_type": "image/png"}).encode()
    with scripted.follow("p") as events:
        await script.send_raw(struct.pack(">II", 4, len(about)) + about + bytes(24 * 2**20))
        (picture,) = await take(events, lambda e: isinstance(e, PreviewImage))
    assert isinstance(picture, PreviewImage)
    assert len(picture.data) == 24 * 2**20


async def test_a_server_that_closes_politely_is_connected_to_again(script: Script, scripted: Feed) -> None:
    await script.connections[-1].close()
    await eventually(lambda: len(script.connections) == 2)
    assert await scripted.wait_connected(CONNECT_SECONDS)


async def test_a_text_that_is_no_utf8_costs_only_the_connection(script: Script, scripted: Feed) -> None:
    # websockets refuses to send such a frame: it is written by hand.
    script.connections[-1].transport.write(b"\x81\x02\xff\xfe")
    await eventually(lambda: len(script.connections) == 2)
    assert await scripted.wait_connected(CONNECT_SECONDS)


async def test_followers_that_have_left_are_forgotten(feed: Feed, running: Running) -> None:
    for _ in range(3):
        await running.run(quick())
    assert feed._followers == {}


async def test_stopping_is_harmless_before_the_start_and_twice(script: Script) -> None:
    feed = Feed(script.url)  # type: ignore[attr-defined]
    await feed.stop()
    await feed.start()
    feed.resume()
    assert await feed.wait_connected(CONNECT_SECONDS)
    await feed.stop()
    await feed.stop()


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:9001", "ws://127.0.0.1:9001/ws?clientId=me"),
        ("https://comfy.example/api/", "wss://comfy.example/api/ws?clientId=me"),
    ],
)
def test_the_address_follows_the_engines(url: str, address: str) -> None:
    assert Feed(url, client_id="me")._url == address
