"""The latest events of event streams, as they are sent: many streams of one task show the same record."""

from __future__ import annotations

from collections import OrderedDict

from pydantic_core import to_json

from agent.api import render
from agent.tasks.board import TaskBoard
from agent.tasks.record import TaskRecord

#: Records whose events are kept. A record that changes leaves at most as many as there are streams behind others.
KEPT = 16


class LatestEvents:
    """Renders each record once for all who are shown it at about the same time."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, tuple[TaskRecord, bytes]] = OrderedDict()

    async def event(self, board: TaskBoard, record: TaskRecord) -> bytes:
        """The Server-Sent Event with this record."""
        kept = self._kept.get(id(record))
        if kept is not None and kept[0] is record:
            return kept[1]
        event = b"data: %s\n\n" % to_json(await render.show_task(board, record))
        self._kept[id(record)] = (record, event)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return event
