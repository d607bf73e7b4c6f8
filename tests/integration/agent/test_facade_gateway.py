"""A gateway in front that gives up on requests without a byte for some time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from tests.integration.agent import shelf
from tests.integration.agent.pictures import color_of, unb64
from tests.integration.agent.service import Agent, MakeAgent

#: How long the gateway hears nothing before it cuts the connection; the run takes longer.
LIMIT_SECONDS = 1.5
RUN_SECONDS = 2.2


@contextlib.asynccontextmanager
async def impatient_gateway(agent: Agent) -> AsyncIterator[str]:
    """Passes bytes on in both directions. Its address."""
    conversations: set[asyncio.Task[None]] = set()

    async def read(reader: asyncio.StreamReader, limit: float | None) -> bytes:
        async with asyncio.timeout(limit):
            return await reader.read(65536)

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: float | None) -> None:
        with contextlib.suppress(TimeoutError, ConnectionError):
            while data := await read(reader, limit):
                writer.write(data)
                await writer.drain()
        writer.transport.abort()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", agent.port)
        sending = asyncio.create_task(pipe(reader, back, None))
        try:
            await pipe(there, writer, LIMIT_SECONDS)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            for each in (writer, back):
                each.transport.abort()

    def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(converse(reader, writer))
        conversations.add(task)
        task.add_done_callback(conversations.discard)

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tuple(conversations):
            task.cancel()
        await asyncio.gather(*conversations, return_exceptions=True)
        await server.wait_closed()


async def test_a_run_that_takes_longer_than_the_gateway_waits(make_agent: MakeAgent, tmp_path: Path) -> None:
    for folder in ("early", "late"):
        (tmp_path / folder).mkdir()
    slow = shelf.settings(tmp_path / "early", sleep_seconds=RUN_SECONDS)
    early = await make_agent(engine=[], early_answer_seconds=0.2, **slow)
    late = await make_agent(
        engine=[], early_answer_seconds=0, **shelf.settings(tmp_path / "late", sleep_seconds=RUN_SECONDS)
    )

    async def draw(url: str, path: str, body: Any) -> Any:
        async with aiohttp.ClientSession() as http, http.post(f"{url}{path}", json=body) as response:
            return await response.json()

    async def cloudflare(url: str) -> None:
        answer = await draw(url, "/client/v4/accounts/x/ai/run/slow", {"prompt": "x"})
        assert color_of(unb64(answer["result"]["image"]))

    async def images(url: str) -> None:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client:
            answer = await client.images.generate(prompt="y", model="slow")
        assert answer.data is not None
        assert color_of(unb64(str(answer.data[0].b64_json)))

    async def breaks(url: str) -> None:
        with pytest.raises(aiohttp.ClientError):
            await cloudflare(url)

    async with impatient_gateway(early) as before_early, impatient_gateway(late) as before_late:
        await asyncio.gather(cloudflare(before_early), images(before_early), breaks(before_late))
