"""A loopback HTTP server whose every path is one way to misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.certificates import self_signed

PNG = b"\x89PNG\r\n\x1a\n" + bytes(1000)

Handler = Callable[["MediaServer", str, asyncio.StreamWriter], Awaitable[None]]


def answer(status: str, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}"]
    lines += [
        f"{name.replace('_', '-')}: {value}"
        for name, value in {"Content_Length": str(len(body)), **headers}.items()
    ]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


@dataclass
class MediaServer:
    """Answers what `answers` holds for a path (query aside), or does what `handlers` say; keeps what it was asked."""

    port: int = 0
    requests: list[str] = field(default_factory=list)
    connections: int = 0
    answers: dict[str, bytes] = field(default_factory=dict)
    handlers: dict[str, Handler] = field(default_factory=dict)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    @contextlib.asynccontextmanager
    async def listening(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[MediaServer]:
        listening = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        self.port = listening.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            listening.close()
            for task in self.tasks:
                task.cancel()
            async with asyncio.timeout(5):
                await asyncio.gather(*self.tasks, return_exceptions=True)
                await listening.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: asyncio logs a cancelled connection callback as an error.
        task = asyncio.create_task(self._converse(reader, writer))
        self.tasks.add(task)
        await asyncio.wait([task])

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._exchange(reader, writer):
                    await writer.drain()
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self.requests.append(head)
        path = head.split(" ")[1].partition("?")[0]
        if path in self.handlers:
            await self.handlers[path](self, head, writer)
            return False
        writer.write(self.answers.get(path) or answer("404 Not Found", b"<html>no</html>"))
        return True


async def drips(server: MediaServer, head: str, writer: asyncio.StreamWriter) -> None:
    """One byte at a time: no read ever times out, the whole never ends."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    for _ in range(1000):
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)  # the drip itself


async def drips_headers(server: MediaServer, head: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(1000):
        writer.write(f"X-{number}: y\r\n".encode())
        await writer.drain()
        await asyncio.sleep(0.02)  # the drip itself


async def sends_for_ever(server: MediaServer, head: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + bytes(65536) + b"\r\n")
        await writer.drain()


async def breaks_off_in_the_body(server: MediaServer, head: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + PNG)


async def breaks_off_in_a_chunk(server: MediaServer, head: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000\r\nabc")


async def breaks_off_before_the_answer(server: MediaServer, head: str, writer: asyncio.StreamWriter) -> None:
    return


async def breaks_off_once(server: MediaServer, head: str, writer: asyncio.StreamWriter) -> None:
    if len(server.requests) > 1:
        writer.write(answer("200 OK", PNG))


async def speaks_no_http(server: MediaServer, head: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 mail.example ESMTP ready\r\n")


async def lies_about_its_length(server: MediaServer, head: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + PNG)


HANDLERS: dict[str, Handler] = {
    "/" + handler.__name__: handler
    for handler in (
        drips,
        drips_headers,
        sends_for_ever,
        breaks_off_in_the_body,
        breaks_off_in_a_chunk,
        breaks_off_before_the_answer,
        breaks_off_once,
        speaks_no_http,
        lies_about_its_length,
    )
}


@pytest.fixture
async def server() -> AsyncIterator[MediaServer]:
    async with MediaServer(handlers=HANDLERS).listening() as media:
        media.answers = answers_of(media.port)
        yield media


def answers_of(port: int) -> dict[str, bytes]:
    here = f"http://127.0.0.1:{port}"
    return {
        "/cat.png": answer("200 OK", PNG, Content_Type="image/png"),
        "/named": answer("200 OK", PNG, Content_Disposition="attachment; filename*=UTF-8''%e7%8c%ab.png"),
        "/named-badly": answer("200 OK", PNG, Content_Disposition='attachment; filename="../../etc/x.png"'),
        "/empty": answer("200 OK"),
        "/204": answer("204 No Content"),
        "/500": answer("500 Oops", b"x"),
        "/302-without-location": b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n",
        "/big": answer("200 OK", b"", Content_Length="99999999999"),
        "/absurd-length": answer("200 OK", b"", Content_Length="9" * 5000),
        "/gzip-bomb": answer("200 OK", gzip.compress(bytes(20 * 2**20)), Content_Encoding="gzip"),
        "/moved": answer("302 Found", Location="/cat.png?signature=s3cr3t-moved", Set_Cookie="session=abc"),
        "/moved-by-name": answer("302 Found", Location=f"http://localhost:{port}/cat.png"),
        "/to-loopback": answer("302 Found", Location=f"http://127.0.0.2:{port}/cat.png"),
        "/to-metadata": answer("302 Found", Location="http://169.254.169.254/latest/meta-data/"),
        "/to-alibaba-metadata": answer(
            "307 Temporary Redirect", Location="http://100.100.100.200/latest/meta-data/"
        ),
        "/to-file": answer("302 Found", Location="file:///etc/passwd"),
        "/to-gopher": answer("302 Found", Location=f"gopher://127.0.0.1:{port}/_GET"),
        "/to-nowhere": answer("302 Found", Location="http://[bad/?token=s3cr3t-location"),
        "/to-no-host": answer("302 Found", Location="http://?token=s3cr3t-location"),
        "/to-no-authority": answer("302 Found", Location="http:a?token=s3cr3t-location"),
        "/to-no-idna": answer("302 Found", Location="http://xn--/?token=s3cr3t-location"),
        "/to-no-ipv6": answer("302 Found", Location="http:////[?token=s3cr3t-location"),
        "/to-control": answer("302 Found", Location="/x\x01?token=s3cr3t-location"),
        "/loop": answer("302 Found", Location=f"{here}/loop"),
        "/hop1": answer("301 Moved Permanently", Location="/hop2"),
        "/hop2": answer("302 Found", Location="hop3"),
        "/hop3": answer("303 See Other", Location=f"{here}/hop4"),
        "/hop4": answer("307 Temporary Redirect", Location=f"//127.0.0.1:{port}/hop5"),
        "/hop5": answer("308 Permanent Redirect", Location="/cat.png"),
        "/hop0": answer("302 Found", Location="/hop1"),
    }


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return self_signed(tmp_path_factory.mktemp("tls"), "media.test")


@pytest.fixture
async def tls_server(certificate: Path) -> AsyncIterator[MediaServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    async with MediaServer(answers={"/cat.png": answer("200 OK", PNG)}).listening(context) as media:
        yield media
