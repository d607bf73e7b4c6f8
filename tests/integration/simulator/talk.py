"""What the tests say to a simulator."""

from __future__ import annotations

import asyncio
import io
import uuid
from typing import Any

import aiohttp
from PIL import Image

DEADLINE = 10


def save(source: list[Any], prefix: str = "out") -> dict[str, Any]:
    return {"class_type": "SaveImage", "inputs": {"images": source, "filename_prefix": prefix}}


def empty(color: int = 0, side: int = 8) -> dict[str, Any]:
    inputs = {"width": side, "height": side, "batch_size": 1, "color": color}
    return {"class_type": "EmptyImage", "inputs": inputs}


def simple(color: int = 0) -> dict[str, Any]:
    """EmptyImage (1) to SaveImage (2)."""
    return {"1": empty(color), "2": save(["1", 0])}


def sampled(seed: int = 1, text: str = "a cat", steps: int = 2) -> dict[str, Any]:
    """Text to image, saved by node 9; KSampler is node 3."""
    name = "v1-5-pruned-emaonly.safetensors"
    settings = {
        "seed": seed,
        "steps": steps,
        "cfg": 7.0,
        "sampler_name": "euler",
        "scheduler": "normal",
        "denoise": 1.0,
    }
    links = {"model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]}
    return {
        "3": {"class_type": "KSampler", "inputs": settings | links},
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": name}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 96, "batch_size": 1}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["4", 1], "text": text}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["4", 1], "text": ""}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": save(["8", 0]),
    }


class Talk:
    """One client with its WebSocket."""

    def __init__(
        self, session: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse, name: str
    ) -> None:
        self.session, self.socket, self._name = session, socket, name

    async def submit(self, prompt: dict[str, Any], **more: Any) -> str:
        body = {"prompt": prompt, "client_id": self._name} | more
        async with self.session.post("/prompt", json=body) as answer:
            content = await answer.json()
            assert answer.status == 200, content
            prompt_id: str = content["prompt_id"]
            return prompt_id

    async def events(self, until: str = "executing-null") -> list[dict[str, Any]]:
        """JSON messages up to and with the first of this name; binary ones are `{"type": "binary", "data": bytes}`."""
        seen: list[dict[str, Any]] = []
        async with asyncio.timeout(DEADLINE):
            while True:
                message = await self.socket.receive()
                if message.type is aiohttp.WSMsgType.BINARY:
                    seen.append({"type": "binary", "data": message.data})
                    continue
                assert message.type is aiohttp.WSMsgType.TEXT, message
                seen.append(message.json())
                if name_of(seen[-1]) == until:
                    return seen

    async def run(self, prompt: dict[str, Any], **more: Any) -> dict[str, Any]:
        """Run a prompt to its end and return the history entry."""
        prompt_id = await self.submit(prompt, **more)
        await self.events()
        content = await self.get(f"/history/{prompt_id}")
        entry: dict[str, Any] = content[prompt_id]
        return entry

    async def get(self, path: str) -> Any:
        async with self.session.get(path) as answer:
            assert answer.status == 200, path
            return await answer.json()

    async def view(self, entry: dict[str, Any], node_id: str) -> bytes:
        """The bytes of the node's first file."""
        (file, *_) = entry["outputs"][node_id]["images"]
        async with self.session.get("/view", params=file) as answer:
            assert answer.status == 200
            return await answer.read()

    async def picture(self, entry: dict[str, Any], node_id: str) -> Image.Image:
        return Image.open(io.BytesIO(await self.view(entry, node_id)))

    async def closed(self) -> int | None:
        """The close code, once the server has ended the connection; messages before it are dropped."""
        async with asyncio.timeout(DEADLINE):
            async for _ in self.socket:
                pass
        return self.socket.close_code


async def talk(session: aiohttp.ClientSession) -> Talk:
    name = uuid.uuid4().hex
    return Talk(session, await session.ws_connect("/ws", params={"clientId": name}), name)


def name_of(message: dict[str, Any]) -> str:
    ends = message["type"] == "executing" and message["data"]["node"] is None
    return "executing-null" if ends else message["type"]
