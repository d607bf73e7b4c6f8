"""Which cores each part of a measurement runs on, so that none takes time from the part that is measured."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Places:
    """Cores for each part. With two of them the agent has one for itself; its caller shares the engine's, where he
    only waits while the engine works. The direct client takes the agent's core, for it stands in the agent's place."""

    engine: frozenset[int]
    agent: frozenset[int]
    caller: frozenset[int]

    @property
    def direct(self) -> frozenset[int]:
        return self.agent

    def describe(self) -> str:
        parts = {"engine": self.engine, "agent and direct client": self.agent, "caller": self.caller}
        return ", ".join(f"{name} on {_numbers(cores)}" for name, cores in parts.items())


def find_places() -> Places:
    """Share out the cores that this process may use."""
    first, *others = sorted(os.sched_getaffinity(0))
    second, *rest = others or [first]
    third = rest[0] if rest else first
    return Places(engine=frozenset({first}), agent=frozenset({second}), caller=frozenset({third}))


@contextmanager
def running_on(cores: frozenset[int]) -> Iterator[None]:
    """Run this process, and the children that it starts meanwhile, on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def move(pid: int, cores: frozenset[int]) -> None:
    """Put a running process with all its threads on these cores."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(ProcessLookupError):  # one that has just ended
            os.sched_setaffinity(int(thread.name), cores)


def _numbers(cores: frozenset[int]) -> str:
    return "core " + "+".join(str(core) for core in sorted(cores))
