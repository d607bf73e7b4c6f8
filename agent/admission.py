"""Who runs a task: claims it for this instance, or finds the instance or the record that has it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from agent.errors import (
    AgentError,
    CallerGone,
    InstanceLost,
    PromptRefused,
    StoreUnavailable,
    TaskCancelled,
    TaskConflict,
)
from agent.labels.options import LabelOptions
from agent.safety.options import SafetyOptions
from agent.settings import Outputs, Settings
from agent.tasks.board import TaskBoard, close_attempt
from agent.tasks.claims import Decision, Take, decide
from agent.tasks.live import LiveTask
from agent.tasks.progress import Progress
from agent.tasks.record import Attempt, Outcome, State, TaskRecord
from agent.tasks.store import Claim, Stored
from agent.webhooks.notifier import Notifier
from comfyui.events import Event
from comfyui.workflow import Workflow

if TYPE_CHECKING:
    from agent.safety.prompts.findings import Checked

log = structlog.get_logger(__name__)

Watch = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a caller wants run. `extra_data` and `options` go to ComfyUI with the prompt; `outputs` says how the caller
    wants them, if he says so, `safety` how strictly he wants them reviewed, and `labels` what they shall carry;
    `beside` is everything that stood beside the workflow, as it was sent. `watch` is told each of the engine's events
    before the end. `checked`: what the lists of banned terms found in it, once that is known."""

    workflow: Workflow = field(repr=False)
    digest: str
    extra_data: dict[str, Any] = field(default_factory=dict, repr=False)
    options: dict[str, Any] = field(default_factory=dict)
    beside: dict[str, Any] = field(default_factory=dict, repr=False)
    outputs: Outputs | None = None
    safety: SafetyOptions | None = None
    labels: LabelOptions | None = None
    watch: Watch | None = field(default=None, repr=False, compare=False)
    checked: Checked | None = field(default=None, repr=False, compare=False)

    @property
    def workflow_name(self) -> str | None:
        """The named workflow that it was made from."""
        return self.beside.get("workflow_name")

    def envelope(self) -> dict[str, Any]:
        """The body that asks another agent for the same."""
        return {**self.beside, "prompt": self.workflow.graph}

    @property
    def webhook(self) -> str | None:
        """The URL that shall be told of the task's end."""
        return self.beside.get("webhook")


def new_task_id() -> str:
    """An id of our own. Function Compute wants task ids to begin with a letter, and a UUID may begin with a digit."""
    return f"t-{uuid.uuid4()}"


