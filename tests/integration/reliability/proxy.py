"""A loopback TCP proxy that cuts, stalls and refuses on command."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self

CHUNK_BYTES = 64 * 1024


class TcpProxy:
    """Passes bytes to a port of this machine. Connections that were stalled and cut are really gone."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._open: dict[asyncio.StreamWriter, bytes] = {}
        self._dropped: set[asyncio.StreamWriter] = set()
        self._pipes: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self.refuses = False  #: new connections are closed at once
        self.refused = 0  #: how many were
        self.accepted = 0  #: how many were not
        self.silenced = b""  #: connections whose first bytes hold this get nothing back any more: half-open

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        for pipe in self._pipes:
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    def cut(self, marked: bytes = b"") -> int:
        """Reset the open connections, or those whose first bytes hold the mark; how many there were."""
        found = [writer for writer, head in self._open.items() if marked in head]
        for writer in found:
            writer.transport.abort()
        return len(found)

    def drop(self) -> int:
        """Forget the open connections as a box on the way does: both ends keep theirs, and neither ever hears of the
        other again. New ones work. Returns how many there were."""
        self._dropped |= self._open.keys()
        return len(self._open)

    def stall(self) -> None:
        """Both ends keep their connections, and nothing comes through; new ones are accepted and stay silent."""
        self._flows.clear()

    def resume(self) -> None:
        self._flows.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuses:
            self.refused += 1
            writer.transport.abort()
            return
        self.accepted += 1
        try:
            onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        self._open[writer] = b""
        pipes = {
            asyncio.create_task(self._pipe(reader, onward_writer, writer)),
            asyncio.create_task(self._pipe(onward_reader, writer, writer, is_answer=True)),
        }
        self._pipes |= pipes
        await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
        self._dropped.discard(writer)
        for end in (writer, onward_writer):
            end.transport.abort()
        for pipe in pipes:
            pipe.cancel()
        await asyncio.gather(*pipes, return_exceptions=True)
        self._pipes -= pipes
        self._open.pop(writer, None)

    async def _pipe(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        caller: asyncio.StreamWriter,
        *,
        is_answer: bool = False,
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := await source.read(CHUNK_BYTES):
                if not is_answer and not self._open.get(caller):
                    self._open[caller] = chunk[:1024]
                await self._flows.wait()
                if caller in self._dropped:
                    continue
                if is_answer and self.silenced and self.silenced in self._open.get(caller, b""):
                    continue
                sink.write(chunk)
                await sink.drain()
