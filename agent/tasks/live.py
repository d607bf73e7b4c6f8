"""A task that this instance works on: its record now, who waits for it, and how its progress gets into the store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable
from typing import Any

import structlog

from agent import traces
from agent.errors import AgentError, StoreUnavailable
from agent.safety.verdict import Verdict
from agent.tasks.claims import Take
from agent.tasks.keeper import Keeper, Result
from agent.tasks.progress import Progress
from agent.tasks.record import State, TaskRecord
from agent.tasks.store import Claim, ClaimLost, TaskStore

log = structlog.get_logger(__name__)

#: Least time between two writes of one task's progress to the store.
WRITE_SECONDS = 0.3

#: Least time between two previews of one task, in seconds.
PREVIEW_PAUSE = 0.5

#: A larger preview is left out: it goes through the store twice a second. ComfyUI scales its own to 512 pixels, which
#: are about 30 KB as JPEG, and up to 160 KB of pure noise, as at the first steps.
LARGEST_PREVIEW = 192 * 1024


class LiveTask:
    """One task of this instance. `right` is the claim on it, or the take that the store did not answer at admission:
    such a task runs for the caller who waits for it, without a record until `claim_late` succeeds. None: it is
    nobody's task, and never gets a record.

    `waiters` counts the requests that wait for the result. `is_background` says that it goes on without any, and
    `must_keep` that its result may have to reach somebody who does not wait here.
    """

    def __init__(
        self,
        record: TaskRecord,
        store: TaskStore,
        right: Claim | Take | None,
        *,
        is_background: bool,
        must_keep: bool,
    ) -> None:
        self.is_background = is_background
        self.must_keep = must_keep
        self.is_kept = False
        self.waiters = 0
        #: The bytes of the outputs in order; None for those that lie in the object store.
        self.outputs: list[bytes | None] = []
        #: The latest picture of what is being made.
        self.preview: bytes | None = None
        #: Whether there may be one. Nobody reviews previews, so there are none where pictures must be reviewed.
        self.shows_previews = True
        #: Warnings of every attempt, of what is the same for all: its prompt.
        self.lasting_warnings: list[dict[str, Any]] = []
        self._previewed_at = -PREVIEW_PAUSE
        self.verdict: AgentError | None = None
        self.work: asyncio.Task[None] | None = None
        self._has_begun = False
        self._base, self._store, self._right = record, store, right
        self._progress: Progress | None = None
        self._composed: TaskRecord | None = record
        self._changed = asyncio.Event()
        self._done = asyncio.Event()
        self._is_closing = False
        self._hurry = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        if isinstance(right, Claim):
            self._start_writer(right, record)

    @property
    def id(self) -> str:
        return self._base.id

    @property
    def claim(self) -> Claim | None:
        return self._right if isinstance(self._right, Claim) else None

    async def claim_late(self) -> None:
        """Try the take again that was not answered; somebody else may have the task by now. Raises StoreUnavailable."""
        take = self._right
        if not isinstance(take, Take) or self._is_closing:
            return
        taken = await take.on(self._store)
        if isinstance(taken, Claim) and self._right is take and not self._is_closing:
            self._right = taken
            self._start_writer(taken, take.record)
            log.info("task.recorded_late", task_id=self.id)

    @property
    def record(self) -> TaskRecord:
        """The record as of now, progress included."""
        if self._composed is None:
            self._composed = self._base
            if self._progress is not None:
                self._composed = self._base.changed(
                    progress=self._progress.overall,
                    current_node=self._progress.current_node,
                    nodes=self._progress.snapshot(),
                    node_seconds=self._progress.node_seconds,
                )
        return self._composed

    @property
    def state(self) -> State:
        """That of the record, which need not be put together for it."""
        return self._base.state

    @property
    def is_done(self) -> bool:
        """Whether the final record is settled and, as far as it can be, stored."""
        return self._done.is_set()

    def update(self, **changes: Any) -> None:
        """Change fields of the record; followers and the store learn of it."""
        self._base = self._base.changed(**changes)
        self.note_progress()

    def show(self, progress: Progress) -> None:
        """From now on the record shows this attempt's progress."""
        self._progress = progress
        self.note_progress()

    def note_progress(self) -> None:
        """The progress moved on."""
        self._composed = None
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def show_preview(self, data: bytes) -> None:
        """A picture of what is being made. Most of those that come quickly are left out, and so are large ones."""
        now = time.monotonic()
        if self.shows_previews and len(data) <= LARGEST_PREVIEW and now - self._previewed_at >= PREVIEW_PAUSE:
            self.preview, self._previewed_at = data, now
            self.update(preview=self._base.preview + 1)

    def add_verdicts(self, verdicts: Iterable[Verdict]) -> None:
        """Note in the latest attempt what the review found."""
        if found := list(verdicts):
            *before, last = self._base.attempts
            changed = last.model_copy(update={"verdicts": [*last.verdicts, *found]})
            self.update(attempts=[*before, changed])

    def add_timing(self, stage: str, seconds: float) -> None:
        timings = self._base.timings
        self.update(timings={**timings, stage: round(timings.get(stage, 0) + seconds, 4)})
        traces.here().stage(stage, seconds)

    @property
    def is_ending(self) -> bool:
        """Whether its end is decided, though not yet stored."""
        return self.verdict is not None or self._is_closing

    def begin(self) -> None:
        """The first thing that the work does. Raises the verdict if one came before it could."""
        self._has_begun = True
        if self.verdict is not None:
            raise self.verdict

    def hurry(self) -> None:
        """Do not wait for a store that is away: the process is about to end, and callers shall have their result."""
        self._hurry.set()

    def stop(self, verdict: AgentError) -> None:
        """End the work early; the task ends with this error. The first verdict counts, and one that comes when
        the task has just ended does not."""
        if self.verdict is None and self.work is not None and not self._is_closing:
            self.verdict = verdict
            if self._has_begun:  # else nothing of it would run, also not what ends the task
                self.work.cancel()

    async def follow(self) -> AsyncGenerator[TaskRecord, None]:
        """The record now and after each change, up to and with the final one; what changes quickly is skipped."""
        while True:
            changed, record = self._changed, self.record
            is_last = self.is_done
            yield record
            if is_last:
                return
            await changed.wait()

    async def wait(self) -> TaskRecord:
        """The final record, once it is stored."""
        await self._done.wait()
        return self.record

    async def settle(self, keeper: Keeper, *, patience_seconds: float, **changes: Any) -> None:
        """Have the outputs and the final record (`changes` make it final) stored, then wake those who wait.

        They get their result also when the store stays away for `patience_seconds`. Raises ClaimLost: the task is
        somebody else's, and those who wait have not been woken.
        """
        self._is_closing = True
        await self._end_writer()
        final = self.record.changed(current_node=None, queue_position=None, preview=0, **changes)
        if self._right is not None:
            result = Result(final, tuple(self.outputs), self._right)
            self.is_kept = await keeper.store(result, patience_seconds=patience_seconds, hurry=self._hurry)
            final = result.record
            traces.here().stage("deliver", final.timings.get("deliver", 0))
        self._base, self._progress = final, None
        self.finish()

    async def put_back(self) -> None:
        """Give the claim up with the record as it is, so that any instance can take the task at once."""
        self._is_closing = True
        await self._end_writer()
        if self.claim is not None:
            try:
                await self._store.release(self.claim, self.record)
            except (ClaimLost, StoreUnavailable) as error:
                log.warning("task.not_put_back", task_id=self.id, reason=str(error))
        self.finish()

    def finish(self) -> None:
        """Wake those who wait, without touching the store."""
        self._is_closing = True
        if self._writer is not None:
            self._writer.cancel()
        self._done.set()
        self.note_progress()

    def _start_writer(self, claim: Claim, written: TaskRecord) -> None:
        self._writer = asyncio.create_task(self._write_on(claim, written), name=f"writer {self.id}")

    async def _write_on(self, claim: Claim, written: TaskRecord) -> None:
        """Write each change after `written`, which has just been stored, at most one every WRITE_SECONDS; the last one
        again until it is stored. The end of a task is not written here, so that a quick one needs no write but that."""
        is_stored, preview = True, None
        await asyncio.sleep(WRITE_SECONDS)
        while True:
            changed, record = self._changed, self.record
            if record is not written or not is_stored:
                try:
                    if self.preview is not None and self.preview is not preview:
                        preview = self.preview  # before the record that counts it
                        await self._store.put_preview(claim, preview)
                    await self._store.write(claim, record)
                    is_stored = True
                except StoreUnavailable as error:
                    if is_stored:
                        log.warning("task.progress_not_stored", task_id=self.id, reason=error.detail)
                    is_stored = False
                except ClaimLost:
                    return  # the heartbeat ends the work
                written = record
                await asyncio.sleep(WRITE_SECONDS)
            if is_stored:
                await changed.wait()

    async def _end_writer(self) -> None:
        if self._writer is not None:
            # Not kept: the frame in which it was cancelled holds this task, and with it the outputs, which in such a
            # circle would stay in memory until the garbage collector happens to look for old ones.
            writer, self._writer = self._writer, None
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
