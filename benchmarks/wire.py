"""HTTP clients that do next to nothing, so that hundreds of requests or streams measure the server and not them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

#: A server that says nothing for so long is given up.
SILENT_SECONDS = 60


class Poller(asyncio.Protocol):
    """Sends the same GET over one connection, again as soon as it is answered, until `until` (perf_counter)."""

    def __init__(self, request: bytes, until: float) -> None:
        self._request, self._until = request, until
        self.latencies: list[float] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._received = b""
        self._expected = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what create_connection makes
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._expected:
            head, end, _ = self._received.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 200"):
                self._end(RuntimeError(f"the answer is {head[:60]!r}"))
                return
            self._expected = len(head) + len(end) + _content_length(head)
        if len(self._received) >= self._expected:
            now = time.perf_counter()
            self.latencies.append(now - self._asked_at)
            if now < self._until:
                self._ask()
            else:
                self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc or ConnectionError("the server closed the connection"))

    def _ask(self) -> None:
        self._received, self._expected = b"", 0
        self._asked_at = time.perf_counter()
        self._transport.write(self._request)

    def _end(self, error: Exception | None = None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)
        self._transport.close()


class Stream(asyncio.Protocol):
    """One event stream of a task: when its first event came, and when the final one."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        loop = asyncio.get_running_loop()
        self.begun: asyncio.Future[None] = loop.create_future()
        self.ended_at: asyncio.Future[float] = loop.create_future()
        self.tail = b""  #: the latest bytes, which hold the whole last event

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what create_connection makes
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.time()
        self.tail += data
        if not self.begun.done() and b"\ndata: " in self.tail:
            self.begun.set_result(None)
        if not self.ended_at.done() and b"\n\n" in self.tail.partition(b'"state":"succeeded"')[2]:
            self.ended_at.set_result(now)
        elif len(self.tail) > 100_000:
            self.tail = self.tail[-50_000:]

    def connection_lost(self, exc: Exception | None) -> None:
        for waiting in (self.begun, self.ended_at):
            if not waiting.done():
                waiting.set_exception(exc or ConnectionError("the stream ended before the task"))


async def poll(url: str, connections: int, seconds: float) -> list[float]:
    """Ask for `url` over so many connections for so long; the latencies in seconds. Raises OSError, RuntimeError."""
    request, host, port = get_request(url)
    loop, until = asyncio.get_running_loop(), time.perf_counter() + seconds
    made = await asyncio.gather(
        *(loop.create_connection(lambda: Poller(request, until), host, port) for _ in range(connections))
    )
    async with asyncio.timeout(seconds + SILENT_SECONDS):
        await asyncio.gather(*(poller.done for _, poller in made))
    return [latency for _, poller in made for latency in poller.latencies]


async def open_streams(url: str, count: int) -> tuple[Sequence[Stream], Sequence[asyncio.Transport]]:
    """So many event streams at `url`, each of which has got its first event."""
    request, host, port = get_request(url)
    loop = asyncio.get_running_loop()
    made = [await loop.create_connection(lambda: Stream(request), host, port) for _ in range(count)]
    streams = [stream for _, stream in made]
    async with asyncio.timeout(SILENT_SECONDS):
        await asyncio.gather(*(stream.begun for stream in streams))
    return streams, [transport for transport, _ in made]


def get_request(url: str) -> tuple[bytes, str, int]:
    """A GET as bytes, and where to send it."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 80
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    return f"GET {target} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode(), host, port


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise RuntimeError("the answer has no Content-Length")
