"""How an instance comes to own a task: what to do with one that is delivered and already stored, and the take."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from agent.tasks.record import State, TaskRecord
from agent.tasks.store import Claim, Stored, TaskStore


@dataclass(frozen=True, slots=True)
class Take:
    """What `TaskStore.take` is given. Where its answer was lost, it can be tried again."""

    record: TaskRecord = field(repr=False)
    expected_fence: int
    owner: str
    lease_seconds: float

    async def on(self, store: TaskStore) -> Claim | Stored:
        return await store.take(
            self.record,
            expected_fence=self.expected_fence,
            owner=self.owner,
            lease_seconds=self.lease_seconds,
        )


class Decision(StrEnum):
    """The answer to "this task came in again: what now?"."""

    RUN = "run"  #: take it, with the stored fence as the expected one
    JOIN = "join"  #: somebody runs it: wait for the result
    STORED = "stored"  #: it is over: answer what is stored
    CONFLICT = "conflict"  #: the id belongs to another workflow
    CANCEL = "cancel"  #: its owner is gone and somebody asked to cancel it: take it and write that
    EXHAUSTED = "exhausted"  #: its owner is gone and no attempt remains: take it and write the failure


def decide(stored: Stored, workflow_digest: str, max_attempts: int) -> Decision:
    """Decide for a delivery of this workflow. `max_attempts` counts the tries in the record."""
    record = stored.record
    attempts_remain = record.tries < max_attempts
    if record.state.is_final and not record.workflow_digest:
        return Decision.RUN  # a request was refused under this id before its workflow could be read
    if record.workflow_digest != workflow_digest:
        return Decision.CONFLICT
    if record.state is State.SUCCEEDED:
        return Decision.STORED
    if record.state.is_final and not (_is_transient(record.error) and attempts_remain):
        return Decision.STORED
    if stored.owner is not None:
        return Decision.JOIN
    if stored.cancel_requested:
        return Decision.CANCEL
    return Decision.RUN if attempts_remain else Decision.EXHAUSTED


def _is_transient(error: dict[str, object] | None) -> bool:
    return bool(error and error.get("transient"))
