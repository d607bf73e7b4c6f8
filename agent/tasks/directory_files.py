"""Files that are seen whole or not at all, by every instance that shares the folder, and the clock of its server.

Only what is atomic on NFSv3 as well is used: `link` and `rename`, and `open` with O_EXCL. Locks are not: a NAS is
mounted with `nolock` as a rule, and then each instance has locks of its own.

Every file is complete before it gets its name. Its bytes are synced first (`fsync`), because a name may otherwise
reach a local disk before them, and because an NFS client tells that the disk is full only then. What a power cut on
a local disk can take is the last change, not half of one. Markers and leases hold nothing worth a sync.
"""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

FOLDER_MODE, FILE_MODE = 0o700, 0o600

#: How long a reading of the server's clock is good for.
SAMPLE_SECONDS = 30


class Files:
    """The folders below one root, and how files get into them. Raises OSError throughout."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tasks, self.index, self.parked = root / "tasks", root / "index", root / "parked"
        self.cancels, self.due, self.temporary = root / "cancels", root / "due", root / "tmp"

    def prepare(self) -> None:
        """Make our folders. The root must be there: where it is missing, something is not mounted."""
        try:
            for folder in (self.tasks, self.index, self.parked, self.cancels, self.due, self.temporary):
                make_folder(folder)
        except FileNotFoundError:
            if not self.root.is_dir():
                raise
            # Such as /proc, which says so of whatever is to be made in it.
            raise PermissionError(errno.EACCES, "It is there, but nothing can be made in it") from None

    def replace(self, path: Path, *pieces: bytes, is_durable: bool = True) -> None:
        """Give the file this content, whether it was there or not."""
        with self._written(pieces, is_durable) as temporary:
            temporary.rename(path)

    def find(self, path: Path) -> Content | None:
        """A file that may be missing. Raises FileNotFoundError when all our files are."""
        with suppress(FileNotFoundError), opened(path.parent) as folder:
            return read(path.name, folder=folder)
        self.tasks.stat()
        return None

    def remove_older(self, path: Path, time: float) -> bool:
        """Remove a file that was not changed after this time of the server; True when it is gone."""
        with suppress(FileNotFoundError):
            if path.stat().st_mtime > time:
                return False
            path.unlink()
        return True

    def create(self, path: Path, *pieces: bytes) -> bool:
        """Make the file with this content; False, and nothing is changed, when there is one. Of several who try at
        the same time one at most is told of success: an NFS client that had to ask twice is told of its own file."""
        with self._written(pieces, is_durable=True) as temporary:
            try:
                path.hardlink_to(temporary)
            except FileExistsError:
                return False
        return True

    @contextmanager
    def _written(self, pieces: tuple[bytes, ...], is_durable: bool) -> Iterator[Path]:
        path = self.temporary / secrets.token_hex(16)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
        try:
            try:
                for piece in pieces:
                    _write(file, piece)
                if is_durable:
                    os.fsync(file)
            finally:
                os.close(file)
            yield path
        finally:
            with suppress(FileNotFoundError):  # renamed
                path.unlink()


def make_folder(path: Path) -> None:
    with suppress(FileExistsError):
        path.mkdir(FOLDER_MODE)


def mark(path: Path) -> bool:
    """Make an empty file; False when it is there already."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE))
    except FileExistsError:
        return False
    return True


def names_in(folder: Path) -> list[str]:
    """The names in a folder; none where it is missing or no folder."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return os.listdir(folder)  # noqa: PTH208 - names are all that is wanted
    return []


@dataclass(frozen=True, slots=True)
class Content:
    """A file as it was when it was opened. `changed_at` is the server's time."""

    data: bytes
    changed_at: float


def read(path: Path | str, *, folder: int | None = None) -> Content:
    """A whole file, below an open folder if one is given. Opening it makes an NFS client ask the server, so this is
    never older than the call."""
    for _ in range(10):
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            return Content(_read(file, os.fstat(file).st_size), changed_at(file))
        except OSError as exc:
            if exc.errno != errno.ESTALE:  # an NFS server forgets a file that is replaced while it is read
                raise
        finally:
            os.close(file)
    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))


def open_folder(path: Path | str, *, within: int | None = None) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=within)


@contextmanager
def opened(folder: Path) -> Iterator[int]:
    """An open folder. Opening it makes an NFS client ask the server whether anything in it has changed; without that
    it may believe its cache for a minute, also in that something is not there."""
    file = open_folder(folder)
    try:
        yield file
    finally:
        os.close(file)


def changed_at(file: int) -> float:
    """When an open file or folder was changed, by the server's time."""
    return os.fstat(file).st_mtime_ns / 1e9


def _read(file: int, size: int) -> bytes:
    data = os.read(file, size) if size else b""
    if len(data) == size:
        return data
    pieces = [data]  # one read gives at most 2 GB, and a network file system may give less
    while piece := os.read(file, 2**24):
        pieces.append(piece)
    return b"".join(pieces)


def _write(file: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


class ServerClock:
    """What time it is where the files are: the one clock by which all instances judge leases and expiry.

    It is read off a folder that is touched, at most every SAMPLE_SECONDS, and again when this machine's wall clock
    was set or the machine was suspended meanwhile. Between, this machine's monotonic clock counts on. It is never
    early, and late by one round trip and one tick of the server at most.
    """

    def __init__(
        self,
        folder: Path,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._wall, self._monotonic = folder, wall, monotonic
        self._sample: tuple[float, float, float] | None = (
            None  # server, monotonic and wall time of one moment
        )

    def now(self) -> float:
        """Seconds since the epoch. May ask the server, and raises OSError."""
        server, monotonic, wall = self._sample or self.ask()
        passed, seen = self._monotonic() - monotonic, self._wall() - wall
        if passed > SAMPLE_SECONDS or abs(seen - passed) > 1:
            server, monotonic, _ = self.ask()
            passed = self._monotonic() - monotonic
        return server + passed

    def ask(self) -> tuple[float, float, float]:
        """Ask the server now."""
        os.utime(self._folder)
        server = self._folder.stat().st_mtime_ns / 1e9
        self._sample = server, self._monotonic(), self._wall()
        return self._sample
