"""WebSocket connections: who is registered, and the one loop that sends everything to everybody.

Copied on purpose: a second connection of a client takes over, and when the first one ends it takes the second one's
registration with it; one client that does not read holds up all others; nothing is replayed but the running node.
"""

from __future__ import annotations

import asyncio
import json
import struct
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import WSMsgType, web

if TYPE_CHECKING:
    from collections.abc import Callable

    from comfyui.simulator.faults import Faults

PREVIEW, TEXT, PREVIEW_WITH_METADATA = 1, 3, 4


@dataclass
class Client:
    """One registered connection."""

    socket: web.WebSocketResponse
    request: web.Request
    features: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Message:
    """One message on its way; `name` is its type, or `executing-null`, `preview`, `text`."""

    name: str
    content: str | bytes
    client_id: str | None


class Sockets:
    """`send*` may be called from any thread; the rest belongs to the event loop."""

    def __init__(
        self, features: dict[str, Any], faults: Faults, queue_info: Callable[[], dict[str, Any]]
    ) -> None:
        self._features, self._faults, self._queue_info = features, faults, queue_info
        self._clients: dict[str, Client] = {}
        self._outbox: asyncio.Queue[Message] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._sent = 0
        self.running_client: str | None = None  #: whose prompt runs
        self.running_node: str | None = None  #: and which node; told to that client when it reconnects

    def send(self, event: str, data: dict[str, Any], client_id: str | None) -> None:
        """Queue a JSON message for one client, or for everybody if client_id is None."""
        name = "executing-null" if event == "executing" and data.get("node") is None else event
        self._queue(Message(name, json.dumps({"type": event, "data": data}), client_id))

    def send_preview(self, image_type: int, frame: bytes, client_id: str | None) -> None:
        self._queue(Message("preview", struct.pack(">II", PREVIEW, image_type) + frame, client_id))

    def send_preview_with_metadata(self, about: dict[str, Any], frame: bytes, client_id: str | None) -> None:
        packed = json.dumps(about).encode()
        head = struct.pack(">II", PREVIEW_WITH_METADATA, len(packed))
        self._queue(Message("preview", head + packed + frame, client_id))

    def send_text(self, node_id: str, text: str) -> None:
        """To everybody, whosever prompt it is, as upstream."""
        name = node_id.encode()
        self._queue(Message("text", struct.pack(">II", TEXT, len(name)) + name + text.encode(), None))

    def send_status(self) -> None:
        self.send("status", {"status": self._queue_info()}, None)

    def takes_preview_metadata(self, client_id: str | None) -> bool:
        client = self._clients.get(client_id or "")
        return bool(client and client.features.get("supports_preview_metadata"))

    async def run_outbox(self) -> None:
        """Send queued messages one after the other, waiting for each; runs until cancelled."""
        while True:
            await self._deliver(await self._outbox.get())

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        """The /ws route."""
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        client_id = request.query.get("clientId", "") or uuid.uuid4().hex
        client = self._clients[client_id] = Client(socket, request)
        try:
            await self._greet(client_id)
            await self._listen(client_id, client)
        finally:
            # Not only if it is still ours: upstream drops whoever is registered under the id.
            self._clients.pop(client_id, None)
        return socket

    def cut(self) -> None:
        """End every connection without a close frame, as a ComfyUI that is stopped does."""
        for client in list(self._clients.values()):
            _abort(client)

    async def _greet(self, client_id: str) -> None:
        await self._send_now("status", {"status": self._queue_info(), "sid": client_id}, client_id)
        if self.running_client == client_id and self.running_node is not None:
            await self._send_now("executing", {"node": self.running_node}, client_id)

    async def _listen(self, client_id: str, client: Client) -> None:
        """Only the first JSON object counts, and only if it announces features."""
        is_first = True
        async for message in client.socket:
            if message.type is not WSMsgType.TEXT or not is_first:
                continue
            try:
                content = json.loads(message.data)
            except ValueError:
                continue
            if not isinstance(content, dict):
                continue
            is_first = False
            if content.get("type") == "feature_flags":
                client.features = content.get("data") or {}
                await self._send_now("feature_flags", self._features, client_id)

    async def _send_now(self, event: str, data: dict[str, Any], client_id: str) -> None:
        await self._deliver(Message(event, json.dumps({"type": event, "data": data}), client_id))

    def _queue(self, message: Message) -> None:
        self._loop.call_soon_threadsafe(self._outbox.put_nowait, message)

    async def _deliver(self, message: Message) -> None:
        if self._faults.take("lose-event", event=message.name):
            return
        if message.client_id is None:
            receivers = list(self._clients.values())
        else:
            receivers = [self._clients[message.client_id]] if message.client_id in self._clients else []
        for client in receivers:
            await self._send_to(client, message)

    async def _send_to(self, client: Client, message: Message) -> None:
        self._sent += 1
        at = {"message": str(self._sent)}
        if self._faults.take("drop-socket", **at) or self._faults.take("drop-socket", event=message.name):
            _abort(client)
            return
        try:
            if isinstance(message.content, bytes):
                await client.socket.send_bytes(message.content)
            else:
                await client.socket.send_str(message.content)
        except (OSError, RuntimeError):
            pass  # the connection is gone; its handler will notice and unregister


def _abort(client: Client) -> None:
    if client.request.transport:
        client.request.transport.abort()
