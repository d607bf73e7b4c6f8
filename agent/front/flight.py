"""One task on its way through the front."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from agent.admission import RunRequest
from agent.errors import AgentError, ShuttingDown
from agent.service import Delivery, Forwarded


class Flight:
    """A task on its way to its answer. Requests only wait for it. `is_announced`: the store knows it."""

    def __init__(self, task_id: str, request: RunRequest) -> None:
        self.id, self.request = task_id, request
        self.is_announced = self.has_begun = False
        self.announced = asyncio.Event()
        self.waiters = 0
        self.verdict: AgentError | None = None
        self._work: asyncio.Task[Delivery | Forwarded] | None = None
        self._holding: asyncio.Task[None] | None = None

    def begin(self, work: Coroutine[Any, Any, Delivery | Forwarded]) -> None:
        self._work = asyncio.create_task(work, name=f"flight {self.id}")

    def hold(self, holding: Coroutine[Any, Any, None]) -> None:
        """Have the store know, as long as this works, that it is in the air."""
        self.let_go()
        self._holding = asyncio.create_task(holding, name=f"holding {self.id}")

    def let_go(self) -> None:
        if self._holding is not None:
            self._holding.cancel()

    async def ended(self) -> None:
        if self._work is not None:
            await asyncio.wait((self._work,))

    async def answer(self) -> Delivery | Forwarded:
        """The answer once it is there. Raises the task's error."""
        await self.ended()
        if self._work is None or self._work.cancelled():
            raise self.verdict or ShuttingDown()
        return self._work.result()

    def stop(self, verdict: AgentError) -> None:
        """End it early with this error, unless it has ended or an earlier one counts."""
        if self._work is not None and not self._work.done() and self.verdict is None:
            self.verdict = verdict
            if self.has_begun:  # else nothing of it would run, also not what takes it off the list
                self._work.cancel()
