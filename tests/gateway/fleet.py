"""The instances of a function: started when all are full, chosen at random, destroyed when idle (section 6)."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.gateway.calls import Refused
from tests.gateway.function import Account, Function
from tests.gateway.instance import Instance, Phase
from tests.gateway.journal import Journal


class Fleet:
    """Hands out slots of instances. Nothing outlives `close`."""

    def __init__(
        self, function: Function, account: Account, journal: Journal, folder: Path, chance: random.Random
    ) -> None:
        self.function = function
        self.instances: list[Instance] = []  #: all that ever were, in order of their start
        self._account, self._journal, self._folder, self._chance = account, journal, folder, chance
        self._starts: dict[str, asyncio.Task[None]] = {}
        self._idle: dict[str, asyncio.TimerHandle] = {}
        self._patient: deque[asyncio.Future[Instance]] = deque()
        self._background: set[asyncio.Task[Any]] = set()
        self._is_closed = False

    @property
    def alive(self) -> list[Instance]:
        """Those that hold a GPU now."""
        return [instance for instance in self.instances if instance.phase is not Phase.DEAD]

    @property
    def billed_seconds(self) -> int:
        """Section 9: of all instances, the dead ones too. Requests that are still open are not in it."""
        return sum(instance.billed_seconds for instance in self.instances)

    @contextlib.asynccontextmanager
    async def slot(self, *, is_patient: bool) -> AsyncIterator[Instance]:
        """A place for one request on an instance that is awake and initialized.

        With all places taken and no further instance allowed, asynchronous calls wait in their queue and others get
        429, whatever they ask for: section 5. Raises Refused, StartFailed.
        """
        instance = await self._reserve(is_patient=is_patient)
        try:
            if instance.phase is Phase.STARTING:
                await asyncio.shield(self._starts[instance.id])
            self._stop_timer(instance)
            with instance.awake():
                await instance.initialize()
                yield instance
        finally:
            instance.taken -= 1
            self._grant()

    def provision(self) -> Instance:
        """Start an instance that no request asked for. It is ready when it has been frozen."""
        return self._start()

    async def drained(self, *, to: int = 0, seconds: float = 60) -> None:
        """Wait until no more than so many instances live."""
        async with asyncio.timeout(seconds):
            while len(self.alive) > to:
                await asyncio.sleep(0.02)  # a condition of tests; the platform has no such wait

    async def close(self) -> None:
        self._is_closed = True
        for timer in self._idle.values():
            timer.cancel()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await asyncio.gather(*(instance.close() for instance in self.instances))

    async def _reserve(self, *, is_patient: bool) -> Instance:
        if found := self._find_room():
            found.taken += 1
            return found
        if not is_patient:
            raise Refused(
                429, "ResourceExhausted", "All instances are busy, and there may be no more of them."
            )
        granted: asyncio.Future[Instance] = asyncio.get_running_loop().create_future()
        self._patient.append(granted)
        try:
            return await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                granted.result().taken -= 1
                self._grant()
            raise

    def _grant(self) -> None:
        """Give free places to those who wait, the first one first."""
        while self._patient and not self._is_closed:
            if self._patient[0].done():
                self._patient.popleft()  # cancelled
            elif found := self._find_room():
                found.taken += 1
                self._patient.popleft().set_result(found)
            else:
                return

    def _find_room(self) -> Instance | None:
        """A random one of those that are ready and have room; else one that is starting; else, all being full, a
        new one; None where the cap forbids that."""
        for phase in (Phase.READY, Phase.STARTING):
            if with_room := [i for i in self.instances if i.phase is phase and i.has_room]:
                return self._chance.choice(with_room)
        return self._start() if len(self.alive) < self.function.max_instances else None

    def _start(self) -> Instance:
        instance = Instance(self.function, self._account, self._journal, self._folder)
        self.instances.append(instance)
        instance.on_idle = lambda: self._became_idle(instance)
        self._starts[instance.id] = self._spawn(instance.start())
        return instance

    def _became_idle(self, instance: Instance) -> None:
        if instance.phase is Phase.READY and not self._is_closed:
            self._stop_timer(instance)
            loop = asyncio.get_running_loop()
            self._idle[instance.id] = loop.call_later(self.function.idle_seconds, self._retire, instance)
        self._grant()

    def _retire(self, instance: Instance) -> None:
        if not instance.taken:
            self._spawn(instance.retire())

    def _stop_timer(self, instance: Instance) -> None:
        if timer := self._idle.pop(instance.id, None):
            timer.cancel()

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._background.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited for it has it; the journal too