class Admission:
    """Claims tasks in the name of `instance`. Calls may run at the same time, also for the same task."""

    def __init__(self, settings: Settings, board: TaskBoard, instance: str, notifier: Notifier) -> None:
        self._settings, self._board, self._store, self._instance = settings, board, board.store, instance
        self._notifier = notifier

    async def claim(
        self, request: RunRequest, task_id: str, *, is_background: bool, is_named: bool
    ) -> LiveTask | TaskRecord:
        """A new live task whose work has yet to begin; a live one that runs already; or the record of a task
        that another instance runs or that is over.

        Raises TaskConflict, and StoreUnavailable where the task may not run without a record (see TaskService.run).
        """
        needs_record = is_background or is_named
        record = self._first_record(request, task_id)
        taken = await self._try(self._take(record, 0), needs_record=needs_record)
        while isinstance(taken, Stored):
            match decide(taken, request.digest, self._settings.max_attempts):
                case Decision.RUN:
                    record = self._next_record(taken.record, record)
                    taken = await self._try(self._take(record, taken.fence), needs_record=needs_record)
                case Decision.JOIN:
                    return self._board.live.get(record.id) or taken.record
                case Decision.STORED:
                    return taken.record
                case Decision.CONFLICT:
                    raise TaskConflict(task_id=record.id)
                case Decision.CANCEL:
                    return await self.end_orphan(taken, TaskCancelled())
                case Decision.EXHAUSTED:
                    return await self.end_orphan(taken, InstanceLost())
        must_keep = self.must_keep(is_background=is_background, is_named=is_named)
        return LiveTask(record, self._store, taken, is_background=is_background, must_keep=must_keep)

    def must_keep(self, *, is_background: bool, is_named: bool) -> bool:
        """Whether the result may have to reach somebody who does not wait here. Behind the gateway a caller who named
        the task may have been answered 202 before we saw the request; then he can only poll."""
        return is_background or (is_named and self._settings.behind_gateway)

    async def find(self, request: RunRequest, task_id: str) -> TaskRecord | None:
        """The record of a task that is over or that another instance runs, so that nothing of it is to be done here.

        Raises TaskConflict, StoreUnavailable.
        """
        stored = await self._store.read(task_id)
        match decide(stored, request.digest, self._settings.max_attempts) if stored else None:
            case Decision.JOIN | Decision.STORED:
                return stored.record if stored else None
            case Decision.CONFLICT:
                raise TaskConflict(task_id=task_id)
            case _:
                return None

    async def announce(
        self, request: RunRequest, task_id: str, *, deliver_until: float
    ) -> tuple[TaskRecord, int | None]:
        """Store a task as queued and owned by nobody, for the instance that it will be delivered to; the number is the
        fence that it then has. None: the record is that of a task that an instance runs, or that is over.

        Raises TaskConflict, StoreUnavailable.
        """
        fresh = self._first_record(request, task_id).changed(attempts=[], deliver_until=deliver_until)
        record = fresh
        taken = await self._take(record, 0).on(self._store)
        while isinstance(taken, Stored):
            before = taken.record
            match decide(taken, request.digest, self._settings.max_attempts):
                case (
                    Decision.RUN
                ):  # also where it was announced before: that delivery may never have been asked for
                    attempts = close_attempt(before.attempts, Outcome.LOST)
                    record = fresh.changed(created_at=before.created_at, attempts=attempts)
                    taken = await self._take(record, taken.fence).on(self._store)
                case Decision.JOIN | Decision.STORED:
                    return before, None
                case Decision.CONFLICT:
                    raise TaskConflict(task_id=task_id)
                case Decision.CANCEL:
                    return await self.end_orphan(taken, TaskCancelled()), None
                case Decision.EXHAUSTED:
                    return await self.end_orphan(taken, InstanceLost()), None
        await self._store.release(taken, record)
        return record, taken.fence

    async def end_orphan(self, stored: Stored, error: AgentError) -> TaskRecord:
        """Finish a task whose owner is gone and that nobody will run; returns its final record."""
        is_cancel = isinstance(error, TaskCancelled | CallerGone)
        outcome = Outcome.CANCELLED if is_cancel else Outcome.LOST
        record = stored.record.changed(
            state=State.CANCELLED if is_cancel else State.FAILED,
            error=error.to_dict(),
            attempts=close_attempt(stored.record.attempts, outcome),
            current_node=None,
            queue_position=None,
            finished_at=time.time(),
            webhook=self._notifier.due(stored.record.webhook),
        )
        taken = await self._take(record, stored.fence).on(self._store)
        if isinstance(taken, Stored):
            return taken.record  # somebody was quicker
        log.info("task.ended", task_id=record.id, state=record.state.value, error=error.code)
        self._notifier.post(record)
        return record

    async def reject(self, task_id: str, error: AgentError, request: RunRequest | None) -> bool:
        """Write a refusal under its task-id, for callers who can only learn of it by polling; whether what they will
        read there is known. `request` is None where it could not be read.

        A task that exists stays as it is: the refused request was another one with its id, or another delivery.
        One that was refused only for now can run when it is delivered again.
        """
        if isinstance(error, TaskConflict):
            return True  # the id belongs to another task, which stays as it is
        now = time.time()
        found = error.to_dict()
        reviewed = Attempt(
            number=1,
            instance=self._instance,
            started_at=now,
            ended_at=now,
            outcome=Outcome.FAILED,
            error=found,
            verdicts=list(error.verdicts) if isinstance(error, PromptRefused) else [],
        )
        record = TaskRecord(
            id=task_id,
            state=State.FAILED,
            error=found,
            attempts=[reviewed] if reviewed.verdicts else [],
            created_at=now,
            finished_at=now,
            nodes=Progress(request.workflow).snapshot() if request else {},
            workflow_digest=request.digest if request else "",
            webhook=self._notifier.due(self._notifier.plan(request.webhook if request else None)),
            workflow_name=request.workflow_name if request else None,
        )
        try:
            taken = await self._take(record, 0).on(self._store)
        except StoreUnavailable as exc:
            log.warning("task.rejection_not_stored", task_id=task_id, reason=str(exc))
            return False
        if isinstance(taken, Claim):
            self._notifier.post(record)
        await self._notifier.resume(taken.record if isinstance(taken, Stored) else record)
        return True

    def _first_record(self, request: RunRequest, task_id: str) -> TaskRecord:
        now = time.time()
        return TaskRecord(
            id=task_id,
            created_at=now,
            workflow_digest=request.digest,
            workflow_name=request.workflow_name,
            nodes=Progress(request.workflow).snapshot(),
            deliver_until=self._deliver_until(now, 1),
            attempts=[Attempt(number=1, instance=self._instance, started_at=now)],
            webhook=self._notifier.plan(request.webhook),
        )

    def _next_record(self, stored: TaskRecord, fresh: TaskRecord) -> TaskRecord:
        """The record with which another attempt at a stored task begins."""
        closed = close_attempt(stored.attempts, Outcome.LOST)
        # The one before may have been ended while this one was being claimed.
        attempt = fresh.attempts[-1].model_copy(
            update={"number": stored.attempt + 1, "started_at": time.time()}
        )
        attempts = [*closed, attempt]
        return fresh.changed(
            created_at=stored.created_at,
            attempts=attempts,
            deliver_until=self._deliver_until(fresh.created_at, stored.tries + 1),
        )

    def _deliver_until(self, now: float, attempts: int) -> float | None:
        """Until when a task with so many attempts may be brought again if this instance dies; None: not at all."""
        remain = attempts < self._settings.max_attempts
        return now + self._settings.delivery_seconds if remain and self._settings.behind_gateway else None

    def _take(self, record: TaskRecord, fence: int) -> Take:
        return Take(record, fence, self._instance, self._settings.lease_seconds)

    async def _try(self, take: Take, *, needs_record: bool) -> Claim | Stored | Take:
        """The answer to a take; the take itself where the store gave none and the task may run without a record."""
        try:
            return await take.on(self._store)
        except StoreUnavailable as error:
            if needs_record:
                raise
            log.warning("task.not_recorded", task_id=take.record.id, reason=error.detail)
            return take
