"""The task store of instances that share a folder: a NAS mount.

    tasks/NAME/000007.task    the seventh claim of the task: its fence and owner, and the record it came with
    tasks/NAME/000007.record  the same with the record as it was last written
    tasks/NAME/000007.lease   when its lease ends, once it was extended
    tasks/NAME/000007.cancel  somebody asked its owner to stop
    tasks/NAME/N-INDEX.output bytes of an output of attempt N
    tasks/NAME/preview.output the latest picture of the task at work
    index/BUCKET/PLACE        all tasks, in order of creation (see directory_index)
    parked/NAME               a part of a request that is on its way
    cancels/OWNER/NAME        ids of tasks to cancel, for the owner to find
    due/NAME                  tasks that owe an end or a message (see directory_due)
    tmp/                      what is being written

**Claims are exact.** A claim is a new file, made by `link`, which the file server grants to one alone; the file with
the highest number counts. An owner replaces its own record only, so that a write of an old owner, whenever it comes,
changes nothing that anybody reads. Nothing is ever locked (see directory_files).

**Time is the file server's.** Leases and expiry go by the times that the server gives to files, so that it does not
matter what an instance's clock says. Two instances disagree by one round trip and one tick of the server's clock at
most: some milliseconds, of a lease of seconds.

**News of other instances are a little late.** A NAS does not push. What this process changes is seen here at once; a
watcher looks for changes of others every `poll_seconds`, and so does who listens for cancels; nobody else does. A
look opens the folder, which makes an NFS client ask the server instead of its cache of attributes.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog

from agent.errors import StoreUnavailable
from agent.tasks.directory_claims import Found, Snapshot
from agent.tasks.directory_files import Files, ServerClock, make_folder, names_in, read
from agent.tasks.directory_index import name_at, name_of, place_of
from agent.tasks.directory_sweep import Sweep
from agent.tasks.directory_tasks import Tasks
from agent.tasks.followers import registered, wait_for_change
from agent.tasks.record import State, TaskRecord
from agent.tasks.store import PREVIEW_SECONDS, Claim, Page, Stored, TaskStore
from agent.tasks.threads import Threads

log = structlog.get_logger(__name__)

THREADS = 8  # calls at once; each waits for the file server most of its time
OUTPUT_PATIENCE = 4  # outputs are large: how much longer they may take than other calls
BATCH = 100  # tasks that `page` looks at in one go
BATCHES = 20  # goes a call
TRIES = 5  # of a call under which a folder vanished
SWEEP_SECONDS = 10  # least time between two sweeps of this process

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MISSING = (errno.ENOENT, errno.ENOTDIR)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)

_Result = TypeVar("_Result")


class DirectoryStore(TaskStore):
    """Uses a folder that must be there; what it needs in it is made. Folders and files are the owner's alone (0700,
    0600), so all instances must run as the same user.

    A call that the file server does not answer fails after `timeout_seconds`, one with outputs after four times as
    long. Old files are removed a few at a time, by whoever takes tasks.
    """

    def __init__(
        self,
        folder: Path,
        *,
        record_ttl_seconds: float,
        output_ttl_seconds: float,
        timeout_seconds: float = 10,
        poll_seconds: float = 0.5,
        clock: ServerClock | None = None,
    ) -> None:
        self._files = Files(folder)
        self._clock = clock or ServerClock(self._files.temporary)
        self._tasks = Tasks(self._files, self._clock, record_ttl_seconds)
        self._sweep = Sweep(self._files, self._clock, self._tasks, record_ttl_seconds, output_ttl_seconds)
        self._swept_at = 0.0
        self._sweeping: asyncio.Task[None] | None = None
        self._record_ttl, self._output_ttl = record_ttl_seconds, output_ttl_seconds
        self._timeout_seconds, self._poll_seconds = timeout_seconds, poll_seconds
        self._threads = Threads(THREADS, "task-store")
        self._watchers: dict[str, set[asyncio.Event]] = {}
        self._cancels: dict[str, set[asyncio.Event]] = {}
        self._failures = 0
        self._closed = False

    @property
    def failures(self) -> int:
        return self._failures

    async def ping(self) -> None:
        await self._call(self._clock.ask)

    async def close(self) -> None:
        self._closed = True
        self._threads.close()
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.wait([self._sweeping])
        for followers in (*self._watchers.values(), *self._cancels.values()):
            for changed in followers:
                changed.set()

    async def read(self, task_id: str) -> Stored | None:
        return await self._call(lambda: self._as_stored(self._tasks.find(task_id)))

    async def take(
        self, record: TaskRecord, *, expected_fence: int, owner: str, lease_seconds: float
    ) -> Claim | Stored:
        taken = await self._call(partial(self._tasks.take, record, expected_fence, owner, lease_seconds))
        self._publish(record.id)
        self._begin_sweep()
        return taken

    async def write(self, claim: Claim, record: TaskRecord) -> None:
        await self._call(partial(self._tasks.write, claim, record, ends=record.state.is_final))
        self._publish(record.id)

    async def amend(self, record: TaskRecord, *, fence: int) -> bool:
        is_done = await self._call(partial(self._tasks.amend, record, fence))
        self._publish(record.id)
        return is_done

    async def release(self, claim: Claim, record: TaskRecord) -> None:
        await self._call(partial(self._tasks.write, claim, record, ends=True))
        self._publish(record.id)

    async def extend(self, claim: Claim) -> bool:
        return await self._call(partial(self._tasks.extend, claim))

    async def request_cancel(self, task_id: str) -> Stored | None:
        stored = await self._call(partial(self._request_cancel, task_id))
        if stored is not None:
            self._publish(task_id)
            for changed in self._cancels.get(stored.owner or "", ()):
                changed.set()
        return stored

    async def cancels(self, owner: str) -> AsyncGenerator[str, None]:
        self._refuse_if_closed()
        changed = asyncio.Event()
        with registered(self._cancels, owner, changed):
            while True:
                for task_id in await self._call(partial(self._take_cancels, owner)):
                    yield task_id
                await wait_for_change(changed, self._poll_seconds)

    async def watch(self, task_id: str) -> AsyncGenerator[Stored, None]:
        changed, shown = asyncio.Event(), None
        with registered(self._watchers, task_id, changed):
            seen, stored = await self._call(partial(self._look, task_id, None))
            while seen is not None:
                if stored is not None and stored != shown:
                    yield stored
                    shown = stored
                if seen.record.state.is_final:
                    return
                await wait_for_change(changed, self._poll_seconds)
                try:
                    seen, stored = await self._call(partial(self._look, task_id, seen))
                except StoreUnavailable:
                    self._refuse_if_closed()

    async def overdue(self, *, limit: int, put_off_seconds: float) -> list[Stored]:
        return await self._call(partial(self._tasks.overdue, limit, put_off_seconds))

    async def page(
        self, *, states: Collection[State] | None = None, limit: int = 50, before: str | None = None
    ) -> Page:
        found: list[tuple[str, Stored]] = []
        for _ in range(BATCHES):
            places = await self._call(partial(self._tasks.index.newest, before, BATCH))
            looks = (self._call(partial(self._find_at, place)) for place in places)
            tasks = zip(places, await asyncio.gather(*looks), strict=True)
            found += [
                (place, task)
                for place, task in tasks
                if task and (states is None or task.record.state in states)
            ]
            if len(found) > limit:
                return Page(tuple(task for _, task in found[:limit]), found[limit - 1][0])
            if len(places) < BATCH:
                return Page(tuple(task for _, task in found), None)
            before = places[-1]
        return Page(tuple(task for _, task in found), before)

    def cursor(self, record: TaskRecord) -> str:
        return place_of(record.created_at, name_of(record.id))

    async def put_output(self, claim: Claim, index: int, data: bytes) -> None:
        await self._call(partial(self._tasks.put_output, claim, index, data), OUTPUT_PATIENCE)

    async def get_output(self, task_id: str, attempt: int, index: int) -> bytes | None:
        path = self._tasks.output(task_id, attempt, index)
        return await self._call(partial(self._fetch, path, self._output_ttl), OUTPUT_PATIENCE)

    async def put_preview(self, claim: Claim, data: bytes) -> None:
        path = self._tasks.preview(claim.task_id)
        await self._call(partial(self._files.replace, path, data, is_durable=False))

    async def get_preview(self, task_id: str) -> bytes | None:
        return await self._call(partial(self._fetch, self._tasks.preview(task_id), PREVIEW_SECONDS))

    async def put_parked(self, digest: str, data: bytes) -> None:
        path = self._files.parked / name_of(digest)
        await self._call(partial(self._files.replace, path, data), OUTPUT_PATIENCE)

    async def get_parked(self, digest: str) -> bytes | None:
        path = self._files.parked / name_of(digest)
        return await self._call(partial(self._fetch, path, self._record_ttl), OUTPUT_PATIENCE)

    # --- In a thread ----------------------------------------------------------------------------------------------

    def _as_stored(self, found: Found) -> Stored | None:
        return found.snapshot.stored(self._clock.now()) if found.snapshot else None

    def _look(self, task_id: str, seen: Snapshot | None) -> tuple[Snapshot | None, Stored | None]:
        found = self._tasks.refresh(task_id, seen) if seen else self._tasks.find(task_id)
        return found.snapshot, self._as_stored(found)

    def _find_at(self, place: str) -> Stored | None:
        """The task at this place, if it still is there. What cannot be read is one task less, not the whole list."""
        try:
            stored = self._as_stored(self._tasks.find_named(name_at(place)))
        except PermissionError as exc:
            log.warning("store.bad_file", file=f"tasks/{name_at(place)}", reason=exc.strerror)
            return None
        if stored and place_of(stored.record.created_at, name_of(stored.record.id)) == place:
            return stored
        return None

    def _fetch(self, path: Path, ttl_seconds: float) -> bytes | None:
        content = self._files.find(path)
        return content.data if content and self._clock.now() < content.changed_at + ttl_seconds else None

    def _request_cancel(self, task_id: str) -> Stored | None:
        stored = self._tasks.request_cancel(task_id)
        if stored is not None and stored.owner is not None:
            folder = self._files.cancels / name_of(stored.owner)
            make_folder(folder)
            self._files.replace(folder / name_of(task_id), task_id.encode(), is_durable=False)
        return stored

    def _take_cancels(self, owner: str) -> list[str]:
        """The requests that lie there for an owner, and still stand."""
        folder, standing = self._files.cancels / name_of(owner), []
        make_folder(folder)  # an NFS client would go on believing for a minute that it is not there
        for name in names_in(folder):
            with suppress(FileNotFoundError, UnicodeDecodeError):
                task_id = read(folder / name).data.decode()
                (folder / name).unlink()
                stored = self._as_stored(self._tasks.find(task_id))
                if stored and stored.owner == owner and stored.cancel_requested:
                    standing.append(task_id)
        return standing

    # --- The way to the threads -----------------------------------------------------------------------------------

    async def _call(self, job: Callable[[], _Result], patience: float = 1) -> _Result:
        """Run it in a thread, and wait `patience` times as long as usual."""
        self._refuse_if_closed()
        try:
            return await self._threads.run(partial(self._prepared, job), patience * self._timeout_seconds)
        except OSError as exc:
            self._refuse_if_closed()
            self._failures += 1
            raise StoreUnavailable(_sentence(exc)) from exc

    def _prepared(self, job: Callable[[], _Result]) -> _Result:
        for _ in range(TRIES):
            with suppress(FileNotFoundError):
                return job()
            self._files.prepare()  # nobody has been here yet, or somebody has tidied up meanwhile
        return job()

    def _begin_sweep(self) -> None:
        if time.monotonic() - self._swept_at > SWEEP_SECONDS and (
            self._sweeping is None or self._sweeping.done()
        ):
            self._swept_at = time.monotonic()
            self._sweeping = asyncio.create_task(self._run_sweep(), name="task-store-sweep")

    async def _run_sweep(self) -> None:
        try:
            await self._call(self._sweep.run, OUTPUT_PATIENCE)
        except StoreUnavailable as error:
            log.debug("store.not_swept", reason=error.detail)
        except Exception:  # whatever it is, the next sweep may do better
            log.exception("store.not_swept")

    def _publish(self, task_id: str) -> None:
        for changed in self._watchers.get(task_id, ()):
            changed.set()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise StoreUnavailable("The task store is closed.")


def _sentence(exc: OSError) -> str:
    if isinstance(exc, TimeoutError):
        return "The task store (AGENT_STORE_DIR) cannot be used now: its file server does not answer."
    if exc.errno in FULL:
        remedy = "It is full: free some space, or lower AGENT_TASK_TTL_SECONDS."
    elif exc.errno in MISSING:
        remedy = "The folder must be there: make it, or see whether it is mounted."
    elif exc.errno in FORBIDDEN:
        remedy = "All instances must run as the same user, and the folder must be writable."
    else:
        remedy = "See what ails its file server."
    return f"The task store (AGENT_STORE_DIR) cannot be used now: {exc.strerror}. {remedy}"
