"""A task's life from admission to delivery, on an instance with an engine.

    admit (ours, another instance's, or over) -> work, which others wait for -> deliver

Each task has one asyncio task of its own, `_work`; requests only wait for it. So a caller who goes away, a second
delivery of the same id and a cancel from elsewhere are all the same to the run: somebody waits, or nobody does. What
happens within it is told in agent/worker.py.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

import structlog

from agent.admission import Admission, RunRequest, new_task_id
from agent.elsewhere import Elsewhere, show_all
from agent.errors import (
    AgentError,
    CallerGone,
    PromptRefused,
    QueueFull,
    ShuttingDown,
    StoreUnavailable,
    TaskCancelled,
    TaskConflict,
)
from agent.executor import Executor
from agent.labels.labeller import Labeller
from agent.leases import Leases
from agent.metrics import Metrics
from agent.outputs.places import OutputPlaces
from agent.policy import check_policy
from agent.safety.safety import Safety
from agent.service import Delivery, Show, TaskService
from agent.settings import Settings
from agent.tasks.board import TaskBoard, is_orphan
from agent.tasks.keeper import Keeper
from agent.tasks.live import LiveTask
from agent.tasks.record import State, TaskRecord
from agent.webhooks.notifier import Notifier
from agent.worker import Worker

log = structlog.get_logger(__name__)

#: How long a cancel waits for the instance that runs the task before it answers what is known.
CANCEL_SECONDS = 3

#: Sent as Retry-After when the queue is full.
RETRY_AFTER_SECONDS = 2

#: How long putting tasks back may take at shutdown.
PUT_BACK_SECONDS = 10

#: How long the messages of tasks that ended in the last moment may take at shutdown.
LAST_POST_SECONDS = 2


class Runner(TaskService):
    """Runs tasks on this instance's engine. `start` and `stop` frame everything else."""

    def __init__(
        self,
        settings: Settings,
        board: TaskBoard,
        executor: Executor,
        safety: Safety,
        labeller: Labeller,
        places: OutputPlaces,
        notifier: Notifier,
        metrics: Metrics,
    ) -> None:
        self.instance = uuid.uuid4().hex[:12]
        self._safety, self._labeller = safety, labeller
        self._settings, self._board, self._executor, self._places = settings, board, executor, places
        self._live, self._notifier = board.live, notifier
        self._admission = Admission(settings, board, self.instance, notifier)
        self._elsewhere = Elsewhere(settings, board, self._admission)
        self._leases = Leases(board.store, self._live, self.instance, settings.lease_seconds)
        self._keeper = Keeper(board.store, max_bytes=settings.memory_output_bytes)
        self._worker = Worker(
            settings,
            self.instance,
            executor,
            safety,
            labeller,
            places,
            self._keeper,
            notifier,
            metrics,
            requeued=self._number_waiting,
        )
        self._is_stopping = False
        self._drain: asyncio.Task[None] | None = None
        #: Tasks between the check for room and their place among the live ones.
        self._claims: dict[str, asyncio.Task[LiveTask | TaskRecord]] = {}

    async def start(self) -> None:
        self._leases.start()
        self._keeper.start()

    def thaw(self, frozen_seconds: float) -> None:
        """This instance was frozen: the time does not count for its tasks, and their leases may have run out."""
        self._worker.thaw(frozen_seconds)
        self._leases.renew()

    async def drain(self) -> None:
        self._is_stopping = True
        if self._drain is None:
            self._drain = asyncio.create_task(self._empty())
        await asyncio.shield(self._drain)

    async def _empty(self) -> None:
        deadline = time.monotonic() + self._settings.shutdown_seconds
        for live in tuple(self._live.values()):
            live.hurry()
        await self._wait_for_work(self._settings.shutdown_seconds)
        for live in tuple(self._live.values()):
            live.stop(ShuttingDown(retry_after=RETRY_AFTER_SECONDS))
        await self._wait_for_work(PUT_BACK_SECONDS)
        await self._notifier.drain(max(deadline - time.monotonic(), LAST_POST_SECONDS))

    async def stop(self) -> None:
        """Drain, then end everything that was started."""
        await self.drain()
        await self._leases.stop()
        await self._keeper.stop()
        await self._executor.stop()

    async def run(
        self,
        request: RunRequest,
        task_id: str,
        *,
        is_named: bool,
        show: Show | None = None,
    ) -> Delivery:
        while True:
            admitted = await self._admit(request, task_id, is_background=False, is_named=is_named)
            if isinstance(admitted, LiveTask):
                record = await self._attend(admitted, show)
                outputs, is_kept = admitted.outputs, admitted.is_kept
            else:
                record = await self._elsewhere.watch(task_id, show)
                outputs = await self._board.outputs(task_id) if record.state is State.SUCCEEDED else []
                is_kept = True
            if record.state.is_final and not _is_ours_to_repeat(admitted, record):
                await self._notifier.resume(record)
                if record.error is not None:
                    raise AgentError.from_dict(record.error, task_id)
                return Delivery(record, outputs, is_kept)
            if self._is_stopping:
                raise ShuttingDown(task_id=task_id)
            # Its owner is gone without an end, or with its caller while we waited too: the task may be ours now.

    async def submit(self, request: RunRequest, task_id: str | None = None) -> TaskRecord:
        admitted = await self._admit(
            request, task_id or new_task_id(), is_background=True, is_named=task_id is not None
        )
        if isinstance(admitted, LiveTask):
            return admitted.record
        await self._notifier.resume(admitted)
        return admitted

    async def cancel(self, task_id: str) -> TaskRecord:
        try:
            async with asyncio.timeout(CANCEL_SECONDS):
                record = await self._cancel(task_id)
        except TimeoutError:
            return await self._board.get(task_id)
        await self._notifier.wait(record)
        return record

    async def _cancel(self, task_id: str) -> TaskRecord:
        if live := self._live.get(task_id):
            live.stop(TaskCancelled())
            record = await live.wait()
            if record.state.is_final:
                return record
            # Another instance has taken it over.
        return await self._elsewhere.cancel(task_id)

    async def reject(self, task_id: str, error: AgentError, request: RunRequest | None) -> bool:
        return await self._admission.reject(task_id, error, request)

    def queue(self) -> dict[str, Any]:
        by_state: dict[State, list[str]] = {State.RUNNING: [], State.QUEUED: []}
        for live in self._live.values():
            by_state[live.state].append(live.id)
        return {
            "running": by_state[State.RUNNING],
            "queued": by_state[State.QUEUED],
            "capacity": self._capacity,
        }

    @property
    def is_stopping(self) -> bool:
        return self._is_stopping

    @property
    def can_submit(self) -> bool:
        return not self._settings.behind_gateway

    @property
    def _capacity(self) -> int:
        return self._settings.concurrency + self._settings.queue_size

    async def _admit(
        self, request: RunRequest, task_id: str, *, is_background: bool, is_named: bool
    ) -> LiveTask | TaskRecord:
        """A task of ours that works, or the record of one that others run or that is over."""
        self._places.check(request)
        if task_id not in self._live:
            request = await self._check_prompt(request, task_id, is_named=is_named)
        while busy := self._unsettled(task_id):
            await asyncio.wait((busy,))
        live = self._live.get(task_id)
        if live is None:
            if self._is_stopping:
                raise ShuttingDown(retry_after=RETRY_AFTER_SECONDS)
            if len(self._live) + len(self._claims) >= self._capacity:
                if is_named and (known := await self._admission.find(request, task_id)):
                    return known
                raise QueueFull(limit=self._capacity, retry_after=RETRY_AFTER_SECONDS)
            check_policy(request.workflow, allow=self._settings.nodes_allow, deny=self._settings.nodes_deny)
            self._safety.check(request)
            self._labeller.check(request)
            claiming = asyncio.create_task(
                self._claim(request, task_id, is_background=is_background, is_named=is_named)
            )
            self._claims[task_id] = claiming
            try:
                return await asyncio.shield(claiming)
            except asyncio.CancelledError:
                claiming.add_done_callback(_leave)  # a claim that was taken all the same must not lie about
                raise
        if live.record.workflow_digest != request.digest:
            raise TaskConflict(task_id=task_id)
        if is_named and live.claim is None:
            raise StoreUnavailable
        live.is_background = live.is_background or is_background
        live.must_keep |= self._admission.must_keep(is_background=is_background, is_named=is_named)
        return live

    async def _check_prompt(self, request: RunRequest, task_id: str, *, is_named: bool) -> RunRequest:
        try:
            return await self._safety.check_prompt(request)
        except PromptRefused as refused:
            if is_named:  # its record tells what was found
                await self._admission.reject(task_id, refused, request)
            raise

    def _unsettled(self, task_id: str) -> asyncio.Task[Any] | None:
        """What must be over before one can tell whether the task is here: a claim on it, which may find no store and
        so not this one either, or its work that is about to end, since whoever joined it now would share an end that
        is not his."""
        live = self._live.get(task_id)
        return self._claims.get(task_id) or (live.work if live is not None and live.is_ending else None)

    async def _claim(
        self, request: RunRequest, task_id: str, *, is_background: bool, is_named: bool
    ) -> LiveTask | TaskRecord:
        try:
            admitted = await self._admission.claim(
                request, task_id, is_background=is_background, is_named=is_named
            )
        finally:
            del self._claims[task_id]
        if isinstance(admitted, LiveTask) and admitted.work is None:
            self._begin(admitted, request)
        return admitted

    def _begin(self, live: LiveTask, request: RunRequest) -> None:
        self._live[live.id] = live
        live.work = asyncio.create_task(self._work(live, request), name=f"task {live.id}")
        self._number_waiting()
        log.info("task.admitted", task_id=live.id, attempt=live.record.attempt, nodes=len(live.record.nodes))

    async def _attend(self, live: LiveTask, show: Show | None) -> TaskRecord:
        """Wait for a task of ours. Whoever leaves last takes it with him, unless it runs in the background."""
        live.waiters += 1
        try:
            if show is None:
                return await live.wait()
            return await self._wait_and_show(live, show)
        finally:
            live.waiters -= 1
            if live.waiters == 0 and not live.is_background:
                live.stop(CallerGone())

    async def _wait_and_show(self, live: LiveTask, show: Show) -> TaskRecord:
        waiting = [asyncio.create_task(live.wait()), asyncio.create_task(show_all(live.follow(), show))]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if not live.is_done:
                await waiting[-1]  # before the task's end it ends only by an error of `show`
            return live.record
        finally:
            for wait in waiting:
                wait.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _work(self, live: LiveTask, request: RunRequest) -> None:
        try:
            await self._worker.work(live, request)
        finally:
            live.finish()
            del self._live[live.id]
            self._number_waiting()

    def _number_waiting(self) -> None:
        """Tell each waiting task how many tasks of this instance are before it."""
        for ahead, live in enumerate(self._live.values()):
            if live.state is State.QUEUED and live.record.queue_position != ahead:
                live.update(queue_position=ahead)

    async def _wait_for_work(self, seconds: float) -> None:
        if work := [live.work for live in self._live.values() if live.work]:
            await asyncio.wait(work, timeout=seconds)


def _is_ours_to_repeat(admitted: LiveTask | TaskRecord, record: TaskRecord) -> bool:
    """Whether a run that was under way ended only because another caller of it left, or its instance: we are still
    here."""
    was_over = isinstance(admitted, TaskRecord) and admitted.state.is_final
    is_left = is_orphan(record) or (record.error is not None and record.error["code"] == CallerGone.code)
    return not was_over and is_left


def _leave(claiming: asyncio.Task[LiveTask | TaskRecord]) -> None:
    """Stop a task that nobody waits for: its caller left while it was being claimed."""
    if claiming.cancelled() or claiming.exception() is not None:
        return
    admitted = claiming.result()
    if isinstance(admitted, LiveTask) and admitted.waiters == 0 and not admitted.is_background:
        admitted.stop(CallerGone())
