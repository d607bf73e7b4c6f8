"""How tasks get on: bars on a terminal, nothing anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from agent.commands.remote import printable

#: Takes each record of one task.
Show = Callable[[dict[str, Any]], None]
#: Takes a task's title, and returns what shows its records.
Begin = Callable[[str], Show]

#: Where a table is read by a program, nothing is cut.
PIPE_WIDTH = 1000


@contextmanager
def bars(*, wanted: bool) -> Iterator[Begin]:
    """What begins to show a task on stderr, one bar each; without a terminal there is nothing to be seen."""
    console = Console(stderr=True, highlight=False)
    if not wanted or not sys.stderr.isatty() or console.is_dumb_terminal:
        yield lambda _title: lambda _record: None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[node]}", style="cyan", markup=False),
    )
    # Of stdout nothing is taken: it may be a pipe.
    with Progress(*columns, console=console, redirect_stdout=False, redirect_stderr=False) as progress:

        def begin(title: str) -> Show:
            bar = progress.add_task(title, total=1.0, node="")

            def show(record: dict[str, Any]) -> None:
                progress.update(bar, completed=record["progress"], node=printable(node_of(record)))

            return show

        yield begin


def node_of(record: dict[str, Any]) -> str:
    """What a task is at: the title of its node, with the step that it has come to, or its state."""
    node = record["current_node"]
    if node is None:
        state: str = record["state"]
        return {"queued": "waiting", "running": "working", "succeeded": "done"}.get(state, state)
    return f"{node['title']} {node['value']}/{node['max']}" if node["max"] > 1 else str(node["title"])


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    Console(width=width, highlight=False).print(table)
