"""The work on one task, from its first attempt to its stored end.

review the prompt -> attempt (engine, inputs, slot, prompt, outputs), again where that may help -> review the pictures
-> label them -> place the outputs -> settle
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

import structlog

from agent.admission import RunRequest
from agent.errors import (
    AgentError,
    CallerGone,
    EngineDied,
    EngineLostPrompt,
    EngineStalled,
    GpuBroken,
    InternalError,
    OutOfMemory,
    OutputCorrupt,
    OutputMissing,
    ShuttingDown,
    TaskCancelled,
    TaskTakenOver,
    TaskTimeout,
)
from agent.executor import Executor
from agent.labels.labeller import Labeller
from agent.metrics import Metrics
from agent.outputs.places import OutputPlaces
from agent.safety.safety import MadeAgain, Safety
from agent.seeds import ask_for_new_seeds
from agent.settings import Settings
from agent.tasks.board import close_attempt
from agent.tasks.keeper import Keeper
from agent.tasks.live import LiveTask
from agent.tasks.record import Attempt, Outcome, State, TaskRecord
from agent.tasks.store import ClaimLost
from agent.traces import entered, here
from agent.webhooks.notifier import Notifier

log = structlog.get_logger(__name__)

#: Faults after which this instance tries again itself: a fresh engine, freed memory or a fresh run may help.
RETRIED_HERE = (
    EngineDied,
    EngineLostPrompt,
    EngineStalled,
    GpuBroken,
    OutOfMemory,
    OutputMissing,
    OutputCorrupt,
)

#: Of these, the faults whose cure is tried once: freed memory, a restarted engine.
CURED_ONCE = (OutOfMemory, GpuBroken, EngineStalled)

#: How long a result that must be kept waits for the store to come back.
STORE_SECONDS = 600

#: The same for the result of a caller who waits and gets it in any case: enough for a Redis that is restarted.
#: Until it is stored, the record says that the task was lost, though its caller had its pictures.
CALLER_STORE_SECONDS = 3

#: Log services take lines of 32 KB.
LOGGED_DETAIL = 2000


class Worker:
    """Does the work of this instance's tasks, as many at a time as it is given; the executor decides how many of them
    the engine has. `requeued` is called when a task waits again for another attempt."""

    def __init__(
        self,
        settings: Settings,
        instance: str,
        executor: Executor,
        safety: Safety,
        labeller: Labeller,
        places: OutputPlaces,
        keeper: Keeper,
        notifier: Notifier,
        metrics: Metrics,
        *,
        requeued: Callable[[], None],
    ) -> None:
        self._settings, self._instance, self._executor = settings, instance, executor
        self._safety, self._labeller = safety, labeller
        self._places, self._keeper, self._notifier, self._metrics = places, keeper, notifier, metrics
        self._requeued = requeued
        self._limits: set[asyncio.Timeout] = set()
        metrics.may_retry(fault.code for fault in RETRIED_HERE)

    def thaw(self, frozen_seconds: float) -> None:
        """This instance was frozen: the time does not count for its tasks."""
        for limit in self._limits:
            if (when := limit.when()) is not None and not limit.expired():
                limit.reschedule(when + frozen_seconds)

    async def work(self, live: LiveTask, request: RunRequest) -> None:
        """Take one task to its end, whatever happens. The task's `stop` cancels this, and says of what it ends."""
        structlog.contextvars.bind_contextvars(task_id=live.id)
        error: AgentError | None = None
        span = here().child("task", {"task_id": live.id})
        with entered(span):
            try:
                error = await self._run(live, request)
                await self._conclude(live, error)
            except Exception:
                log.exception("task.not_concluded")
            finally:
                self._safety.release(live)
                self._executor.let_go(live)
                record = live.record
                span.note({"state": record.state.value, "attempts": len(record.attempts)})
                span.end(error.code if error is not None else None)

    async def _run(self, live: LiveTask, request: RunRequest) -> AgentError | None:
        """Have its outputs made and placed; the error with which it ends instead."""
        try:
            live.begin()
            async with asyncio.timeout(self._settings.task_timeout_seconds) as limit:
                self._limits.add(limit)
                try:
                    await self._attempts(live, request, limit)
                finally:
                    self._limits.discard(limit)
        except TimeoutError:
            return TaskTimeout(limit=self._settings.task_timeout_seconds)
        except asyncio.CancelledError:
            return live.verdict or ShuttingDown()
        except AgentError as failure:
            return failure
        except Exception:
            log.exception("task.crashed")
            return InternalError()
        return None

    async def _attempts(self, live: LiveTask, request: RunRequest, limit: asyncio.Timeout) -> None:
        """Try until it succeeds, fails for good, or no attempt remains."""
        request = await self._safety.admit(live, request)
        while True:
            began = time.monotonic()
            try:
                collected = await self._executor.attempt(live, request)
                has_time = _time_left(limit) > time.monotonic() - began
                collected = await self._safety.review(live, request, collected, has_time=has_time)
                collected = await self._labeller.apply(live, request, collected)
            except MadeAgain as again:
                log.warning(
                    "task.made_again", error=again.error.code, detail=again.error.detail[:LOGGED_DETAIL]
                )
                request = replace(request, workflow=ask_for_new_seeds(request.workflow))
                self._begin_attempt(live, again.error, is_remade=True)
            except RETRIED_HERE as error:
                if not self._may_try_again(live.record, error):
                    raise
                log.warning("task.retried", error=error.code, detail=error.detail[:LOGGED_DETAIL])
                self._metrics.task_retried(error.code)
                await self._executor.heal(error)
                self._begin_attempt(live, error)
            else:
                await self._places.place(live, request, collected)
                return

    def _may_try_again(self, record: TaskRecord, error: AgentError) -> bool:
        """Attempts remain, and it is no fault that came back after its cure: it would come again."""
        before = record.attempts[-2].error if len(record.attempts) > 1 else None
        came_back = isinstance(error, CURED_ONCE) and before is not None and before["code"] == error.code
        return record.tries < self._settings.max_attempts and not came_back

    def _begin_attempt(self, live: LiveTask, error: AgentError, *, is_remade: bool = False) -> None:
        record = live.record
        *before, last = close_attempt(record.attempts, Outcome.FAILED, error.to_dict())
        closed = [*before, last.model_copy(update={"remade": is_remade})]
        attempt = Attempt(number=record.attempt + 1, instance=self._instance, started_at=time.time())
        is_last = record.tries + (not is_remade) >= self._settings.max_attempts
        live.update(
            state=State.QUEUED,
            attempts=[*closed, attempt],
            started_at=None,
            warnings=list(live.lasting_warnings),
            deliver_until=None if is_last else record.deliver_until,
        )
        self._requeued()

    async def _conclude(self, live: LiveTask, error: AgentError | None) -> None:
        match error:
            case TaskTakenOver():
                live.finish()  # the record is the new owner's
            case ShuttingDown():
                closed = close_attempt(live.record.attempts, Outcome.LOST, error.to_dict())
                live.update(state=State.QUEUED, attempts=closed, started_at=None)
                await live.put_back()
            case None:
                await self._settle(live, State.SUCCEEDED, Outcome.SUCCEEDED, None)
            case TaskCancelled() | CallerGone():
                await self._settle(live, State.CANCELLED, Outcome.CANCELLED, error)
            case _:
                await self._settle(live, State.FAILED, Outcome.FAILED, error)

    async def _settle(self, live: LiveTask, state: State, outcome: Outcome, error: AgentError | None) -> None:
        now, record = time.time(), live.record
        if error is not None and record.tries >= self._settings.max_attempts:
            error.transient = False  # there will be no other attempt at this task
        found = error.to_dict() if error else None
        try:
            await live.settle(
                self._keeper,
                patience_seconds=STORE_SECONDS if live.must_keep else CALLER_STORE_SECONDS,
                state=state,
                error=found,
                attempts=close_attempt(record.attempts, outcome, found),
                finished_at=now,
                progress=1.0 if error is None else record.progress,
                webhook=self._notifier.due(record.webhook),
            )
        except ClaimLost:
            log.warning("task.taken_over", task_id=live.id, too_late_for=state.value)
            live.finish()  # the record is the new owner's, and so is the result
            return
        if live.is_kept or not live.must_keep:  # else it will be delivered again
            self._notifier.post(live.record)
        self._metrics.task_ended(live.record)
        say = log.warning if state is State.FAILED else log.info
        say(
            "task.finished",
            state=state.value,
            error=error.code if error else None,
            detail=error.detail[:LOGGED_DETAIL] if error else None,
            outputs=len(live.outputs),
            seconds=round(now - record.created_at, 3),
        )


def _time_left(limit: asyncio.Timeout) -> float:
    """Seconds until the task's time is over."""
    when = limit.when()
    return float("inf") if when is None else when - asyncio.get_running_loop().time()
