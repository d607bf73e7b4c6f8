"""Streams of one task share what they send."""

from __future__ import annotations

import json

from agent.api.latest_events import KEPT, LatestEvents
from agent.tasks.board import TaskBoard
from agent.tasks.memory import MemoryStore
from agent.tasks.record import State, TaskRecord


def board() -> TaskBoard:
    return TaskBoard(MemoryStore(record_ttl_seconds=9, output_ttl_seconds=9))


async def test_record_is_rendered_once_for_all_who_are_shown_it() -> None:
    latest, record = LatestEvents(), TaskRecord(id="t", created_at=0)
    events = {id(await latest.event(board(), record)) for _ in range(3)}
    assert len(events) == 1
    changed = record.changed(state=State.RUNNING)
    event = await latest.event(board(), changed)
    assert json.loads(event.removeprefix(b"data: "))["state"] == "running"
    assert event.endswith(b"\n\n")


async def test_no_more_than_a_few_are_kept() -> None:
    latest = LatestEvents()
    records = [TaskRecord(id=f"t{number}", created_at=0) for number in range(KEPT + 5)]
    for record in records:
        assert json.loads((await latest.event(board(), record))[6:])["id"] == record.id
    first = await latest.event(board(), records[0])
    assert json.loads(first[6:])["id"] == "t0"
