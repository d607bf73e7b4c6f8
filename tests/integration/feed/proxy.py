"""A proxy in front of an engine's WebSocket that counts the server's messages, and can cut or stall the connection
at any of them, or take its time."""

from __future__ import annotations

import asyncio
import json
import struct
from typing import Any

from tests.integration.reliability.proxy import Link, TcpProxy

TEXT, BINARY = 1, 2


class Proxy(TcpProxy):
    """As every TcpProxy, with fields that count messages."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.delay_seconds = 0.0  #: before each message of the server
        self.cut_at: int | None = (
            None  #: the connection ends in place of the server's message with this number
        )
        self.stall_at: int | None = None  #: nothing goes through any more from this message on
        self.messages = 0  #: what the server has sent, over all connections
        self.hellos: list[dict[str, Any]] = []  #: what the client has sent

    def flow(self) -> None:
        """Let everything pass again."""
        self.stall_at = None
        self.resume()

    def count_from_here(self) -> None:
        self.messages = 0

    async def relay(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, link: Link, *, is_answer: bool
    ) -> None:
        sink.write(await source.readuntil(b"\r\n\r\n"))
        while True:
            raw, opcode, payload = await _read_frame(source)
            if is_answer and opcode in (TEXT, BINARY):
                self.messages += 1
                if self.messages == self.cut_at:
                    return
                if self.messages == self.stall_at:
                    self.stall()
                await asyncio.sleep(self.delay_seconds)  # the network's, not the test's
            await self._flows.wait()
            if not is_answer and opcode == TEXT:
                self.hellos.append(json.loads(payload))
            if not (is_answer and link.is_abandoned):
                sink.write(raw)
                await sink.drain()


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
