"""What a record derives from what it holds."""

from __future__ import annotations

import pytest

from agent.tasks.record import Attempt, Outcome, TaskRecord

DIED = {"code": "EngineDied", "detail": "", "transient": True}


def attempt(started: float, ended: float | None, outcome: Outcome | None, error: object = None) -> Attempt:
    return Attempt(number=1, instance="i", started_at=started, ended_at=ended, outcome=outcome, error=error)


@pytest.mark.parametrize(
    ("attempts", "seconds"),
    [
        ([], 0),
        ([attempt(100, None, None)], 0),
        ([attempt(100, 103.5, Outcome.SUCCEEDED)], 3.5),
        ([attempt(100, 102, Outcome.FAILED, DIED), attempt(102, 107, Outcome.SUCCEEDED)], 7),
        ([attempt(100, 102, Outcome.LOST, DIED), attempt(200, 201, Outcome.CANCELLED)], 3),
        ([attempt(100, 900, Outcome.LOST), attempt(900, 901, Outcome.SUCCEEDED)], 1),
        ([attempt(100, 99, Outcome.SUCCEEDED)], 0),
    ],
    ids=["refused", "under way", "one", "retried", "put back", "vanished", "clock set back"],
)
def test_billed_seconds_are_those_of_attempts_whose_end_is_known(
    attempts: list[Attempt], seconds: float
) -> None:
    record = TaskRecord(id="t", created_at=100, attempts=attempts)
    assert record.billed_seconds == seconds
    assert TaskRecord.model_validate_json(record.model_dump_json()) == record
