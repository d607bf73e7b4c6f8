"""A loopback TCP proxy in front of an engine's WebSocket. It counts the server's messages and can cut the connection
at any of them, cut only our side of it, hold everything back as a dead network does, or take its time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from dataclasses import dataclass, field
from typing import Any

TEXT, BINARY = 1, 2


@dataclass(eq=False)
class _Link:
    """One connection: our side and the engine's."""

    client: asyncio.StreamWriter
    engine: asyncio.StreamWriter
    is_dead: bool = False  #: for us, while the engine takes it for alive

    def cut(self) -> None:
        self.client.transport.abort()
        self.engine.transport.abort()


@dataclass
class Proxy:
    """Set the fields at any time; they hold for the connections there are and for later ones."""

    port: int
    delay_seconds: float = 0.0  #: before each message of the server
    cut_at: int | None = None  #: the connection ends in place of the server's message with this number
    stall_at: int | None = None  #: nothing goes through any more from this message on
    refuses: bool = False  #: new connections are reset
    connections: int = 0
    messages: int = 0  #: what the server has sent, over all connections
    hellos: list[dict[str, Any]] = field(default_factory=list)  #: what the client has sent

    async def start(self) -> None:
        self._flows = asyncio.Event()
        self._flows.set()
        self._links: set[_Link] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        self._server.close()
        self.cut()
        for pump in tuple(self._pumps):
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def cut(self) -> None:
        """End all connections on both sides, without a close frame."""
        for link in tuple(self._links):
            link.cut()

    def cut_our_side(self) -> list[_Link]:
        """End the connections for us; the engine does not notice until the returned links are cut too."""
        links = list(self._links)
        for link in links:
            link.is_dead = True
            link.client.transport.abort()
        self._links.clear()
        return links

    def stall(self) -> None:
        """From now on nothing passes, in either direction, but every connection stays open."""
        self._flows.clear()

    def flow(self) -> None:
        """Let it pass again."""
        self.stall_at = None
        self._flows.set()

    def count_from_here(self) -> None:
        self.messages = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.refuses:
            writer.transport.abort()
            return
        engine_reader, engine_writer = await asyncio.open_connection("127.0.0.1", self.port)
        link = _Link(writer, engine_writer)
        self._links.add(link)
        pumps = [
            asyncio.create_task(self._to_engine(reader, link)),
            asyncio.create_task(self._to_client(engine_reader, link)),
        ]
        self._pumps.update(pumps)

    async def _to_engine(self, reader: asyncio.StreamReader, link: _Link) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            link.engine.write(await reader.readuntil(b"\r\n\r\n"))
            while True:
                raw, opcode, payload = await _read_frame(reader)
                await self._flows.wait()
                if opcode == TEXT:
                    self.hellos.append(json.loads(payload))
                link.engine.write(raw)
                await link.engine.drain()
        if not link.is_dead:
            link.cut()

    async def _to_client(self, reader: asyncio.StreamReader, link: _Link) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            link.client.write(await reader.readuntil(b"\r\n\r\n"))
            while True:
                raw, opcode, _ = await _read_frame(reader)
                if opcode in (TEXT, BINARY):
                    self.messages += 1
                    if self.messages == self.cut_at:
                        break
                    if self.messages == self.stall_at:
                        self.stall()
                    await asyncio.sleep(self.delay_seconds)  # the network's, not the test's
                await self._flows.wait()
                if not link.is_dead:
                    link.client.write(raw)
                    await link.client.drain()
        link.cut()
        self._links.discard(link)


async def _read_frame(reader: asyncio.StreamReader) -> tuple[bytes, int, bytes]:
    """One WebSocket frame: as it came, its opcode, and its payload without the mask."""
    head = await reader.readexactly(2)
    length, is_masked = head[1] & 127, head[1] & 128
    extended = await reader.readexactly({126: 2, 127: 8}.get(length, 0))
    if extended:
        (length,) = struct.unpack(">H" if len(extended) == 2 else ">Q", extended)
    mask = await reader.readexactly(4 if is_masked else 0)
    body = await reader.readexactly(length)
    plain = bytes(byte ^ mask[i % 4] for i, byte in enumerate(body)) if mask else body
    return head + extended + mask + body, head[0] & 15, plain
