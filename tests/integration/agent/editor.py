"""A client of ComfyUI's own routes, as ComfyUI's websockets_api_example.py is one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from aiohttp import WSMsgType

from tests.integration.agent.service import PATIENCE_SECONDS, Agent, Answer


class Client:
    """What ComfyUI's websockets_api_example.py does, with the names that it has there."""

    def __init__(self, agent: Agent, socket: aiohttp.ClientWebSocketResponse, client_id: str) -> None:
        self.agent, self.socket, self.client_id = agent, socket, client_id

    async def queue_prompt(self, prompt: Any, **beside: Any) -> Answer:
        body = {"prompt": prompt, "client_id": self.client_id, **beside}
        return await self.agent.call("POST", "/prompt", data=json.dumps(body).encode())

    async def hear(self) -> Any:
        """The next message: JSON, or bytes."""
        message = await asyncio.wait_for(self.socket.receive(), PATIENCE_SECONDS)
        assert message.type in (WSMsgType.TEXT, WSMsgType.BINARY), message
        return json.loads(message.data) if message.type is WSMsgType.TEXT else message.data

    async def hear_out(self, prompt_id: str) -> list[Any]:
        """Everything up to the prompt's end."""
        heard = []
        while True:
            heard.append(message := await self.hear())
            is_last = isinstance(message, dict) and message["type"] == "executing"
            if is_last and message["data"]["node"] is None and message["data"]["prompt_id"] == prompt_id:
                return heard

    async def get_history(self, prompt_id: str) -> Any:
        return (await self.agent.get(f"/history/{prompt_id}")).ok()

    async def get_image(self, file: dict[str, str]) -> bytes:
        shown = await self.agent.get("/view", params=file)
        assert shown.status == 200, shown.body
        return shown.body


@contextlib.asynccontextmanager
async def connected(agent: Agent, base: str = "", **headers: str) -> AsyncIterator[Client]:
    client_id = str(uuid.uuid4())
    async with agent.http.ws_connect(f"{base}/ws?clientId={client_id}", headers=headers) as socket:
        client = Client(agent, socket, client_id)
        first = await client.hear()
        assert first["type"] == "status"
        assert first["data"]["sid"] == client_id
        yield client


def kinds(heard: list[Any]) -> list[str]:
    return [message["type"] for message in heard if isinstance(message, dict)]
