"""`python -m benchmarks run | compare | write`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.figures import Figure, Report
from benchmarks.groups import GROUPS
from benchmarks.page import write_page
from benchmarks.plot import draw
from benchmarks.table import print_comparison, print_report

OUTPUT = Path("benchmark-output")

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)


@app.command("run")
def run_command(
    only: Annotated[list[str] | None, typer.Option(help=f"A group: {', '.join(GROUPS)}. Repeatable.")] = None,
    quick: Annotated[bool, typer.Option(help="Only try whether it works; the figures mean nothing.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for report.json and plot.png.")] = OUTPUT,
    write: Annotated[Path | None, typer.Option(help="A page to write table and plot into.")] = None,
) -> None:
    """Measure, print the table, and write the report and the plot. Exit code 1: an answer was wrong."""
    from benchmarks.run import run  # noqa: PLC0415 - to compare reports, no server need be known

    if unknown := set(only or ()) - set(GROUPS):
        raise typer.BadParameter(f"no such group: {', '.join(sorted(unknown))}")
    if sys.platform != "linux":
        raise typer.BadParameter("CPU and memory are read from Linux's /proc")
    console, progress = Console(width=max(Console().width, 130)), Console(stderr=True)
    report = asyncio.run(run(only or GROUPS, is_quick=quick, tell=lambda figure: _tell(progress, figure)))
    print_report(report, console)
    out.mkdir(parents=True, exist_ok=True)
    report.save(out / "report.json")
    draw(report, out / "plot.png")
    console.print(f"written: {out}/report.json and plot.png", highlight=False)
    if write is not None:
        write_page(report, write)
    raise typer.Exit(1 if report.errors else 0)


@app.command()
def compare(old: Path, new: Path) -> None:
    """Show two reports side by side."""
    console = Console(width=max(Console().width, 130))
    print_comparison(Report.load(old), Report.load(new), console)


@app.command()
def write(report: Path, page: Path) -> None:
    """Write the table of a report into a page of the documentation; the plot and the report are put beside it."""
    write_page(Report.load(report), page)


def _tell(console: Console, figure: Figure) -> None:
    console.print(
        f"{figure.group}: {figure.name}: {figure.value:.2f} {figure.unit}",
        style="dim",
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    app()
