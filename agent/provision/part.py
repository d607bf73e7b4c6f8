"""An unfinished download: its bytes, their SHA-256 so far, and what is needed to go on with it later."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO, Self, TypeVar

from agent.provision.store import CHUNK_BYTES, Place, write_whole

T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """Run blocking work in a thread, and to its end if the caller is cancelled: its file may be closed next."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise


class Part:
    """One unfinished file, which only the holder of the model's lock may open. `async with` opens and closes it."""

    def __init__(self, place: Place, sha256: str) -> None:
        self._place = place
        self._wanted = sha256
        self._file: BinaryIO | None = None
        self._hash = hashlib.sha256()
        self.size = 0
        #: Whether it consists of pieces from more than one answer.
        self.is_joined = False
        #: The server's name for this version of the file (a strong ETag or a date), if it gave one.
        self.validator: str | None = None

    async def __aenter__(self) -> Self:
        await in_thread(self._open)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._file is not None:
            await in_thread(self._file.close)
            if not self.size:
                self.delete()

    async def append(self, chunk: bytes) -> None:
        """Write and hash further bytes. Raises OSError."""
        await in_thread(lambda: self._append(chunk))

    async def restart(self) -> None:
        """Begin again with nothing. Raises OSError."""
        await in_thread(self._restart)

    def remember(self, validator: str | None) -> None:
        """Keep what lets a later run go on with exactly this version. Raises OSError."""
        self.validator = validator
        note = {"sha256": self._wanted, "validator": validator}
        write_whole(self._place.part_note, json.dumps(note).encode())

    def sha256(self) -> str:
        """The SHA-256 of all bytes so far."""
        return self._hash.hexdigest()

    async def finish(self) -> None:
        """Put the file under its final name, whole and on disk. Raises OSError."""
        await in_thread(self._finish)

    def delete(self) -> None:
        """Leave nothing behind."""
        self._place.part.unlink(missing_ok=True)
        self._place.part_note.unlink(missing_ok=True)

    def _open(self) -> None:
        self._place.part.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered: what was received survives a SIGKILL of this process.
        descriptor = os.open(self._place.part, os.O_RDWR | os.O_CREAT, 0o644)
        self._file = os.fdopen(descriptor, "r+b", buffering=0)
        note: dict[str, str | None] = {}
        with suppress(OSError, ValueError):
            note = json.loads(self._place.part_note.read_bytes())
        if note.get("sha256") != self._wanted:  # begun for another version of the manifest
            self._restart()
            return
        self.validator = note.get("validator")
        while chunk := self._file.read(CHUNK_BYTES):
            self._hash.update(chunk)
            self.size += len(chunk)

    def _append(self, chunk: bytes) -> None:
        assert self._file is not None  # noqa: S101 - opened by __aenter__
        left = memoryview(chunk)
        while left:
            written = self._file.write(left)
            self._hash.update(left[:written])
            self.size += written
            left = left[written:]

    def _restart(self) -> None:
        assert self._file is not None  # noqa: S101 - opened by __aenter__
        self._file.seek(0)
        self._file.truncate()
        self._hash, self.size, self.is_joined, self.validator = hashlib.sha256(), 0, False, None

    def _finish(self) -> None:
        assert self._file is not None  # noqa: S101 - opened by __aenter__
        os.fsync(self._file.fileno())
        self._place.part.replace(self._place.target)
        self._place.part_note.unlink(missing_ok=True)
