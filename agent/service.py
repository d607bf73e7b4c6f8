"""What the HTTP interface asks of whoever runs its tasks: the runner of this instance's engine, or the front's, which
has the engine function run them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from agent.admission import RunRequest
from agent.errors import AgentError
from agent.tasks.record import TaskRecord

#: Called with a record each time it has changed.
Show = Callable[[TaskRecord], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A task that succeeded, and the bytes of its outputs in order; None for those that are answered by URL.
    `is_kept`: others can fetch it too."""

    record: TaskRecord
    outputs: list[bytes | None] = field(repr=False)
    is_kept: bool = True

    @property
    def task_id(self) -> str:
        return self.record.id


@dataclass(frozen=True, slots=True)
class Forwarded:
    """The answer of another agent to the same request, passed on as it came: the final progress map as JSON."""

    task_id: str
    body: bytes = field(repr=False)
    is_kept: bool = True


class TaskService(Protocol):
    """Takes tasks in, and ends them."""

    @property
    def is_stopping(self) -> bool:
        """Whether no more tasks are taken."""

    @property
    def can_submit(self) -> bool:
        """Whether a task goes on after the answer. Behind a platform that freezes an idle instance it would not."""

    async def run(
        self,
        request: RunRequest,
        task_id: str,
        *,
        is_named: bool,
        show: Show | None = None,
    ) -> Delivery | Forwarded:
        """Run a workflow, or join the run of the same task, and return its result.

        `is_named`: the id is the caller's, who may send it again, to another instance as well, or ask there for the
        result. Without a store nobody could keep such a task from running twice, so it is refused; with an id of ours
        it runs without a record. `show` is called with the record now and after changes. Raises the task's error if it
        fails. When the last one who waits for a task is cancelled, the task is too.
        """

    async def submit(self, request: RunRequest, task_id: str | None = None) -> TaskRecord:
        """Have a workflow run in the background and return at once. Raises what admission finds wrong."""

    async def cancel(self, task_id: str) -> TaskRecord:
        """End a task wherever it runs; a task that is over stays as it is. Raises TaskNotFound."""

    async def reject(self, task_id: str, error: AgentError, request: RunRequest | None) -> bool:
        """Write a refusal under its task-id, for callers who can only learn of it by polling; tell whether they can.
        `request` is None where it could not be read."""

    def queue(self) -> dict[str, Any]:
        """What this instance does: ids of running and waiting tasks, and how many it takes."""

    async def drain(self) -> None:
        """Take no more tasks, let running ones finish within the limit, put the others back. The second call waits
        for the first one."""
