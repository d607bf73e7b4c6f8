"""A lock between machines that share a disk, made of nothing but a file.

Function Compute mounts its NAS as NFSv3 without locking, where `flock` says yes to everybody. Creating a file that must
not exist yet is atomic there, so that is the lock. Its holder renews the file's time; who waits sees by his own clock
whether it is renewed, since clocks of machines differ. A holder that was frozen may find that another took over:
`is_held` tells, and is asked before anything is put in place.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

RENEW_SECONDS = 5.0
#: Silence after which a lock counts as left behind. Opening a file makes NFS ask the server for its real time.
STALE_SECONDS = 40.0
LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Seen:
    """What somebody else's lock looked like."""

    owner: bytes
    renewed_ns: int


class Silence:
    """Tells a lock that was left behind by how long it has looked the same, by the clock of the one who waits."""

    def __init__(self, limit_seconds: float) -> None:
        self._limit = limit_seconds
        self._seen: Seen | None = None
        self._since = 0.0

    def is_too_long(self, found: Seen, now: float) -> bool:
        """Note what the lock looks like at `now`, and say whether it has changed too long ago."""
        if found != self._seen:
            self._seen, self._since = found, now
        return now - self._since > self._limit


class Lock:
    """`async with` waits for the lock, for as long as its holder is alive."""

    def __init__(self, file: Path, *, stale_seconds: float = STALE_SECONDS) -> None:
        self._file = file
        self._silence = Silence(stale_seconds)
        self._owner = json.dumps({"id": uuid.uuid4().hex, "process": _process(os.getpid())}).encode()
        self._renewal: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        while not self._try_create():
            found = _look(self._file)
            if found is None:
                continue  # it was given back at this moment
            if self._silence.is_too_long(found, time.monotonic()) or _owner_is_dead(found.owner):
                self._break(found)
                continue
            await asyncio.sleep(LOOK_SECONDS)  # a file on another machine's disk calls nobody
        self._renewal = asyncio.create_task(self._renew())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait([self._renewal])
        if self.is_held():
            self._file.unlink(missing_ok=True)

    def is_held(self) -> bool:
        """Whether nobody has taken the lock over."""
        found = _look(self._file)
        return found is not None and found.owner == self._owner

    def _try_create(self) -> bool:
        try:
            descriptor = os.open(self._file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(descriptor, "wb") as created:
            created.write(self._owner)
        return True

    def _break(self, found: Seen) -> None:
        """Remove a lock that was left behind, and no other: between looking and removing somebody may have come."""
        taken = self._file.with_name(f"{self._file.name}.{uuid.uuid4().hex}")
        with suppress(FileNotFoundError):
            self._file.rename(taken)
            if taken.read_bytes() != found.owner:
                with suppress(FileExistsError):  # its holder will notice that it has lost the lock
                    os.link(taken, self._file)
            taken.unlink()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            with suppress(OSError):
                if self.is_held():
                    os.utime(self._file)


def _look(file: Path) -> Seen | None:
    try:
        with file.open("rb") as opened:
            return Seen(opened.read(), os.fstat(opened.fileno()).st_mtime_ns)
    except OSError as exc:
        if exc.errno in (errno.ENOENT, errno.ESTALE):  # ESTALE: deleted by another NFS client while we look
            return None
        raise


def _process(pid: int) -> list[str] | None:
    """What names a process of this machine and no other, not even the next one with its number."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        return [os.uname().nodename, boot, str(Path("/proc/self/ns/pid").readlink()), str(pid), started]
    return None


def _owner_is_dead(owner: bytes) -> bool:
    """Whether the holder was a process of this very machine and is gone: then nobody needs to wait."""
    with suppress(ValueError, KeyError, TypeError):
        theirs = json.loads(owner)["process"]
        ours = _process(os.getpid())
        if theirs and ours and theirs[:3] == ours[:3]:
            return bool(_process(int(theirs[3])) != theirs)
    return False
