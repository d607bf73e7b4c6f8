"""A file server on loopback that knows ranges and can misbehave, and runs of the command against it."""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from agent.provision.download import Patience, Tell
from agent.provision.manifest import load_manifest
from agent.provision.run import Wanted, provision
from tests.integration.cli.conftest import Command, command
from tests.serving import serving

__all__ = ["command"]

#: Several chunks, so that a download that breaks off has something to keep.
CONTENT = random.Random(1).randbytes(5 * 2**20 + 123)
HALF = 3 * 2**20

#: Gives up soon, so that tests of what never works end.
IMPATIENT = Patience(connect_seconds=20, stall_seconds=20, tries=2, pause_seconds=0)

Misbehaviour = Callable[["FileServer", web.Request, bytes], Awaitable[web.StreamResponse]]


@dataclass
class FileServer:
    """Serves `files` by path. What `misbehaviours` holds for a path is done instead, once for each entry."""

    files: dict[str, bytes] = field(default_factory=dict)
    etags: dict[str, str] = field(default_factory=dict)
    misbehaviours: dict[str, list[Misbehaviour]] = field(default_factory=dict)
    requests: list[web.Request] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def ranges(self) -> list[str | None]:
        return [request.headers.get("Range") for request in self.requests]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        body = self.files.get(request.path)
        planned = self.misbehaviours.get(request.path)
        if planned:
            return await planned.pop(0)(self, request, body or b"")
        if body is None:
            raise web.HTTPNotFound
        return await self.serve(request, body)

    async def serve(
        self, request: web.Request, body: bytes, *, until: int | None = None
    ) -> web.StreamResponse:
        """The file or the range that was asked for; `until` is where the bytes stop, before the announced end."""
        etag = self.etags.get(request.path, '"v1"')
        match = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        start = int(match[1]) if match and request.headers.get("If-Range", etag) == etag else None
        if start is not None and start >= len(body):
            return web.Response(status=416, headers={"Content-Range": f"bytes */{len(body)}"})
        answer = web.StreamResponse(status=200 if start is None else 206, headers={"ETag": etag})
        if start is not None:
            answer.headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        answer.content_length = len(body) - (start or 0)
        await answer.prepare(request)
        await answer.write(body[start or 0 : until])
        return answer


async def drop(server: FileServer, request: web.Request, body: bytes) -> web.StreamResponse:
    """Break off in the middle of the file."""
    answer = await server.serve(request, body, until=HALF)
    await answer._payload_writer.drain()  # all that was written is on its way
    request.transport.close()
    return answer


async def stall(server: FileServer, request: web.Request, body: bytes) -> web.StreamResponse:
    """Send half of the file, then nothing more."""
    answer = await server.serve(request, body, until=HALF)
    await server.ended.wait()
    return answer


async def ignore_range(server: FileServer, request: web.Request, body: bytes) -> web.StreamResponse:
    return web.Response(body=body)


async def busy(server: FileServer, request: web.Request, body: bytes) -> web.StreamResponse:
    return web.Response(status=503, headers={"Retry-After": "0"})


@pytest.fixture
async def server() -> AsyncIterator[FileServer]:
    made = FileServer()
    async with serving(web.get("/{path:.*}", made.handle)) as url:
        made.port = int(url.rpartition(":")[2])
        yield made
        made.ended.set()


class Lines:
    """A display that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []
        self.failures: dict[str, str] = {}
        self.told: list[tuple[int, int | None]] = []

    def done(self, what: str, path: str, note: str = "") -> None:
        self.said.append((what, path))

    def failed(self, path: str, reason: str) -> None:
        self.failures[path] = reason

    def idle(self, why: str) -> None:
        self.said.append(("idle", why))

    @contextmanager
    def download(self, path: str) -> Iterator[Tell]:
        yield lambda count, total: self.told.append((count, total))

    @contextmanager
    def showing(self) -> Iterator[None]:
        yield


@dataclass
class Site:
    """A models folder, a manifest for it, and what a run says."""

    folder: Path
    server: FileServer
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def models(self) -> Path:
        return self.folder / "models"

    @property
    def manifest(self) -> Path:
        return self.folder / "manifest.yaml"

    def offer(self, path: str, content: bytes = CONTENT, **more: Any) -> dict[str, Any]:
        """Put a file on the server; returns the manifest's entry for it."""
        self.server.files[f"/{path}"] = content
        digest = hashlib.sha256(content).hexdigest()
        return {"url": self.server.url(f"/{path}"), "path": path, "sha256": digest, **more}

    def write(self, *models: dict[str, Any], **more: Any) -> Path:
        self.manifest.write_text(yaml.safe_dump({"models": list(models), **more}))
        return self.manifest

    async def run(
        self, *models: dict[str, Any], patience: Patience = IMPATIENT, manifest: Any = None, **options: Any
    ) -> tuple[bool, Lines]:
        if models or manifest:
            self.write(*models, **(manifest or {}))
        lines = Lines()
        wanted = Wanted(
            load_manifest(self.manifest), self.models, None, self.environ, patience=patience, **options
        )
        return await provision(wanted, lines), lines

    def files(self) -> dict[str, bytes]:
        """Everything that ComfyUI would see, and unfinished parts."""
        found = (file for file in self.models.rglob("*") if file.is_file())
        relative = {file.relative_to(self.models).as_posix(): file for file in found}
        return {
            name: file.read_bytes() for name, file in relative.items() if not name.startswith(".provision/")
        }


@pytest.fixture
def site(tmp_path: Path, server: FileServer) -> Site:
    return Site(tmp_path, server)


@pytest.fixture
def site_command(site: Site, command: Command) -> Callable[..., Awaitable[Any]]:
    """The command as a process of its own, while the server goes on serving."""

    async def run(*arguments: str, seconds: float = 40) -> Any:
        argv = ["provision", str(site.manifest), "--models", str(site.models), *arguments]
        return await asyncio.to_thread(command.run, *argv, seconds=seconds)

    return run
