"""What the demo shows: bars on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from agent.commands.display import node_of

#: Takes each record of one task.
Show = Callable[[dict[str, Any]], None]
#: Takes a task's title and a few words on how it is sent, and returns what shows its records.
Begin = Callable[[str, str], Show]

COLUMNS = ("task", "how", "time", "file", "size")


@dataclass(frozen=True, slots=True)
class Row:
    """One finished task in the table at the end."""

    task: str
    how: str
    seconds: float
    file: str
    size: int

    def cells(self) -> tuple[str, str, str, str, str]:
        return (self.task, self.how, f"{self.seconds:.1f} s", self.file, f"{self.size / 1024:.0f} KB")


class Display(Protocol):
    """Where the demo tells how it is getting on."""

    def say(self, text: str = "") -> None:
        """A line for the reader, never wrapped: it may be a command to be copied."""

    def fail(self, text: str, details: Sequence[str] = ()) -> None:
        """Why there is no result, on stderr."""

    @contextmanager
    def tasks(self) -> Iterator[Begin]:
        """What begins to show a task."""

    def table(self, rows: Sequence[Row]) -> None:
        """What was made."""


def display_for(out: TextIO) -> Display:
    """The display that suits a stream. Anything that is no terminal gets text that it can show in any encoding."""
    console = Console(file=out, highlight=False)
    if out.isatty() and not console.is_dumb_terminal:
        return RichDisplay(console)
    return PlainDisplay(out)


class PlainDisplay:
    """One line for each node that a task comes to."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def say(self, text: str = "") -> None:
        encoding = self._out.encoding or "ascii"
        self._out.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        self._out.flush()

    def fail(self, text: str, details: Sequence[str] = ()) -> None:
        _fail(text, details)

    @contextmanager
    def tasks(self) -> Iterator[Begin]:
        yield self._task

    def table(self, rows: Sequence[Row]) -> None:
        lines = [COLUMNS, *(row.cells() for row in rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            self.say("  ".join(padded).rstrip())

    def _task(self, title: str, how: str) -> Show:
        self.say(f"{title} ({how})")
        shown: list[str] = []

        def show(record: dict[str, Any]) -> None:
            node = record["current_node"]
            where = node["title"] if node else "done" if record["state"] == "succeeded" else ""
            if where and [where] != shown:
                shown[:] = [where]
                self.say(f"  {record['progress']:4.0%}  {where}")

        return show


class RichDisplay:
    """A bar for each task."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, text: str = "") -> None:
        self._console.print(Text(text), soft_wrap=True)

    def fail(self, text: str, details: Sequence[str] = ()) -> None:
        _fail(text, details)

    @contextmanager
    def tasks(self) -> Iterator[Begin]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[node]}", style="cyan"),
        )
        with Progress(*columns, console=self._console) as progress:

            def begin(title: str, _how: str) -> Show:
                bar = progress.add_task(title, total=1.0, node="")

                def show(record: dict[str, Any]) -> None:
                    progress.update(bar, completed=record["progress"], node=node_of(record))

                return show

            yield begin

    def table(self, rows: Sequence[Row]) -> None:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in COLUMNS:
            table.add_column(name, justify="right" if name in ("time", "size") else "left", overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row.cells()))
        self._console.print(table)


def _fail(text: str, details: Sequence[str]) -> None:
    lines = [f"comfyui-agent: {text}"]
    if details:
        lines += ["The last lines of the agent's log:", *(textwrap.indent(line, "  ") for line in details)]
    sys.stderr.write("\n".join(lines) + "\n")
    sys.stderr.flush()
