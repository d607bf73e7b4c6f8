"""A task's life as the front sees it: known already? -> announce -> forward -> pass the answer on."""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import suppress
from typing import Any

import structlog
from pydantic_core import to_json

from agent.admission import Admission, RunRequest, new_task_id
from agent.elsewhere import Elsewhere, show_all
from agent.errors import (
    AgentError,
    CallerGone,
    EngineUnreachable,
    PromptRefused,
    QueueFull,
    ShuttingDown,
    StoreUnavailable,
    TaskCancelled,
    TaskConflict,
    TaskNotFound,
)
from agent.front.flight import Flight
from agent.front.function import EngineFunction, FunctionBroke, Result
from agent.parking import Parking
from agent.policy import check_policy
from agent.safety.safety import Safety
from agent.service import Delivery, Forwarded, Show, TaskService
from agent.settings import Settings
from agent.tasks.board import TaskBoard, is_orphan
from agent.tasks.record import State, TaskRecord
from agent.webhooks.notifier import Notifier

log = structlog.get_logger(__name__)

#: Pauses before a broken call is made again, in seconds. The same task-id never runs twice.
RETRY_PAUSES = (0.5, 2, 5)

#: How long a cancel waits for the instance that runs the task before it answers what is known.
CANCEL_SECONDS = 3

#: How often the store is asked whether a task is over whose answer has not come, and how long after its end the answer
#: may take beside the webhook: a connection that broke without a sign would be silent for ever.
LOOK_SECONDS, ANSWER_SECONDS = 15, 30

#: How long a flight counts that nothing was heard of, in leases; its front tells of it every lease.
LEASES_IN_THE_AIR = 3

#: How long the end of given up tasks may take at shutdown.
STOP_SECONDS = 5

RETRY_AFTER_SECONDS = 2


