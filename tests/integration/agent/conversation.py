"""The two streaming ways to follow a run: the WebSocket and Server-Sent Events."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.integration.agent.pictures import unb64
from tests.integration.agent.service import PATIENCE_SECONDS, Agent


@dataclass
class Conversation:
    """An open /api/run/ws."""

    socket: aiohttp.ClientWebSocketResponse
    task_id: str
    seen: list[dict[str, Any]] = field(default_factory=list)

    async def say(self, message: Any) -> None:
        await self.socket.send_str(json.dumps(message))

    async def hear(self) -> dict[str, Any] | None:
        """The next message; None when the server closed."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            message = await self.socket.receive()
        if message.type is not aiohttp.WSMsgType.TEXT:
            return None
        heard: dict[str, Any] = json.loads(message.data)
        assert heard.keys() == {"type", "data"}
        self.seen.append(heard)
        return heard

    async def hear_out(self) -> dict[str, Any]:
        """The last message before the server closes."""
        while await self.hear() is not None:
            pass
        return self.seen[-1]

    async def results(self, node: str) -> list[bytes]:
        last = await self.hear_out()
        assert last["type"] == "result", last
        return [unb64(text) for text in last["data"][node]["results"]]


@contextlib.asynccontextmanager
async def conversation(agent: Agent, first: Any = None, **headers: str) -> AsyncIterator[Conversation]:
    """Open the WebSocket and send the workflow, or nothing."""
    async with agent.http.ws_connect("/api/run/ws", headers=headers, max_msg_size=0) as socket:
        talk = Conversation(socket, socket._response.headers["task-id"])
        if first is not None:
            await talk.say(first)
        yield talk


async def events(agent: Agent, task_id: str) -> AsyncIterator[dict[str, Any]]:
    """The records of /api/tasks/ID/events until the server ends the stream."""
    async with agent.http.get(f"/api/tasks/{task_id}/events") as response:
        assert response.status == 200, await response.read()
        assert response.headers["Content-Type"].startswith("text/event-stream")
        async for line in response.content:
            if line.startswith(b"data: "):
                yield json.loads(line.removeprefix(b"data: "))
            else:
                assert line == b"\n" or line.startswith(b":"), line
