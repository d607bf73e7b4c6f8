"""Reports as tables: for a terminal, for a page of the documentation, and two beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.console import Console
from rich.table import Table

from benchmarks.figures import Figure, Report, Sense, digits

COLUMNS = ("figure", "direct", "agent", "measured", "middle half", "target", "similar", "")

#: A difference between two runs is worth a look from here on, if the middle halves of their samples lie apart too;
#: and without those, from there on.
NOTABLE_PERCENT, NOTABLE_ALONE_PERCENT = 5, 20

MET, MISSED = "met", "**missed**"


def print_report(report: Report, console: Console) -> None:
    for group, figures in groupby(report.figures, key=lambda figure: figure.group):
        table = Table(*COLUMNS, title=group, title_justify="left", title_style="bold")
        for column in table.columns[1:]:
            column.justify = "right"
        for figure in figures:
            *cells, verdict = _cells(figure)
            style = "red" if verdict == MISSED else "green"
            table.add_row(*cells, f"[{style}]{verdict.strip('*')}[/]" if verdict else "")
        console.print(table)
    machine = report.machine
    console.print(
        f"commit {report.commit}, {report.engine}, {report.began_at}, {report.seconds:.0f} s; {machine.cpu}, "
        f"{machine.cores} cores, Python {machine.python}, load before {machine.load}; {machine.places}",
        style="dim",
        highlight=False,
    )
    for error in report.errors:
        console.print(f"error: {error}", style="red", markup=False)


def to_markdown(report: Report) -> str:
    """The report as a page shows it, with the machine and a list of what missed its target."""
    machine = report.machine
    lines = [
        (
            f"Commit `{report.commit}`, {report.began_at}, {report.seconds:.0f} s, on the {report.engine}. "
            f"{machine.cpu}, {machine.cores} cores, {machine.memory_gib:g} GiB, {machine.system}, "
            f"Python {machine.python}; {machine.places}; load before the run {machine.load:g}."
        ),
    ]
    for group, figures in groupby(report.figures, key=lambda figure: figure.group):
        lines += ["", f"**{group}**", "", _line(COLUMNS), _line(["---", *["---:"] * (len(COLUMNS) - 1)])]
        lines += [_line(_cells(figure)) for figure in figures]
    if report.errors:
        lines += ["", "Errors:", "", *(f"- {error}" for error in report.errors)]
    return "\n".join(lines) + "\n"


def print_comparison(old: Report, new: Report, console: Console) -> None:
    """Both reports' values side by side; what changed notably is marked."""
    table = Table(
        "group", "figure", old.commit, new.commit, "change", "", title="old and new", title_justify="left"
    )
    before = {(figure.group, figure.name): figure for figure in old.figures}
    for figure in new.figures:
        earlier = before.pop((figure.group, figure.name), None)
        value = f"{_number(figure.value)} {figure.unit}"
        if earlier is None:
            table.add_row(figure.group, figure.name, "", value, "", "new")
            continue
        change = f"{_change(earlier, figure):+.1f} %" if earlier.value else ""
        mark = _direction(earlier, figure) if _is_notable(earlier, figure) else ""
        table.add_row(
            figure.group, figure.name, f"{_number(earlier.value)} {figure.unit}", value, change, mark
        )
    for gone in before.values():
        table.add_row(gone.group, gone.name, f"{_number(gone.value)} {gone.unit}", "", "", "gone")
    console.print(table)
    if old.machine.cpu != new.machine.cpu or old.machine.cores != new.machine.cores:
        console.print("The two were measured on different machines: only ratios compare.", style="yellow")


def _cells(figure: Figure) -> list[str]:
    verdict = {None: "", True: MET, False: MISSED}[figure.is_met]
    both = [
        f"{_number(each)} {figure.unit_of_both}" if each is not None else ""
        for each in (figure.direct, figure.agent)
    ]
    spread = ""
    if figure.low is not None and figure.high is not None:
        spread = f"{_number(figure.low)} to {_number(figure.high)}"
    target = figure.target
    wanted = "" if target.limit is None else f"{target.sense} {_number(target.limit)} {figure.unit}"
    similar = "" if target.similar is None else f"{_number(target.similar)} {figure.unit}"
    return [figure.name, *both, f"{_number(figure.value)} {figure.unit}", spread, wanted, similar, verdict]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _number(value: float) -> str:
    return f"{value:,.{digits(value)}f}"


def _change(old: Figure, new: Figure) -> float:
    return 100 * (new.value / old.value - 1)


def _is_notable(old: Figure, new: Figure) -> bool:
    if not old.value:
        return False
    change = abs(_change(old, new))
    if old.low is None or old.high is None or new.low is None or new.high is None:
        return change >= NOTABLE_ALONE_PERCENT
    return change >= NOTABLE_PERCENT and (old.high < new.low or new.high < old.low)


def _direction(old: Figure, new: Figure) -> str:
    is_less_better = new.target.sense is Sense.AT_MOST
    return "better" if (new.value < old.value) is is_less_better else "worse"


def missed(report: Report) -> Iterator[Figure]:
    return (figure for figure in report.figures if figure.is_met is False)
