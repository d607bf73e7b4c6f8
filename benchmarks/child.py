"""A server as a child process: started on cores of its own, waited for, stopped with all that it started."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from benchmarks.machine import ROOT
from benchmarks.places import running_on
from comfyui.launch import dying_with_us

READY_SECONDS = 60
STOP_SECONDS = 10
STEP_SECONDS = 0.01  # from outside there is nothing to wait on

#: What would change how an agent behaves, and so is not handed on from the caller's environment.
FOREIGN_SETTINGS = ("AGENT_", "COMFYUI_", "FC_", "REDIS_URL", "AWS_", "ALIBABA_CLOUD_", "OTEL_")


class ChildFailed(Exception):
    """A server did not become ready; the end of what it wrote is in the text."""


class Child:
    """One running child. What it writes goes to `log`."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self._log = process, log

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_for(self, url: str) -> None:
        """Return as soon as `url` answers with success. Raises ChildFailed."""
        deadline = time.monotonic() + READY_SECONDS
        while not _answers(url):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise ChildFailed(f"{url} does not answer. The server wrote:\n{self.last_lines()}")
            time.sleep(STEP_SECONDS)

    def last_lines(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(STOP_SECONDS)


@contextmanager
def running(
    command: Sequence[str], environ: Mapping[str, str], cores: frozenset[int], folder: Path
) -> Iterator[Child]:
    """A child with `folder` as its own. It is gone when the block is left, however that happens."""
    log = folder / "log.txt"
    with running_on(cores), log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            dying_with_us(tuple(command)),
            env={**clean_environment(), **environ},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    child = Child(process, log)
    try:
        yield child
    finally:
        child.stop()


def clean_environment() -> dict[str, str]:
    """This process's environment without what configures agents, and with this checkout on the path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN_SETTINGS)}
    return kept | {"PYTHONPATH": str(ROOT)}


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5):  # noqa: S310 - loopback
            return True
    except (URLError, OSError):
        return False
