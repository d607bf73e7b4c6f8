"""ComfyUI's WebSocket for its own clients: what happens to their prompts."""

from __future__ import annotations

import asyncio
import re
import uuid
from contextlib import suppress

from aiohttp import WSMsgType, web
from pydantic_core import from_json

from agent.api.keys import DESK
from agent.api.slow import SlowReader, cut_off, reading_limit
from agent.editor import messages
from agent.editor.sockets import Outbox
from agent.errors import InvalidQuery, InvalidRequest

#: A client's own id, as ComfyUI's clients choose it.
CLIENT_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")

#: A client that is there answers pings.
PING_SECONDS = 20


async def open_socket(request: web.Request) -> web.WebSocketResponse:
    """GET /ws: what happens to the client's prompts, as ComfyUI tells it. Nothing is replayed."""
    client_id = request.query.get("clientId") or uuid.uuid4().hex
    if not CLIENT_ID.fullmatch(client_id):
        raise InvalidQuery("clientId is a short text of letters, digits and - _ . :", parameter="clientId")
    socket = web.WebSocketResponse(heartbeat=PING_SECONDS, max_msg_size=64 * 1024, compress=False)
    if not _can_open(socket, request):
        raise InvalidRequest("This route is a WebSocket. Connect with ws:// or wss://.")
    await socket.prepare(request)
    desk = request.app[DESK]
    with desk.sockets.opened(client_id) as outbox:
        outbox.put(messages.status(desk.remaining, client_id))
        sending = asyncio.create_task(_send_all(request, socket, outbox))
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    _hear(message.data, outbox)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
    return socket


async def _send_all(request: web.Request, socket: web.WebSocketResponse, outbox: Outbox) -> None:
    with suppress(ConnectionError):
        try:
            while (message := await outbox.next()) is not None:
                async with reading_limit():
                    if isinstance(message, bytes):
                        await socket.send_bytes(message)
                    else:
                        await socket.send_str(message)
        except SlowReader:
            cut_off(request)
        else:
            await socket.close()


def _hear(text: str, outbox: Outbox) -> None:
    """The client says which messages it understands. Anything else that it sends is nothing to us, as to ComfyUI."""
    with suppress(ValueError, LookupError, AttributeError, TypeError):
        said = from_json(text)
        if said["type"] == "feature_flags":
            outbox.wants_metadata = bool(said["data"].get("supports_preview_metadata"))
            outbox.put(messages.text("feature_flags", {"supports_preview_metadata": True}))


def _can_open(socket: web.WebSocketResponse, request: web.Request) -> bool:
    try:
        return bool(socket.can_prepare(request))
    except ValueError:  # a Sec-WebSocket-Key that is not even ASCII
        return False
