"""Asynchronous invocations: 202 first, then delivery at least once, with retries (section 4)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import aiohttp

from tests.gateway.calls import Call, Refused
from tests.gateway.fleet import Fleet
from tests.gateway.function import AsyncConfig
from tests.gateway.instance import Instance, StartFailed
from tests.gateway.leaks import LeakDetector


class TaskState(StrEnum):
    """What GetAsyncTask tells. `Invalid` is not played."""

    ENQUEUED = "Enqueued"
    DEQUEUED = "Dequeued"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    EXPIRED = "Expired"
    RETRYING = "Retrying"


@dataclass(frozen=True)
class Delivery:
    """One try: which instance got it, and what came of it. `status` is 0 where no answer came."""

    instance: str
    status: int
    is_error: bool
    detail: str = ""


@dataclass
class AsyncTask:
    """One invocation that was answered with 202."""

    call: Call
    body: bytes = field(repr=False)
    state: TaskState = TaskState.ENQUEUED
    deliveries: list[Delivery] = field(default_factory=list)
    enqueued_at: float = field(default_factory=time.monotonic)
    ended: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    work: set[asyncio.Task[None]] = field(default_factory=set, repr=False)


class AsyncQueue:
    """The queue of one function. Each invocation waits in it on its own; slots are handed out in order."""

    def __init__(self, fleet: Fleet, leaks: LeakDetector) -> None:
        self.tasks: dict[str, AsyncTask] = {}
        self._fleet, self._leaks = fleet, leaks
        self._accepted = 0

    @property
    def config(self) -> AsyncConfig:
        return self._fleet.function.asynchronous

    def accept(self, call: Call, body: bytes) -> AsyncTask:
        """What the caller's 202 stands for. Raises Refused for an id that was used, in task mode."""
        if self.config.task_mode and call.task_id in self.tasks:
            raise Refused(409, "StatefulAsyncInvocationAlreadyExists", f"There is a task {call.task_id}.")
        task = self.tasks[call.task_id] = AsyncTask(call, body)
        self._accepted += 1
        self._spawn(task, self._run(task))
        if (every := self.config.duplicate_every) and self._accepted % every == 0:
            # At least once: every other duplicate comes beside the first delivery, the others after its end.
            self._spawn(task, self._repeat(task, is_late=self._accepted // every % 2 == 0))
        return task

    async def deliver_again(self, task_id: str) -> Delivery:
        """A duplicate, now."""
        return await self._deliver(self.tasks[task_id])

    async def ended(self, task_id: str, seconds: float = 60) -> AsyncTask:
        """Wait until no more deliveries will come."""
        task = self.tasks[task_id]
        async with asyncio.timeout(seconds):
            await task.ended.wait()
            while task.work:
                await asyncio.wait(task.work)
        return task

    async def stop(self, task_id: str) -> None:
        """StopAsyncTask. The connection of an open request closes; nothing else tells the container."""
        task = self.tasks[task_id]
        task.state = TaskState.STOPPING
        for work in tuple(task.work):
            work.cancel()
        await asyncio.gather(*task.work, return_exceptions=True)
        task.state = TaskState.STOPPED
        task.ended.set()

    async def close(self) -> None:
        for task in self.tasks.values():
            for work in tuple(task.work):
                work.cancel()
            await asyncio.gather(*task.work, return_exceptions=True)

    async def _run(self, task: AsyncTask) -> None:
        try:
            await asyncio.sleep(task.call.delay_seconds)
            task.state = await self._try(task)
        finally:
            task.ended.set()

    async def _try(self, task: AsyncTask) -> TaskState:
        for retry in range(self.config.max_retries + 1):
            if retry:
                task.state = TaskState.RETRYING
                await asyncio.sleep(self.config.retry_seconds * 2 ** (retry - 1))
            if time.monotonic() - task.enqueued_at > self.config.max_age_seconds:
                return TaskState.EXPIRED
            if not (await self._deliver(task)).is_error:
                return TaskState.SUCCEEDED
        return TaskState.FAILED

    async def _repeat(self, task: AsyncTask, *, is_late: bool) -> None:
        if is_late:
            await task.ended.wait()
        await self._deliver(task)

    async def _deliver(self, task: AsyncTask) -> Delivery:
        """Replay the request to an instance. The answer's body is thrown away."""
        instance = None
        try:
            async with self._fleet.slot(is_patient=True) as instance:
                delivery = await self._send(task, instance)
        except StartFailed as failure:
            delivery = Delivery("", 0, is_error=True, detail=failure.kind)
        except aiohttp.ClientError:
            lost = instance.id if instance else ""
            delivery = Delivery(lost, 0, is_error=True, detail="Process exited unexpectedly")
        task.deliveries.append(delivery)
        return delivery

    async def _send(self, task: AsyncTask, instance: Instance) -> Delivery:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._fleet.function.timeout_seconds):
                if task.state in (TaskState.ENQUEUED, TaskState.RETRYING):
                    task.state = TaskState.RUNNING
                async with instance.send(task.call, task.body) as response:
                    self._leaks.look_at_headers(f"{task.call}: ", response.headers)
                    async for chunk in response.content.iter_any():
                        self._leaks.look_at(f"{task.call}: body", chunk)
                    return Delivery(instance.id, response.status, self._is_error(response))
        return Delivery(instance.id, 0, is_error=True, detail="timed out")

    def _is_error(self, response: aiohttp.ClientResponse) -> bool:
        """Section 3: `x-fc-status: 404` says so; without that header everything is a success, or so it seems."""
        said = response.headers.get("x-fc-status")
        if said is not None:
            return said != "200"
        return self.config.counts_5xx and response.status >= 500

    def _spawn(self, task: AsyncTask, work: Any) -> None:
        running = asyncio.create_task(work)
        task.work.add(running)
        running.add_done_callback(task.work.discard)
