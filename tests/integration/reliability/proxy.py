"""A loopback TCP proxy that cuts, stalls and refuses on command."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Self

CHUNK_BYTES = 64 * 1024


@dataclass(eq=False)
class Link:
    """One connection: the caller's side and the target's."""

    caller: asyncio.StreamWriter
    target: asyncio.StreamWriter
    head: bytes = b""  #: the first bytes that the caller sent
    is_abandoned: bool = False  #: the caller's side has ended, and the target takes it for alive
    is_dropped: bool = False  #: a box on the way has forgotten it: what either end sends is lost

    def cut(self) -> None:
        self.caller.transport.abort()
        self.target.transport.abort()


class TcpProxy:
    """Passes bytes to a port of this machine. Connections that were stalled and cut are really gone.

    Set the fields at any time; they hold for the connections there are and for later ones.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._links: set[Link] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._is_closed = False
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
        self._is_closed = True  # callers may go on trying, and one may be about to be served
        self._server.close()
        for serving in self._serving:
            serving.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def cut(self, marked: bytes = b"") -> int:
        """Reset the open connections, or those whose first bytes hold the mark; how many there were."""
        found = [link for link in self._links if marked in link.head]
        for link in found:
            link.cut()
        return len(found)

    def abandon(self) -> list[Link]:
        """Reset the connections for the caller alone; the target does not notice until the returned links are cut."""
        links = list(self._links)
        for link in links:
            link.is_abandoned = True
            link.caller.transport.abort()
        return links

    def drop(self) -> int:
        """Lose whatever comes through the connections there are, without a sign to either end; how many they are."""
        for link in self._links:
            link.is_dropped = True
        return len(self._links)

    def stall(self) -> None:
        """Both ends keep their connections, and nothing comes through; new ones are accepted and stay silent."""
        self._flows.clear()

    def resume(self) -> None:
        self._flows.set()

    async def passing(self, chunk: bytes, link: Link, *, is_answer: bool) -> None:
        """Called with what is about to pass; may look at it, and hold it back. For subclasses."""

    async def relay(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, link: Link, *, is_answer: bool
    ) -> None:
        """Pass one direction of a connection on until it ends."""
        while chunk := await source.read(CHUNK_BYTES):
            if not is_answer and not link.head:
                link.head = chunk[:1024]
            await self._flows.wait()
            if link.is_dropped or (is_answer and self.silenced and self.silenced in link.head):
                continue
            await self.passing(chunk, link, is_answer=is_answer)
            sink.write(chunk)
            await sink.drain()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuses or self._is_closed:
            self.refused += 1
            writer.transport.abort()
            return
        self.accepted += 1
        serving = asyncio.ensure_future(self._pass_on(reader, writer))
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)
        await asyncio.wait({serving})
        writer.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            target_reader, target = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            return
        link = Link(writer, target)
        self._links.add(link)
        relays = {
            asyncio.create_task(self._relay(reader, target, link, is_answer=False)),
            asyncio.create_task(self._relay(target_reader, writer, link, is_answer=True)),
        }
        try:
            await asyncio.wait(relays, return_when=asyncio.FIRST_COMPLETED)
            if link.is_abandoned:
                await asyncio.wait(relays)
        finally:
            link.cut()
            for relay in relays:
                relay.cancel()
            await asyncio.gather(*relays, return_exceptions=True)
            self._links.discard(link)

    async def _relay(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, link: Link, *, is_answer: bool
    ) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await self.relay(source, sink, link, is_answer=is_answer)
