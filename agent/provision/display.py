"""What a run tells: a line for each model and node on stdout, faults and progress bars on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from agent.provision.download import Tell
from agent.provision.space import to_text


class Display(Protocol):
    """Where a run tells how it is getting on."""

    def done(self, what: str, path: str, note: str = "") -> None:
        """One model or node has been dealt with."""

    def failed(self, path: str, reason: str) -> None:
        """One model or node could not be put in place."""

    def idle(self, why: str) -> None:
        """There is nothing to do."""

    @contextmanager
    def download(self, path: str) -> Iterator[Tell]:
        """What shows the bytes of one download."""

    @contextmanager
    def showing(self) -> Iterator[None]:
        """The time in which downloads may be shown."""


class PlainDisplay:
    """Lines alone: for build logs and pipes."""

    def done(self, what: str, path: str, note: str = "") -> None:
        print(f"{what:<10} {path}" + (f" ({note})" if note else ""), flush=True)  # noqa: T201 - its very purpose

    def failed(self, path: str, reason: str) -> None:
        print(f"failed     {path}: {reason}", file=sys.stderr, flush=True)  # noqa: T201

    def idle(self, why: str) -> None:
        print(f"Nothing to do: {why}", flush=True)  # noqa: T201

    @contextmanager
    def download(self, path: str) -> Iterator[Tell]:
        has_begun = False

        def tell(count: int, total: int | None) -> None:
            nonlocal has_begun
            if not has_begun:
                has_begun = True
                size = f"{to_text(total)}" if total is not None else "of unknown size"
                print(  # noqa: T201
                    f"begun      {path} ({size}{f', {to_text(count)} are here already' if count else ''})",
                    file=sys.stderr,
                    flush=True,
                )

        yield tell

    @contextmanager
    def showing(self) -> Iterator[None]:
        yield


class BarDisplay(PlainDisplay):
    """A bar for each download that runs."""

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415 - half of this command's start time
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        self._progress = Progress(
            TextColumn("{task.fields[path]}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=True,
            redirect_stderr=True,
        )

    @contextmanager
    def download(self, path: str) -> Iterator[Tell]:
        bar = self._progress.add_task("", total=None, path=path)
        try:
            yield lambda count, total: self._progress.update(bar, completed=count, total=total)
        finally:
            self._progress.remove_task(bar)

    @contextmanager
    def showing(self) -> Iterator[None]:
        with self._progress:
            yield


def display_for_terminal() -> Display:
    """Bars where somebody looks at stderr, lines anywhere else."""
    return BarDisplay() if sys.stderr.isatty() else PlainDisplay()
