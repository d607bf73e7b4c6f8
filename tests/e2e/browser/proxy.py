"""A TCP proxy on the way to the agent, which can drop every connection and take no new ones."""

from __future__ import annotations

import asyncio
from typing import Self
from urllib.parse import urlsplit

PIECE = 64 * 1024


class Proxy:
    """`cut()` is what a train does in a tunnel; `restore()` is its end."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname, parts.port)
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_cut = False

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self.cut()
        await self._server.wait_closed()

    async def cut(self) -> None:
        self._is_cut = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def restore(self) -> None:
        self._is_cut = False

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._join(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._is_cut:
                return
            onward_reader, onward_writer = await asyncio.open_connection(*self._target)
            try:
                await asyncio.gather(_pass(reader, onward_writer), _pass(onward_reader, writer))
            finally:
                onward_writer.transport.abort()
        except OSError:
            pass  # one of the sides is gone, and so is the other now
        finally:
            writer.transport.abort()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until one side closes; then the other is closed too."""
    while data := await reader.read(PIECE):
        writer.write(data)
        await writer.drain()
    raise ConnectionResetError
