"""The engine's own folders, where the agent may read them: an output that lies there need not be sent by the engine,
whose interpreter is busy with the next prompt by then."""

from __future__ import annotations

import asyncio
import os
import stat
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import structlog

from agent.tasks.threads import Threads
from comfyui.client import Client, FileRef
from comfyui.folders import Folders

log = structlog.get_logger(__name__)

#: Files read at the same time.
PARALLEL_READS = 4

#: How long a disk may take before the engine is asked instead.
DISK_SECONDS = 30


class OutputFolders:
    """Gets the engine's files from its folders, or else from the engine. `folders` is what the settings say of them;
    only an engine that sees what was put there is believed to keep its files there, since it may run in another
    container. Nothing is put into a folder that the operator chose himself: its files come from the engine."""

    def __init__(self, client: Client, folders: Folders | None) -> None:
        self._client, self._folders = client, folders
        self._is_proven: dict[str, bool] = {}  # by type of file
        self._proving = asyncio.Lock()
        self._threads = Threads(PARALLEL_READS, "outputs")

    def doubt(self) -> None:
        """The engine was started anew, and may keep its files elsewhere by now."""
        self._is_proven.clear()

    def close(self) -> None:
        self._threads.close()

    async def fetch_file(self, file: FileRef, reserve: Callable[[int], None]) -> bytes:
        """As `Client.fetch_file`; `reserve` may be called in a thread."""
        if self._folders is not None and await self._has(self._folders, file.type):
            try:
                return await self._threads.run(partial(_read, self._folders, file, reserve), DISK_SECONDS)
            except TimeoutError:
                self._give_up(file.type, "the disk does not answer")
            except OSError:
                pass  # the engine says what is wrong with it
        return await self._client.fetch_file(file, reserve)

    async def _has(self, folders: Folders, kind: str) -> bool:
        """Whether the engine keeps its files of this type in these folders."""
        async with self._proving:
            if kind not in self._is_proven:
                self._is_proven[kind] = await self._prove(folders, kind)
            return self._is_proven[kind]

    async def _prove(self, folders: Folders, kind: str) -> bool:
        """Put an empty file there, and ask the engine whether it sees it."""
        probe = FileRef(f".comfyui-agent-{uuid.uuid4().hex}", "", kind)
        path = folders.locate(probe)
        if path is None:
            return False
        try:
            await self._threads.run(path.touch, DISK_SECONDS)
        except OSError as exc:
            self._give_up(kind, type(exc).__name__)
            return False
        try:
            if await self._client.has_file(probe):
                return True
        finally:
            with suppress(OSError):
                await self._threads.run(path.unlink, DISK_SECONDS)
        self._give_up(kind, "the engine does not see what is put there")
        return False

    def _give_up(self, kind: str, reason: str) -> None:
        log.info("outputs.fetched", type=kind, reason=reason)
        self._is_proven[kind] = False


def _read(folders: Folders, file: FileRef, reserve: Callable[[int], None]) -> bytes:
    """The whole file. Raises OSError for what the engine must be asked for, and what `reserve` raises."""
    path = _locate(folders, file)
    # A link may lead anywhere, and to open a pipe may take for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as opened:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise FileNotFoundError(path)
        reserve(found.st_size)
        return opened.read(found.st_size)


def _locate(folders: Folders, file: FileRef) -> Path:
    path = folders.locate(file)
    # ComfyUI reads "cat.png [temp]" as another file, in the folder that the name says.
    if path is None or file.filename.endswith("]") or path.name != file.filename:
        raise FileNotFoundError(file.filename)
    return path
