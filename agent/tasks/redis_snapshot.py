"""A task as it comes out of Redis."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from agent.tasks.record import TaskRecord
from agent.tasks.store import Stored


class Snapshot(NamedTuple):
    """A task as a script returns and publishes it. The version grows each time the record is stored."""

    version: int
    stored: Stored


def to_snapshot(reply: list[bytes]) -> Snapshot:
    """What a script returns."""
    version, fence, owner, cancel, record = reply
    stored = Stored(
        TaskRecord.model_validate_json(record),
        int(fence),
        owner.decode() or None,
        cancel_requested=bool(cancel),
    )
    return Snapshot(int(version), stored)


@lru_cache(maxsize=32)
def read_message(message: bytes) -> Snapshot:
    """What a published message says. All who watch a task get the same one, so it is read once for all of them."""
    return to_snapshot(message.split(b"\n", 4))
