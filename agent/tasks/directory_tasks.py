"""Tasks as folders of files, in calls that block. See `directory` for the layout and for what it rests on."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.errors import StoreUnavailable
from agent.tasks.directory_claims import (
    NOTHING,
    Found,
    Header,
    Snapshot,
    cancel_file,
    find_in,
    lease_file,
    numbers_of,
    read_claim,
    record_file,
    remove_claims,
    task_file,
)
from agent.tasks.directory_due import Due
from agent.tasks.directory_files import Files, ServerClock, make_folder, mark, names_in, open_folder, opened
from agent.tasks.directory_index import Index, name_at, name_of, place_of
from agent.tasks.record import TaskRecord
from agent.tasks.store import LEASES_OF_GRACE, Claim, ClaimLost, Stored, due_in

#: How often a call begins anew because the task changed under it.
TRIES = 20
TOO_QUICK = "The task is being changed by others all the time. Try again later."


class Tasks:
    """Reads and changes tasks. Threads and processes may do so at the same time. Raises OSError."""

    def __init__(self, files: Files, clock: ServerClock, record_ttl_seconds: float) -> None:
        self._files, self._clock, self._ttl = files, clock, record_ttl_seconds
        self.index, self.due = Index(files.index), Due(files.due)
        # An abandoned call of this process may still write: the next one must not overtake it.
        self._locks = [threading.Lock() for _ in range(64)]

    # --- Reading --------------------------------------------------------------------------------------------------

    def find(self, task_id: str) -> Found:
        return self.find_named(name_of(task_id))

    def find_named(self, name: str) -> Found:
        now = self._clock.now()
        for _ in range(TRIES):
            with self._opened(name) as folder:
                if folder is None:
                    return NOTHING
                with suppress(FileNotFoundError):
                    return find_in(folder, name, now=now, ttl_seconds=self._ttl)
        raise StoreUnavailable(TOO_QUICK)

    def refresh(self, task_id: str, seen: Snapshot) -> Found:
        """As `find`, but nothing is read where nothing has changed."""
        name = name_of(task_id)
        if self._clock.now() < seen.expires_at:
            with self._opened(name) as folder:
                if folder is not None and seen.is_as_in(folder):
                    return Found(0, 0, seen)
        return self.find_named(name)

    @contextmanager
    def _opened(self, name: str) -> Iterator[int | None]:
        """The open folder of a task; None when there is none.

        The folder above is opened first: an NFS client then asks the server also for what it believes is not there.
        """
        with opened(self._files.tasks) as tasks:
            try:
                folder = open_folder(name, within=tasks)
            except FileNotFoundError:
                folder = None
        try:
            yield folder
        finally:
            if folder is not None:
                os.close(folder)

    def overdue(self, limit: int, put_off_seconds: float) -> list[Stored]:
        overdue = []
        for name in self.due.take(self._clock.now(), count=limit, put_off_seconds=put_off_seconds):
            known = self.find_named(name).snapshot
            due = due_in(known.record) if known is not None else None
            if known is None or due is None:
                self.due.clear(name)
            elif due > 0:
                self.due.set(name, self._clock.now() + due)
            elif (stored := known.stored(self._clock.now())).owner is None:
                overdue.append(stored)
        return overdue

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
                    ends = record.state.is_final
                    if known.is_of(claim) and known.header.taken == taken and known.header.ended is ends:
                        if not ends:
                            self._extend(found.number, claim, known.record)
                        return claim
                    stored = known.stored(self._clock.now())
                    if stored.fence != expected_fence or stored.owner is not None:
                        return stored
                if self._claim(found, claim, record, taken=taken, ended=record.state.is_final):
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
                if ends or record.deliver_until != known.record.deliver_until:
                    self._note_due(record, claim.lease_seconds * (LEASES_OF_GRACE - ends))
                return
        raise StoreUnavailable(TOO_QUICK)

    def amend(self, record: TaskRecord, fence: int) -> bool:
        with self._lock(name_of(record.id)):
            found = self.find(record.id)
            known = found.snapshot
            if known is None or not known.header.ended or known.header.fence != fence:
                return False
            if known.record.state is not record.state:
                return False
            self._rewrite(found.number, known, known.header, record)
            self._note_due(record)
            return True

    def extend(self, claim: Claim) -> bool:
        with self._lock(name_of(claim.task_id)):
            found = self.find(claim.task_id)
            if (known := found.snapshot) is None:
                return False
            _check(known, claim)
            self._extend(found.number, claim, known.record)
            return known.cancel_requested

    def request_cancel(self, task_id: str) -> Stored | None:
        found = self.find(task_id)
        if found.snapshot is None:
            return None
        mark(self._folder(task_id) / cancel_file(found.number))
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
        if not ended:  # before the claim: one whose taker dies next must not be forgotten
            self._note_due(record, LEASES_OF_GRACE * claim.lease_seconds)
        folder = self._make_folder(record.id, record.created_at)
        header = Header(
            fence=claim.fence,
            owner=claim.owner,
            taken=taken,
            ended=ended,
            lease_ends_at=self._clock.now() + claim.lease_seconds,
        )
        number = base.number + 1
        path = folder / task_file(number)
        if not self._files.create(path, _head(header), _body(record)):
            return False
        is_latest = max(numbers_of(names_in(folder)), default=0) == number
        if not self._is_there(base, folder) or (base.number == 0 and not is_latest):
            path.unlink(missing_ok=True)
            return False
        if is_latest:
            remove_claims(folder, before=base.number)
            self.index.add(
                place_of(record.created_at, folder.name)
            )  # a sweep may have taken it for an old one
            if ended:
                self._note_due(record)
        return is_latest

    def _is_there(self, base: Found, folder: Path) -> bool:
        """Whether the file of the claim is the one that was found, not another one by its name."""
        if base.number == 0:
            return True
        with suppress(FileNotFoundError):
            return read_claim(folder / task_file(base.number)).changed_at == base.made_at
        return False

    def _rewrite(self, number: int, known: Snapshot, header: Header, record: TaskRecord) -> None:
        """Replace the record of a claim. Nothing of a newer claim is touched."""
        folder = self._folder(record.id)
        if record.created_at != known.record.created_at:
            self.index.add(place_of(record.created_at, folder.name))
        self._files.replace(folder / record_file(number), _head(header), _body(record))

    def _extend(self, number: int, claim: Claim, record: TaskRecord) -> None:
        ends_at = str(self._clock.now() + claim.lease_seconds).encode()
        self._files.replace(self._folder(claim.task_id) / lease_file(number), ends_at, is_durable=False)
        self._note_due(record, LEASES_OF_GRACE * claim.lease_seconds)

    def _note_due(self, record: TaskRecord, grace_seconds: float = 0) -> None:
        seconds, name = due_in(record, grace_seconds=grace_seconds), name_of(record.id)
        if seconds is None:
            self.due.clear(name)
        else:
            self.due.set(name, self._clock.now() + seconds)

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
            if not self._is_there(found, folder):
                return  # another sweep was here, and perhaps somebody who began again after it
            remove_claims(folder, before=found.number + 1)
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

    def preview(self, task_id: str) -> Path:
        """Swept with the outputs."""
        return self._folder(task_id) / "preview.output"

    def output(self, task_id: str, attempt: int, index: int) -> Path:
        return self._folder(task_id) / f"{attempt}-{index}.output"

    def _lock(self, name: str) -> threading.Lock:
        return self._locks[hash(name) % len(self._locks)]


def _head(header: Header) -> bytes:
    return header.model_dump_json().encode() + b"\n"


def _body(record: TaskRecord) -> bytes:
    return record.model_dump_json().encode()


def _check(known: Snapshot, claim: Claim) -> None:
    if known.header.ended or not known.is_of(claim):
        raise ClaimLost(claim.task_id)
