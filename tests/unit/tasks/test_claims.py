from __future__ import annotations

import pytest

from agent.tasks.claims import Decision, decide
from agent.tasks.record import Attempt, State, TaskRecord
from agent.tasks.store import Stored

TRANSIENT = {"code": "EngineDied", "detail": "", "transient": True}
PERMANENT = {"code": "NodeFailed", "detail": "", "transient": False}
MAX_ATTEMPTS = 3


def stored(
    state: State,
    *,
    attempts: int = 1,
    error: dict[str, object] | None = None,
    owner: str | None = None,
    cancel: bool = False,
) -> Stored:
    tries = [Attempt(number=n, instance="i", started_at=0) for n in range(1, attempts + 1)]
    record = TaskRecord(id="t", state=state, attempts=tries, error=error, created_at=0, workflow_digest="w")
    return Stored(record, attempts, owner, cancel_requested=cancel)


QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED = State
TABLE = [
    (stored(SUCCEEDED), Decision.STORED),
    (stored(SUCCEEDED, cancel=True), Decision.STORED),
    (stored(SUCCEEDED, attempts=MAX_ATTEMPTS), Decision.STORED),
    (stored(CANCELLED), Decision.STORED),
    (stored(CANCELLED, error=PERMANENT), Decision.STORED),
    (stored(CANCELLED, error=TRANSIENT), Decision.RUN),
    (stored(CANCELLED, error=TRANSIENT, attempts=MAX_ATTEMPTS), Decision.STORED),
    (stored(FAILED, error=PERMANENT), Decision.STORED),
    (stored(FAILED, error=None), Decision.STORED),
    (stored(FAILED, error={"code": "Old"}), Decision.STORED),
    (stored(FAILED, error=TRANSIENT), Decision.RUN),
    (stored(FAILED, error=TRANSIENT, attempts=MAX_ATTEMPTS - 1), Decision.RUN),
    (stored(FAILED, error=TRANSIENT, attempts=MAX_ATTEMPTS), Decision.STORED),
    (stored(FAILED, error=TRANSIENT, attempts=MAX_ATTEMPTS + 1), Decision.STORED),
    (stored(FAILED, error=TRANSIENT, cancel=True), Decision.CANCEL),
    (stored(QUEUED, owner="a"), Decision.JOIN),
    (stored(RUNNING, owner="a"), Decision.JOIN),
    (stored(RUNNING, owner="a", cancel=True), Decision.JOIN),
    (stored(RUNNING, owner="a", attempts=MAX_ATTEMPTS), Decision.JOIN),
    (stored(QUEUED, attempts=0), Decision.RUN),
    (stored(QUEUED), Decision.RUN),
    (stored(RUNNING), Decision.RUN),
    (stored(RUNNING, attempts=MAX_ATTEMPTS - 1), Decision.RUN),
    (stored(RUNNING, attempts=MAX_ATTEMPTS), Decision.EXHAUSTED),
    (stored(QUEUED, attempts=MAX_ATTEMPTS), Decision.EXHAUSTED),
    (stored(RUNNING, cancel=True), Decision.CANCEL),
    (stored(QUEUED, attempts=MAX_ATTEMPTS, cancel=True), Decision.CANCEL),
]


@pytest.mark.parametrize(("task", "decision"), TABLE)
def test_delivery_of_the_same_workflow(task: Stored, decision: Decision) -> None:
    assert decide(task, "w", MAX_ATTEMPTS) is decision


@pytest.mark.parametrize("task", [task for task, _ in TABLE])
def test_another_workflow_is_a_conflict_whatever_the_state(task: Stored) -> None:
    assert decide(task, "another", MAX_ATTEMPTS) is Decision.CONFLICT


def test_id_of_a_request_that_could_not_be_read_is_free_for_a_readable_one() -> None:
    refused = TaskRecord(id="t", state=FAILED, error=PERMANENT, created_at=0)
    assert decide(Stored(refused, 1, None, cancel_requested=False), "w", MAX_ATTEMPTS) is Decision.RUN
