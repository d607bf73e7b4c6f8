"""The models folder: where a model, its unfinished download and the note about it lie.

What is known of a model stands in a record beside it all, `ROOT/.provision/KEY.json`: what the file was when its
SHA-256 was computed, so that a later run need not read 6 GB again. The record's own modification time is the last time
that a run wanted the model; that of `KEY.used` the last time that a task used it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent.provision.errors import ProvisionError

if TYPE_CHECKING:
    from agent.provision.manifest import ModelEntry

STATE_FOLDER = ".provision"
CHUNK_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Record:
    """A model as it was when its content was last known."""

    path: str
    sha256: str
    bytes: int
    #: Whole seconds since the epoch: image layers and mounted buckets keep no fractions.
    mtime: int
    evictable: bool
    #: The file was deleted for the disk budget's sake.
    evicted: bool = False

    def describes(self, found: os.stat_result) -> bool:
        """Whether a file has kept its size and time since."""
        return (self.bytes, self.mtime) == (found.st_size, int(found.st_mtime))


@dataclass(frozen=True, slots=True)
class Place:
    """The files of one model. The unfinished one lies in the same folder, so that a rename can finish it."""

    path: str
    target: Path
    part: Path
    record: Path
    use: Path
    part_note: Path
    lock: Path


class ModelStore:
    """The models below one folder. Several processes may use one folder at once; see `Lock`."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._state = self.root / STATE_FOLDER

    def prepare(self) -> None:
        """Make the folders that are missing. Raises OSError."""
        self._state.mkdir(parents=True, exist_ok=True)

    def place(self, path: str) -> Place:
        """Where a model belongs. Raises ProvisionError when a symbolic link leads out of the models folder."""
        target = self.root / path
        for spot in (target.parent, target):
            if not spot.resolve().is_relative_to(self.root):
                raise ProvisionError(
                    f"{spot} leads out of {self.root} by a symbolic link: choose the real folder with --models"
                )
        key = hashlib.sha256(path.encode()).hexdigest()[:16]
        return Place(
            path=path,
            target=target,
            part=target.with_name(f".{target.name}.part"),
            record=self._state / f"{key}.json",
            use=self._state / f"{key}.used",
            part_note=self._state / f"{key}.part.json",
            lock=self._state / f"{key}.lock",
        )

    def is_present(self, entry: ModelEntry) -> bool:
        """Whether the right file lies there, judged by size and time against the record."""
        place = self.place(entry.path)
        record, found = read_record(place.record), _stat(place.target)
        return (
            record is not None
            and found is not None
            and not record.evicted
            and record.sha256 == entry.sha256
            and record.describes(found)
        )

    def keep(self, entry: ModelEntry) -> None:
        """Note that the file of this entry is there and is right."""
        place = self.place(entry.path)
        found = place.target.stat()
        write_record(
            place.record,
            Record(entry.path, entry.sha256, found.st_size, int(found.st_mtime), entry.evictable),
        )

    def touch(self, entry: ModelEntry, now: float) -> None:
        """Note that a run at `now` (seconds since the epoch) wanted the model."""
        place = self.place(entry.path)
        record = read_record(place.record)
        with suppress(OSError):  # a read-only mount is a fine place for models
            if record is not None and record.evictable != entry.evictable:
                self.keep(entry)
            os.utime(place.record, (now, now))

    def note_use(self, path: str) -> None:
        """Note that a task uses the model now."""
        with suppress(OSError, ProvisionError):  # a read-only mount, again
            self.place(path).use.touch()

    def last_used(self, path: str) -> float:
        """When a task last used it, or the file was last read where the disk notes that."""
        place = self.place(path)
        times = [found.st_mtime for found in [_stat(place.use)] if found]
        times += [found.st_atime for found in [_stat(place.target)] if found]
        return max(times, default=0.0)

    def last_wanted(self, path: str) -> float:
        """When a run last wanted it."""
        found = _stat(self.place(path).record)
        return found.st_mtime if found else 0.0

    def evict(self, path: str) -> None:
        """Delete a model, and remember that it was here. Raises OSError."""
        place = self.place(path)
        record = read_record(place.record)
        if record is not None:
            wanted = self.last_wanted(path)
            write_record(place.record, Record(**{**asdict(record), "evicted": True}))
            os.utime(place.record, (wanted, wanted))
        place.target.unlink(missing_ok=True)

    def records(self) -> Iterator[Record]:
        """What is known of all models that were put here and not deleted by others since."""
        for file in sorted(self._state.glob("*.json")):
            record = read_record(file)
            if record is not None and (record.evicted or self._lies_here(record.path)):
                yield record

    def _lies_here(self, path: str) -> bool:
        with suppress(ProvisionError):
            return self.place(path).target.is_file()
        return False


def sha256_of(file: Path) -> str:
    """Read a whole file; the time of the last reading stays what it was. Blocks: for a thread. Raises OSError."""
    before = file.stat()
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    with suppress(OSError):
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    return digest


def read_record(file: Path) -> Record | None:
    """A record, or None where there is none or it is broken."""
    try:
        return Record(**json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def write_record(file: Path, record: Record) -> None:
    """Write a record whole or not at all. Raises OSError."""
    write_whole(file, json.dumps(asdict(record)).encode())


def write_whole(file: Path, data: bytes) -> None:
    """Put a small file in place by a rename. Raises OSError."""
    unfinished = file.with_name(f"{file.name}.{os.getpid()}.{os.urandom(4).hex()}.new")
    try:
        unfinished.write_bytes(data)
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)


def _stat(file: Path) -> os.stat_result | None:
    try:
        return file.stat()
    except OSError:
        return None
