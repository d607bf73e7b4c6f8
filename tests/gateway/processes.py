"""A container without containers: a process with all that it starts, frozen, thawed and killed together."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
from collections.abc import Mapping
from pathlib import Path

import psutil

#: Below the ports that the kernel gives to outgoing connections: one that is free now is free when a child binds it.
_PORTS = itertools.cycle(range(10_000, 32_000))
for _ in range(os.getpid() * 37 % 20_000):  # test runs beside each other begin at different ones
    next(_PORTS)


def own_port() -> int:
    """A port that nobody listens on, and that nobody will be given by chance."""
    while True:
        port = next(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def is_running(pid: int) -> bool:
    """Whether there is such a process. A dead one that its new parent has not reaped yet is none."""
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def children_of(pid: int) -> list[int]:
    """The kernel's own list where there is one: the other way looks at every process of the machine, each time that
    an instance falls asleep or wakes."""
    threads = Path(f"/proc/{pid}/task")
    try:
        return [
            int(child) for thread in threads.iterdir() for child in (thread / "children").read_text().split()
        ]
    except OSError:
        with contextlib.suppress(psutil.Error):
            return [child.pid for child in psutil.Process(pid).children()]
        return []


class ProcessTree:
    """A child process and its descendants, whichever groups and sessions they are in."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.is_stopped = False

    @classmethod
    async def start(
        cls, command: tuple[str, ...], environment: Mapping[str, str], folder: Path, log: Path
    ) -> ProcessTree:
        with log.open("ab") as output:
            return cls(
                await asyncio.create_subprocess_exec(
                    *command,
                    env=dict(environment),
                    cwd=folder,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.returncode is None

    def pids(self) -> list[int]:
        """The process and its descendants, parents first; empty once it has ended."""
        found = [self.pid] if self.is_alive else []
        for pid in found:
            found += children_of(pid)
        return found

    def stop(self) -> None:
        """SIGSTOP for all. The parent goes first, so that it starts nothing meanwhile."""
        self._signal([self.pid] if self.is_alive else [], signal.SIGSTOP)
        self._signal(self.pids()[1:], signal.SIGSTOP)
        self.is_stopped = True

    def go_on(self) -> None:
        self._signal(reversed(self.pids()), signal.SIGCONT)
        self.is_stopped = False

    async def kill(self) -> None:
        """SIGKILL for all. Nothing of them is there afterwards."""
        pids = self.pids()
        self._signal(pids, signal.SIGKILL)
        await self.wait()
        async with asyncio.timeout(10):
            while any(is_running(pid) for pid in pids):
                await asyncio.sleep(0.01)  # nobody tells of the end of somebody else's child

    async def wait(self) -> int:
        return await self._process.wait()

    def _signal(self, pids: list[int] | reversed[int], number: signal.Signals) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
