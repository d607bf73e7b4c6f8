"""Tasks as folders of files, in calls that block. See `directory` for the layout and for what it rests on."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from agent.errors import StoreUnavailable
from agent.tasks.directory_files import Content, Files, ServerClock, make_folder, mark, names_in, read
from agent.tasks.directory_index import Index, name_at, name_of, place_of
from agent.tasks.record import Frozen, TaskRecord
from agent.tasks.store import Claim, ClaimLost, Stored

log = structlog.get_logger(__name__)

#: How often a call begins anew because the task changed under it.
TRIES = 20
TOO_QUICK = "The task is being changed by others all the time. Try again later."

#: How long the times of a folder may take to show a change: a change within the same tick may not show at all.
TICK_SECONDS = 2

_CLAIM = re.compile(r"(\d{6,})\.task")
_OF_CLAIM = re.compile(r"(\d{6,})\.(?:task|lease|cancel)")


class Header(Frozen):
    """The first line of a task's file."""

    fence: int
    owner: str
    taken: str  #: digest of the record of the take, by which a repeated one is recognised
    ended: bool  #: nobody holds the claim any more
    lease_ends_at: float  #: of the lease that came with the claim; one that was extended has a file


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A task as it was read. `folder_changed_at` tells later on whether anything has changed."""

    record: TaskRecord
    body: bytes
    header: Header
    lease_ends_at: float
    expires_at: float
    cancel_requested: bool
    folder_changed_at: float

    def owner(self, now: float) -> str | None:
        return self.header.owner if not self.header.ended and now < self.lease_ends_at else None

    def stored(self, now: float) -> Stored:
        return Stored(self.record, self.header.fence, self.owner(now), self.cancel_requested)

    def is_of(self, claim: Claim) -> bool:
        return (self.header.fence, self.header.owner) == (claim.fence, claim.owner)


@dataclass(frozen=True, slots=True)
class Found:
    """What is in a task's folder: the number of the latest claim (0: none), when its file was changed, and the task
    unless it is forgotten."""

    number: int
    changed_at: float
    snapshot: Snapshot | None


NOTHING = Found(0, 0, None)


class Tasks:
    """Reads and changes tasks. Threads and processes may do so at the same time. Raises OSError."""

    def __init__(self, files: Files, clock: ServerClock, record_ttl_seconds: float) -> None:
        self._files, self._clock, self._ttl = files, clock, record_ttl_seconds
        self.index = Index(files.index)
        # An abandoned call of this process may still write: the next one must not overtake it.
        self._locks = [threading.Lock() for _ in range(64)]

    # --- Reading --------------------------------------------------------------------------------------------------

    def find(self, task_id: str) -> Found:
        return self.find_named(name_of(task_id))

    def find_named(self, name: str) -> Found:
        """What a folder holds now. A file that is no task's counts as a task that is forgotten."""
        now = self._clock.now()
        for _ in range(TRIES):
            try:
                with _opened(self._files.tasks / name) as folder:
                    return self._find_in(folder, name, now)
            except FileNotFoundError:
                if not (self._files.tasks / name).exists():
                    self._files.tasks.stat()  # raises: it is not one task that is missing
                    return NOTHING
                # A newer claim has made that file superfluous while we were about to read it.
        raise StoreUnavailable(TOO_QUICK)

    def refresh(self, task_id: str, seen: Snapshot) -> Found:
        """As `find`, by one request to the server where nothing has changed."""
        name = name_of(task_id)
        with suppress(FileNotFoundError), _opened(self._files.tasks / name) as folder:
            now, changed_at = self._clock.now(), _changed_at(folder)
            is_settled = changed_at + TICK_SECONDS < now
            if is_settled and changed_at == seen.folder_changed_at and now < seen.expires_at:
                return Found(0, 0, seen)
        return self.find_named(name)

    def _find_in(self, folder: int, name: str, now: float) -> Found:
        changed_at = _changed_at(folder)
        names = os.listdir(folder)
        number = max(_numbers(names), default=0)
        if number == 0:
            return NOTHING
        content = _read_claim(_task_file(number), folder=folder)
        try:
            head, body = content.data.split(b"\n", 1)
            header, record = Header.model_validate_json(head), TaskRecord.model_validate_json(body)
        except ValueError as exc:
            log.warning("store.bad_file", file=f"tasks/{name}/{_task_file(number)}", reason=str(exc)[:200])
            return Found(number, content.changed_at, None)
        if name_of(record.id) != name:
            log.warning("store.bad_file", file=f"tasks/{name}/{_task_file(number)}", reason="of another task")
            return Found(number, content.changed_at, None)
        lease = _lease(number, folder) if _lease_file(number) in names else None
        lease_ends_at, renewed_at = lease or (header.lease_ends_at, content.changed_at)
        snapshot = Snapshot(
            record,
            body,
            header,
            lease_ends_at,
            max(content.changed_at, renewed_at) + self._ttl,
            _cancel_file(number) in names,
            changed_at,
        )
        return Found(number, content.changed_at, snapshot if now < snapshot.expires_at else None)

    # --- Changing -------------------------------------------------------------------------------------------------

    def take(
        self, record: TaskRecord, expected_fence: int, owner: str, lease_seconds: float
    ) -> Claim | Stored:
        claim = Claim(record.id, expected_fence + 1, owner, lease_seconds)
        taken = hashlib.sha256(_body(record)).hexdigest()
        with self._lock(name_of(record.id)):
            for _ in range(TRIES):
                found = self.find(record.id)
                if (known := found.snapshot) is not None:
                    if known.is_of(claim) and known.header.taken == taken and not known.header.ended:
                        self._extend(found.number, claim)
                        return claim
                    stored = known.stored(self._clock.now())
                    if stored.fence != expected_fence or stored.owner is not None:
                        return stored
                if self._claim(found, claim, record, taken=taken):
                    return claim
        raise StoreUnavailable(TOO_QUICK)

    def write(self, claim: Claim, record: TaskRecord, *, ends: bool) -> None:
        with self._lock(name_of(claim.task_id)):
            for _ in range(TRIES):
                found = self.find(claim.task_id)
                if (known := found.snapshot) is None:
                    if self._claim(found, claim, record, ended=ends):
                        return
                    continue
                if ends and known.is_of(claim) and known.header.ended and known.body == _body(record):
                    return
                _check(known, claim)
                header = known.header.model_copy(update={"ended": ends})
                self._rewrite(found.number, known, header, record)
                return
        raise StoreUnavailable(TOO_QUICK)

    def amend(self, record: TaskRecord, fence: int) -> bool:
        with self._lock(name_of(record.id)):
            found = self.find(record.id)
            known = found.snapshot
            if known is None or not known.header.ended or known.header.fence != fence:
                return False
            if not record.state.is_final or known.record.state is not record.state:
                return False
            self._rewrite(found.number, known, known.header, record)
            return True

    def extend(self, claim: Claim) -> bool:
        with self._lock(name_of(claim.task_id)):
            found = self.find(claim.task_id)
            if (known := found.snapshot) is None:
                return False
            _check(known, claim)
            self._extend(found.number, claim)
            return known.cancel_requested

    def request_cancel(self, task_id: str) -> Stored | None:
        found = self.find(task_id)
        if found.snapshot is None:
            return None
        mark(self._folder(task_id) / _cancel_file(found.number))
        found = self.find(task_id)
        return found.snapshot.stored(self._clock.now()) if found.snapshot else None

    def put_output(self, claim: Claim, index: int, data: bytes) -> None:
        path = self.output(claim.task_id, claim.fence, index)
        if not path.parent.exists():  # the task is forgotten, and will be stored anew
            self._make_folder(claim.task_id, self._clock.now())
        self._files.replace(path, data)

    def _claim(
        self, base: Found, claim: Claim, record: TaskRecord, *, taken: str = "", ended: bool = False
    ) -> bool:
        """Make the claim after the one that was found to be the latest; False when somebody else was quicker.

        The link is the claim: one alone succeeds. But what it follows must still be there afterwards. If that expired
        and was removed, others began again with the first number, and their link succeeded too.
        """
        folder = self._make_folder(record.id, record.created_at)
        header = Header(
            fence=claim.fence,
            owner=claim.owner,
            taken=taken,
            ended=ended,
            lease_ends_at=self._clock.now() + claim.lease_seconds,
        )
        number = base.number + 1
        path = folder / _task_file(number)
        if not self._files.create(path, _head(header), _body(record)):
            return False
        is_latest = max(_numbers(names_in(folder)), default=0) == number
        if not self._is_there(base, folder) or (base.number == 0 and not is_latest):
            path.unlink(missing_ok=True)
            return False
        if is_latest:
            _remove_claims(folder, before=base.number)
            self.index.add(
                place_of(record.created_at, folder.name)
            )  # a sweep may have taken it for an old one
        return is_latest

    def _is_there(self, base: Found, folder: Path) -> bool:
        """Whether the file of the claim is the one that was found, not another one by its name."""
        if base.number == 0:
            return True
        with suppress(FileNotFoundError):
            return _read_claim(folder / _task_file(base.number)).changed_at == base.changed_at
        return False

    def _rewrite(self, number: int, known: Snapshot, header: Header, record: TaskRecord) -> None:
        """Replace the file of a claim. Only its owner does so, so that nothing of a newer claim is touched."""
        folder = self._folder(record.id)
        if record.created_at != known.record.created_at:
            self.index.add(place_of(record.created_at, folder.name))
        self._files.replace(folder / _task_file(number), _head(header), _body(record))

    def _extend(self, number: int, claim: Claim) -> None:
        ends_at = str(self._clock.now() + claim.lease_seconds).encode()
        self._files.replace(self._folder(claim.task_id) / _lease_file(number), ends_at, is_durable=False)

    def _make_folder(self, task_id: str, created_at: float) -> Path:
        folder = self._folder(task_id)
        self.index.add(place_of(created_at, folder.name))
        make_folder(folder)
        return folder

    # --- Removing -------------------------------------------------------------------------------------------------

    def sweep(self, place: str, *, output_ttl_seconds: float) -> None:
        """Remove what has expired of the task at this place, and the place if it leads nowhere any more."""
        name = name_at(place)
        folder = self._files.tasks / name
        with self._lock(name):
            now, found = self._clock.now(), self.find_named(name)
            for output in (folder / n for n in names_in(folder) if n.endswith(".output")):
                self._files.remove_older(output, now - output_ttl_seconds)
            if (known := found.snapshot) is not None:
                if place_of(known.record.created_at, name) != place:
                    self.index.remove(place)
                return
            _remove_claims(folder, before=found.number + 1)
            try:
                folder.rmdir()
            except FileNotFoundError:
                pass
            except OSError:
                return  # somebody has taken the task again, or outputs outlive it
            # An entry is made before its folder: a young one may be waiting for it.
            if self._files.remove_older(self.index.path(place), now - self._ttl):
                self.index.remove(place)

    # --- Names ----------------------------------------------------------------------------------------------------

    def _folder(self, task_id: str) -> Path:
        return self._files.tasks / name_of(task_id)

    def output(self, task_id: str, attempt: int, index: int) -> Path:
        return self._folder(task_id) / f"{attempt}-{index}.output"

    def _lock(self, name: str) -> threading.Lock:
        return self._locks[hash(name) % len(self._locks)]


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """An open folder. Opening it makes an NFS client ask the server for what is in it now."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield file
    finally:
        os.close(file)


def _changed_at(folder: int) -> float:
    return os.fstat(folder).st_mtime_ns / 1e9


def _numbers(names: list[str], files: re.Pattern[str] = _CLAIM) -> set[int]:
    return {int(match[1]) for match in map(files.fullmatch, names) if match}


def _remove_claims(folder: Path, *, before: int) -> None:
    """Remove these claims, the latest last, so that none shows again that was followed by another."""
    for number in sorted(n for n in _numbers(names_in(folder), _OF_CLAIM) if n < before):
        for file in (_lease_file(number), _cancel_file(number), _task_file(number)):
            with suppress(IsADirectoryError):  # somebody's joke; it stays
                (folder / file).unlink(missing_ok=True)


def _read_claim(path: Path | str, *, folder: int | None = None) -> Content:
    """The file of a claim; an empty one for something that is no file."""
    try:
        return read(path, folder=folder)
    except OSError as exc:
        if exc.errno not in (errno.EISDIR, errno.ELOOP):
            raise
        return Content(b"", 0)


def _task_file(number: int) -> str:
    return f"{number:06d}.task"


def _lease_file(number: int) -> str:
    return f"{number:06d}.lease"


def _cancel_file(number: int) -> str:
    return f"{number:06d}.cancel"


def _lease(number: int, folder: int) -> tuple[float, float] | None:
    """When the extended lease ends, and when it was extended; None for a file that is none."""
    content = read(_lease_file(number), folder=folder)
    try:
        return float(content.data), content.changed_at
    except ValueError:
        return None


def _head(header: Header) -> bytes:
    return header.model_dump_json().encode() + b"\n"


def _body(record: TaskRecord) -> bytes:
    return record.model_dump_json().encode()


def _check(known: Snapshot, claim: Claim) -> None:
    if known.header.ended or not known.is_of(claim):
        raise ClaimLost(claim.task_id)
