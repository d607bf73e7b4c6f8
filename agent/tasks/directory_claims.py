"""What is in the folder of one task of a shared folder: a file for each claim, of which the latest counts.

Whoever lists a folder may miss a file that is being replaced meanwhile. So a claim's own file is never replaced, and
those that are, its record and its lease, are looked up by name.
"""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from agent.tasks.directory_files import Content, changed_at, names_in, read
from agent.tasks.directory_index import name_of
from agent.tasks.record import Frozen, TaskRecord
from agent.tasks.store import Claim, Stored

log = structlog.get_logger(__name__)

#: How long the times of a folder may take to show a change: one within the same tick of the server does not show.
TICK_SECONDS = 2

_TASK = re.compile(r"(\d{6,})\.task")
_ANY = re.compile(r"(\d{6,})\.(?:task|record|lease|cancel)")


class Header(Frozen):
    """The first line of the files of a claim and of its record."""

    fence: int
    owner: str
    taken: str  #: digest of the record of the take, by which a repeated one is recognised
    ended: bool  #: nobody holds the claim any more
    lease_ends_at: float  #: of the lease that came with the claim; one that was extended has a file


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A task as it was read."""

    record: TaskRecord
    body: bytes
    header: Header
    lease_ends_at: float
    expires_at: float
    cancel_requested: bool
    folder_changed_at: float
    read_at: float

    def owner(self, now: float) -> str | None:
        return self.header.owner if not self.header.ended and now < self.lease_ends_at else None

    def stored(self, now: float) -> Stored:
        return Stored(self.record, self.header.fence, self.owner(now), self.cancel_requested)

    def is_as_in(self, folder: int) -> bool:
        """Whether nothing has changed in its folder: by the folder's time, once that had settled."""
        is_settled = self.folder_changed_at + TICK_SECONDS < self.read_at
        return is_settled and changed_at(folder) == self.folder_changed_at

    def is_of(self, claim: Claim) -> bool:
        return (self.header.fence, self.header.owner) == (claim.fence, claim.owner)


@dataclass(frozen=True, slots=True)
class Found:
    """What is in a task's folder: the number of the latest claim (0: none), when it was made, and the task unless it
    is forgotten."""

    number: int
    made_at: float
    snapshot: Snapshot | None


NOTHING = Found(0, 0, None)


def find_in(folder: int, name: str, *, now: float, ttl_seconds: float) -> Found:
    """What the open folder of this name holds. A file that is no task's counts as a task that is forgotten.

    Raises FileNotFoundError when a newer claim makes the file superfluous while it is about to be read.
    """
    folder_changed_at = changed_at(folder)
    names = os.listdir(folder)
    number = max(numbers_of(names), default=0)
    if number == 0:
        return NOTHING
    made_at = read_claim(task_file(number), folder=folder).changed_at
    content = _record(number, folder)
    try:
        head, body = content.data.split(b"\n", 1)
        header, record = Header.model_validate_json(head), TaskRecord.model_validate_json(body)
    except ValueError:
        return _bad(name, number, made_at, "it is no record")
    if name_of(record.id) != name:
        return _bad(name, number, made_at, "it is of another task")
    lease_ends_at, renewed_at = _lease(number, folder) or (header.lease_ends_at, content.changed_at)
    snapshot = Snapshot(
        record,
        body,
        header,
        lease_ends_at,
        max(content.changed_at, renewed_at) + ttl_seconds,
        cancel_file(number) in names,
        folder_changed_at,
        now,
    )
    return Found(number, made_at, snapshot if now < snapshot.expires_at else None)


def _bad(name: str, number: int, made_at: float, reason: str) -> Found:
    log.warning("store.bad_file", task=name, claim=number, reason=reason)
    return Found(number, made_at, None)


def numbers_of(names: list[str], files: re.Pattern[str] = _TASK) -> set[int]:
    return {int(match[1]) for match in map(files.fullmatch, names) if match}


def remove_claims(folder: Path, *, before: int) -> None:
    """Remove these claims, the latest last, so that none shows again that was followed by another."""
    for number in sorted(n for n in numbers_of(names_in(folder), _ANY) if n < before):
        for file in (lease_file(number), cancel_file(number), record_file(number), task_file(number)):
            with suppress(IsADirectoryError):  # somebody's joke; it stays
                (folder / file).unlink(missing_ok=True)


def read_claim(path: Path | str, *, folder: int | None = None) -> Content:
    """A file of a claim; an empty one for something that is no file."""
    try:
        return read(path, folder=folder)
    except OSError as exc:
        if exc.errno not in (errno.EISDIR, errno.ELOOP):
            raise
        return Content(b"", 0)


def task_file(number: int) -> str:
    return f"{number:06d}.task"


def record_file(number: int) -> str:
    return f"{number:06d}.record"


def lease_file(number: int) -> str:
    return f"{number:06d}.lease"


def cancel_file(number: int) -> str:
    return f"{number:06d}.cancel"


def _record(number: int, folder: int) -> Content:
    """The record as it was last written, or as it came with the claim."""
    with suppress(FileNotFoundError):
        return read_claim(record_file(number), folder=folder)
    return read_claim(task_file(number), folder=folder)


def _lease(number: int, folder: int) -> tuple[float, float] | None:
    """When the extended lease ends, and when it was extended; None when it was not."""
    with suppress(FileNotFoundError, ValueError):
        content = read_claim(lease_file(number), folder=folder)
        return float(content.data), content.changed_at
    return None