class FrontRunner(TaskService):
    """Has the engine function run tasks. What it knows of them it reads from the shared store."""

    def __init__(
        self,
        settings: Settings,
        board: TaskBoard,
        function: EngineFunction,
        parking: Parking,
        notifier: Notifier,
        safety: Safety,
    ) -> None:
        self._settings, self._board, self._function, self._parking = settings, board, function, parking
        self._notifier, self._safety = notifier, safety
        self._admission = Admission(settings, board, uuid.uuid4().hex[:12], notifier)
        self._elsewhere = Elsewhere(settings, board, self._admission)
        self._flights: dict[str, Flight] = {}
        self._submissions: set[asyncio.Task[TaskRecord]] = set()
        #: Calls of the engine function so far that ended without an agent's answer, or with that of one that stops.
        self.broken_calls = 0
        self._is_stopping = False

    @property
    def is_stopping(self) -> bool:
        return self._is_stopping

    @property
    def can_submit(self) -> bool:
        return True

    async def run(
        self,
        request: RunRequest,
        task_id: str,
        *,
        is_named: bool,
        show: Show | None = None,
    ) -> Delivery | Forwarded:
        if is_named and self._is_full and task_id not in self._flights:
            known = await self._admission.find(request, task_id)
            if known is not None and (answer := await self._wait_out(known)) is not None:
                return answer
        if task_id not in self._flights:
            await self._check_prompt(request, task_id, is_named=is_named)
        flight = await self._find_flight(task_id)
        if flight is None:
            self._check(request)
            flight = Flight(task_id, request)
            flight.begin(self._fly(flight, is_named=is_named))
            self._flights[flight.id] = flight
        elif flight.request.digest != request.digest:
            raise TaskConflict(task_id=task_id)
        return await self._attend(flight, show)

    async def submit(self, request: RunRequest, task_id: str | None = None) -> TaskRecord:
        await self._check_prompt(request, task_id or "", is_named=task_id is not None)
        self._check(request)
        submission = asyncio.create_task(self._submit(request, task_id or new_task_id()))
        self._submissions.add(submission)
        submission.add_done_callback(self._submissions.discard)
        # A caller who leaves now must leave no task behind that was announced, but that nobody will deliver.
        try:
            return await asyncio.shield(submission)
        except asyncio.CancelledError:
            if submission.cancelled():  # by `drain`
                raise ShuttingDown(retry_after=RETRY_AFTER_SECONDS) from None
            raise

    async def _submit(self, request: RunRequest, task_id: str) -> TaskRecord:
        body = await self._parking.shrink(request.envelope(), self._settings.async_body_bytes)
        record, fence = await self._admission.announce(
            request, task_id, deliver_until=time.time() + self._settings.delivery_seconds
        )
        if fence is not None:
            try:
                await self._hand_over(body, task_id)
            except AgentError as error:
                await self._give_up(task_id, error)
                raise
            except asyncio.CancelledError:
                await self._give_up(task_id, ShuttingDown())
                raise
            log.info("task.submitted", task_id=task_id, bytes=len(body))
        await self._notifier.resume(record)
        return record

    async def cancel(self, task_id: str) -> TaskRecord:
        try:
            async with asyncio.timeout(CANCEL_SECONDS):
                record = await self._elsewhere.cancel(task_id)
        except TimeoutError:
            return await self._board.get(task_id)
        if (flight := self._flights.get(task_id)) and record.state is State.CANCELLED:
            flight.stop(TaskCancelled())  # the platform may still be looking for an instance
        await self._notifier.wait(record)
        return record

    async def reject(self, task_id: str, error: AgentError, request: RunRequest | None) -> bool:
        return await self._admission.reject(task_id, error, request)

    def queue(self) -> dict[str, Any]:
        return {"running": list(self._flights), "queued": [], "capacity": self._capacity}

    async def drain(self) -> None:
        self._is_stopping = True
        await self._wait_for_all(self._settings.shutdown_seconds)
        for flight in tuple(self._flights.values()):
            flight.stop(ShuttingDown(retry_after=RETRY_AFTER_SECONDS))
        for submission in tuple(self._submissions):
            submission.cancel()
        await self._wait_for_all(STOP_SECONDS)
        await self._notifier.drain(STOP_SECONDS)

    @property
    def _capacity(self) -> int:
        return self._settings.concurrency + self._settings.queue_size

    @property
    def _is_full(self) -> bool:
        return len(self._flights) + len(self._submissions) >= self._capacity

    def _check(self, request: RunRequest) -> None:
        if self._is_stopping:
            raise ShuttingDown(retry_after=RETRY_AFTER_SECONDS)
        if self._is_full:
            raise QueueFull(limit=self._capacity, retry_after=RETRY_AFTER_SECONDS)
        check_policy(request.workflow, allow=self._settings.nodes_allow, deny=self._settings.nodes_deny)
        self._safety.check(request)

    async def _check_prompt(self, request: RunRequest, task_id: str, *, is_named: bool) -> None:
        try:
            await self._safety.check_prompt(request)
        except PromptRefused as refused:
            if is_named:  # its record tells what was found
                await self._admission.reject(task_id, refused, request)
            raise

    async def _find_flight(self, task_id: str) -> Flight | None:
        """The task's flight, unless its end is decided: whoever joined it then would share an end that is not his."""
        while (flight := self._flights.get(task_id)) and flight.verdict is not None:
            await flight.ended()
        return flight

    async def _wait_for_all(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                for flight in tuple(self._flights.values()):
                    await flight.ended()
                if self._submissions:
                    await asyncio.wait(self._submissions)

    async def _attend(self, flight: Flight, show: Show | None) -> Delivery | Forwarded:
        """Wait for a task's answer. Whoever leaves last takes it with him."""
        showing = asyncio.create_task(self._show(flight, show)) if show is not None else None
        flight.waiters += 1
        try:
            return await flight.answer()
        finally:
            flight.waiters -= 1
            if flight.waiters == 0:
                flight.stop(CallerGone())
            if showing is not None:
                showing.cancel()
                await asyncio.gather(showing, return_exceptions=True)

    async def _show(self, flight: Flight, show: Show) -> None:
        """Show what the store learns of the task; without a store, nothing."""
        await flight.announced.wait()
        with suppress(TaskNotFound, StoreUnavailable):
            await show_all(self._board.follow(flight.id), show)

    async def _fly(self, flight: Flight, *, is_named: bool) -> Delivery | Forwarded:
        """Take one task to its answer, whatever happens."""
        structlog.contextvars.bind_contextvars(task_id=flight.id)
        flight.has_begun = True
        try:
            if flight.verdict is not None:
                raise flight.verdict
            while True:
                known = await self._announce(flight, is_named=is_named)
                answer = await self._wait_out(known) if known is not None else await self._forward(flight)
                if answer is not None:
                    return answer
        except asyncio.CancelledError:
            await self._give_up(flight.id, flight.verdict or CallerGone())
            raise
        except AgentError as error:
            log.info("task.refused", error=error.code)
            await self._give_up(flight.id, error)
            raise
        finally:
            flight.let_go()
            del self._flights[flight.id]

    async def _announce(self, flight: Flight, *, is_named: bool) -> TaskRecord | None:
        """Let the store show the task as queued; the record of one that an instance runs or that is over."""
        try:
            record, fence = await self._admission.announce(
                flight.request, flight.id, deliver_until=self._still_in_the_air()
            )
        except StoreUnavailable as error:
            if is_named:
                raise
            log.warning("task.not_recorded", reason=error.detail)
            return None
        flight.is_announced = True
        flight.announced.set()
        if fence is None:
            return record
        flight.hold(self._hold(record, fence))
        return None

    def _still_in_the_air(self) -> float:
        """Until when a flight counts that this front has just been heard of. Nobody else delivers it: if the front
        dies before an instance takes the task, nobody ever will."""
        return time.time() + LEASES_IN_THE_AIR * self._settings.lease_seconds

    async def _hold(self, record: TaskRecord, fence: int) -> None:
        """Say again and again that the announced task is on its way, until an instance has it."""
        pause = self._settings.lease_seconds
        while True:
            await asyncio.sleep(pause)
            try:
                record = record.changed(deliver_until=self._still_in_the_air())
                if not await self._board.store.amend(record, fence=fence):
                    return
                pause = self._settings.lease_seconds
            except StoreUnavailable:
                pause = min(1, self._settings.lease_seconds)

    async def _wait_out(self, record: TaskRecord) -> Delivery | None:
        """The result of a task that an instance runs or has ended; None when its instance dies without an end."""
        was_over = record.state.is_final
        if not was_over:
            record = await self._elsewhere.watch(record.id)
        if not record.state.is_final or (not was_over and is_orphan(record)):
            return None
        await self._notifier.resume(record)
        if record.error is not None:
            raise AgentError.from_dict(record.error, record.id)
        return Delivery(record, await self._board.outputs(record.id))

    async def _forward(self, flight: Flight) -> Delivery | Forwarded | None:
        body = await asyncio.to_thread(to_json, flight.request.envelope())
        # Without a record, an id would only make the other agent refuse a task that it cannot claim.
        task_id = flight.id if flight.is_announced else None
        for pause in (*RETRY_PAUSES, None):
            try:
                result = await self._call(flight, body, task_id)
                return Forwarded(result.task_id, result.body, result.is_kept)
            except (FunctionBroke, ShuttingDown) as exc:
                self.broken_calls += 1
                log.warning("function.broke", reason=str(exc))
                if (known := await self._find_running(flight.id)) is not None:
                    return await self._wait_out(known)
                if pause is None:
                    raise EngineUnreachable from None
            await asyncio.sleep(pause)
        return None

    async def _call(self, flight: Flight, body: bytes, task_id: str | None) -> Result:
        """The function's answer. Raises what it raises, and FunctionBroke too where the task is over without one."""
        calling = asyncio.create_task(self._function.run(body, task_id))
        overdue = asyncio.create_task(self._until_overdue(flight))
        try:
            await asyncio.wait((calling, overdue), return_when=asyncio.FIRST_COMPLETED)
            if calling.done():
                return calling.result()
            raise FunctionBroke("the task is over, and no answer comes")
        finally:
            calling.cancel()
            overdue.cancel()
            await asyncio.gather(calling, overdue, return_exceptions=True)

    async def _until_overdue(self, flight: Flight) -> None:
        """Return when the task has been over for so long that the function must have answered."""
        patience = ANSWER_SECONDS + self._settings.webhook_total_seconds
        over_since: float | None = None
        while over_since is None or time.monotonic() - over_since < patience:
            await asyncio.sleep(LOOK_SECONDS)
            with suppress(StoreUnavailable):
                stored = await self._board.store.read(flight.id) if flight.is_announced else None
                is_over = stored is not None and stored.record.state.is_final
                over_since = (over_since or time.monotonic()) if is_over else None

    async def _find_running(self, task_id: str) -> TaskRecord | None:
        """The record, where an instance still runs the task or has ended it; its answer alone was lost.

        Raises EngineUnreachable without a store: then nobody knows, and the task must not run twice.
        """
        try:
            stored = await self._board.store.read(task_id)
        except StoreUnavailable:
            raise EngineUnreachable(task_id=task_id) from None
        if stored is None or (stored.owner is None and not stored.record.state.is_final):
            return None
        return stored.record

    async def _hand_over(self, body: bytes, task_id: str) -> None:
        """Submit until it is known to be accepted. One that was accepted twice still runs once."""
        for pause in (*RETRY_PAUSES, None):
            try:
                return await self._function.submit(body, task_id)
            except FunctionBroke as exc:
                self.broken_calls += 1
                log.warning("function.broke", task_id=task_id, reason=str(exc))
                if pause is None:
                    raise EngineUnreachable from None
                await asyncio.sleep(pause)
        return None

    async def _give_up(self, task_id: str, error: AgentError) -> None:
        """End a task that no instance has taken. The record of one that an instance has is that instance's."""
        with suppress(StoreUnavailable):
            stored = await self._board.store.read(task_id)
            if stored is not None and stored.owner is None and not stored.record.state.is_final:
                await self._notifier.wait(await self._admission.end_orphan(stored, error))
