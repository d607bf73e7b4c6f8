"""The whole platform: functions are deployed on it, and all ends with it."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.gateway.fleet import Fleet
from tests.gateway.function import Account, Function
from tests.gateway.journal import Event, Journal, What
from tests.gateway.leaks import LeakDetector
from tests.gateway.tasks import AsyncQueue
from tests.gateway.trigger import Trigger

LAST_LINES = 15  # of each instance's log, in a report


@dataclass(frozen=True)
class Deployed:
    """A function that can be called at `url`."""

    function: Function
    fleet: Fleet
    queue: AsyncQueue
    trigger: Trigger
    journal: Journal

    @property
    def url(self) -> str:
        return self.trigger.url

    @property
    def log_text(self) -> str:
        """What all its instances have printed."""
        return "".join(i.log.read_text(errors="replace") for i in self.fleet.instances if i.log.exists())

    def events(self, *whats: What) -> list[Event]:
        return self.journal.of(*whats, function=self.function.name)

    def delivered(self) -> list[str]:
        """Method and path of each request that reached an instance, hooks and health checks included."""
        return [event.detail for event in self.events(What.DELIVERED)]


class Platform:
    """Use it as a context manager: at its end every process is gone, whatever happened."""

    def __init__(self, folder: Path, seed: int = 7) -> None:
        self.account, self.journal = Account(), Journal()
        self.leaks = LeakDetector(self.account)
        self.deployed: list[Deployed] = []
        self._folder, self._chance = folder, random.Random(seed)

    async def deploy(self, function: Function) -> Deployed:
        fleet = Fleet(function, self.account, self.journal, self._folder / function.name, self._chance)
        queue = AsyncQueue(fleet, self.leaks)
        trigger = Trigger(fleet, queue, self.account, self.journal, self.leaks)
        await trigger.start()
        deployed = Deployed(function, fleet, queue, trigger, self.journal)
        self.deployed.append(deployed)
        return deployed

    def report(self) -> str:
        """What happened, and what the instances said last: for those who look for the cause of a failed test."""
        begin = self.journal.events[0].at if self.journal.events else 0
        lines = [
            f"{e.at - begin:8.3f} {e.function} {e.instance} {e.what} {e.detail}" for e in self.journal.events
        ]
        for instance in (i for deployed in self.deployed for i in deployed.fleet.instances if i.log.exists()):
            said = instance.log.read_text(errors="replace").splitlines()
            lines += [f"--- {instance.id}", *(line[:500] for line in said[-LAST_LINES:])]
        return "\n".join(lines)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """The instances go first: whoever waits for one of them gets an error, and nothing waits any more."""
        for part in ("queue", "fleet", "trigger"):
            closing = (getattr(deployed, part).close() for deployed in self.deployed)
            await asyncio.gather(*closing)
