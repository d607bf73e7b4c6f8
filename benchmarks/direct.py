"""An ideal client of ComfyUI: one warm WebSocket, keep-alive HTTP, no request more than a job needs."""

from __future__ import annotations

import asyncio
import json
import uuid
from types import TracebackType
from typing import Any, Self

import aiohttp
from pydantic_core import to_json

from benchmarks.jobs import Graph

#: What the engine may take for one job before it is given up.
JOB_SECONDS = 120


class DirectFailed(Exception):
    """The engine refused a job or failed in it."""


class DirectClient:
    """Runs graphs on the engine at `url`. Jobs may run at the same time."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client_id = uuid.uuid4().hex
        self._running: dict[str, _Prompt] = {}

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(JOB_SECONDS)
        )
        address = f"{self._url}/ws?clientId={self._client_id}"
        self._socket = await self._session.ws_connect(address, max_msg_size=0, compress=0)
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        await self._socket.close()
        await self._session.close()

    async def download(self, url: str) -> bytes:
        async with self._session.get(url) as response:
            response.raise_for_status()
            return await response.read()

    async def upload(self, picture: bytes) -> str:
        """Put a picture into the engine's input folder; returns its name there."""
        form = aiohttp.FormData(quote_fields=False)
        form.add_field(
            "image",
            picture,
            filename=f"direct-{uuid.uuid4().hex}.png",
            content_type="application/octet-stream",
        )
        async with self._session.post(f"{self._url}/upload/image", data=form) as response:
            response.raise_for_status()
            return str((await response.json())["name"])

    async def run(self, graph: Graph, prompt_id: str | None = None) -> list[bytes]:
        """Run a graph to its end and fetch what its output nodes made, all files at the same time."""
        prompt_id = prompt_id or str(uuid.uuid4())
        prompt = self._running[prompt_id] = _Prompt()
        body = {"prompt": graph, "client_id": self._client_id, "prompt_id": prompt_id}
        try:
            async with self._session.post(f"{self._url}/prompt", data=to_json(body)) as response:
                if response.status != 200:
                    raise DirectFailed(await response.text())
                await response.read()
            async with asyncio.timeout(JOB_SECONDS):
                await prompt.ended.wait()
        finally:
            del self._running[prompt_id]
        if prompt.error:
            raise DirectFailed(prompt.error)
        return await asyncio.gather(*(self._fetch(file) for file in prompt.files))

    async def get(self, path: str) -> bytes:
        """Any other route of the engine."""
        return await self.download(self._url + path)

    async def _fetch(self, file: dict[str, str]) -> bytes:
        query = {name: file[name] for name in ("filename", "subfolder", "type")}
        async with self._session.get(f"{self._url}/view", params=query) as response:
            response.raise_for_status()
            return await response.read()

    async def _read(self) -> None:
        async for message in self._socket:
            # Progress is not looked at: this client has nobody to tell.
            if message.type is aiohttp.WSMsgType.TEXT and message.data.startswith('{"type": "exec'):
                self._take(json.loads(message.data))
        for prompt in self._running.values():
            prompt.end("the WebSocket was closed")

    def _take(self, message: dict[str, Any]) -> None:
        data = message["data"]
        prompt = self._running.get(data.get("prompt_id", ""))
        if prompt is None:
            return
        match message["type"]:
            case "executed":
                prompt.files += (data["output"] or {}).get("images", ())
            case "executing" if data["node"] is None:
                prompt.end()
            case "execution_error":
                prompt.end(data["exception_message"])


class _Prompt:
    """What is known of a prompt that runs."""

    def __init__(self) -> None:
        self.files: list[dict[str, str]] = []
        self.ended = asyncio.Event()
        self.error = ""

    def end(self, error: str = "") -> None:
        self.error = error
        self.ended.set()
