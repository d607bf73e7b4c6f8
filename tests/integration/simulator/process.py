"""A simulator as a real child process on a free port."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp

from tests.ports import free_port

READY = "To see the GUI go to: "
START_SECONDS = 15


class Simulator:
    """One process; `log` grows with its stderr, which is always read."""

    def __init__(self, base: Path, switches: tuple[str, ...] = (), port: int | None = None) -> None:
        self.base, self.switches, self.port = base, switches, port or free_port()
        self.log = ""
        self._ready = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def launch(self) -> None:
        """Start the process without waiting for it."""
        command = [sys.executable, "-m", "comfyui.simulator", "--port", str(self.port)]
        command += ["--base-directory", str(self.base), *self.switches]
        pipe = asyncio.subprocess.PIPE
        self.process = await asyncio.create_subprocess_exec(
            *command, stderr=pipe, stdin=asyncio.subprocess.DEVNULL
        )
        self._reader = asyncio.create_task(self._read())

    async def start(self) -> Simulator:
        """Start the process and wait until it says that it listens."""
        await self.launch()
        return await self.ready()

    async def ready(self) -> Simulator:
        async with asyncio.timeout(START_SECONDS):
            await self._ready.wait()
        assert READY in self.log, self.log
        return self

    async def wait(self, seconds: float = 10) -> int:
        """The exit code, once the process has ended by itself."""
        async with asyncio.timeout(seconds):
            await self._reader
            return await self.process.wait()

    async def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()
        await self._reader

    async def _read(self) -> None:
        assert self.process.stderr
        while chunk := await self.process.stderr.read(65536):
            self.log += chunk.decode(errors="replace")
            if READY in self.log:
                self._ready.set()
        self._ready.set()


@contextlib.asynccontextmanager
async def client(one: Simulator) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(one.url, timeout=aiohttp.ClientTimeout(total=10)) as session:
        yield session
