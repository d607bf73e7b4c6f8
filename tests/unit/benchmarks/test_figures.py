"""What counts as met, as changed and as fair."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from benchmarks.crowd import Crowd
from benchmarks.figures import Figure, Machine, Report, Sense, Target, percentile, quartiles
from benchmarks.plot import used_share
from benchmarks.table import print_comparison

AT_LEAST = Sense.AT_LEAST


def figure(value: float, limit: float | None = None, sense: Sense = Sense.AT_MOST, **more: Any) -> Figure:
    target = Target(limit=limit, sense=sense)
    return Figure(
        **{"group": "latency", "name": "small", "unit": "ms", "value": value, "target": target, **more}
    )


def report(*figures: Figure, commit: str = "abc") -> Report:
    machine = Machine(cpu="A", cores=2, memory_gib=1, system="L", python="3", load=0, places="")
    return Report(
        commit=commit,
        began_at="2026-11-21",
        seconds=1,
        is_quick=False,
        engine="simulator",
        machine=machine,
        figures=list(figures),
        errors=[],
    )


@pytest.mark.parametrize(
    ("value", "limit", "sense", "met"),
    [
        (1.0, None, Sense.AT_MOST, None),
        (1.03, 1.03, Sense.AT_MOST, True),
        (1.034, 1.03, Sense.AT_MOST, True),  # shown as 1.03
        (1.036, 1.03, Sense.AT_MOST, False),
        (0.966, 0.97, AT_LEAST, True),
        (0.96, 0.97, AT_LEAST, False),
        (1, 0, Sense.AT_MOST, False),
        (0, 0, Sense.AT_MOST, True),
    ],
)
def test_target_is_met_as_it_is_shown(
    value: float, limit: float | None, sense: Sense, met: bool | None
) -> None:
    assert figure(value, limit, sense).is_met is met


def test_report_survives_its_file(tmp_path: Any) -> None:
    made = report(figure(1.5, 2, low=1.0, high=2.0))
    made.save(tmp_path / "report.json")
    assert Report.load(tmp_path / "report.json") == made


def test_comparison_marks_what_changed_beyond_its_noise() -> None:
    old = report(
        figure(10, low=9, high=11, name="slower"),
        figure(10, low=9, high=11, name="noise"),
        figure(10, sense=AT_LEAST, name="more", low=9.9, high=10.1),
        figure(1, name="gone"),
    )
    new = report(
        figure(20, low=19, high=21, name="slower"),
        figure(11, low=10, high=12, name="noise"),
        figure(20, sense=AT_LEAST, name="more", low=19, high=21),
        figure(1, name="new"),
        commit="def",
    )
    written = io.StringIO()
    print_comparison(old, new, Console(file=written, width=200))
    lines = {line.split("│")[2].strip(): line for line in written.getvalue().splitlines() if "│" in line}
    assert "+100.0 %" in lines["slower"]
    assert "worse" in lines["slower"]
    assert "better" not in lines["noise"]
    assert "worse" not in lines["noise"]
    assert "better" in lines["more"]
    assert "gone" in lines["gone"]
    assert "new" in lines["new"]


def test_share_of_a_target_counts_what_the_agent_adds() -> None:
    ratio = figure(1.05, 1.10, unit="x", direct=50.0, agent=52.5)
    assert used_share(ratio, ratio.value) == pytest.approx(0.5)
    assert used_share(figure(35, 70), 35) == 0.5
    assert used_share(figure(0.5, 1.0, AT_LEAST), 0.5) == 2


def test_quartiles_and_percentiles() -> None:
    assert quartiles([3.0]) == (3.0, 3.0)
    assert quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == (2.0, 4.0)
    assert percentile([float(n) for n in range(100)], 95) == 95


def test_a_fair_queue_is_one() -> None:
    """Four callers, each of whom waits for the three before him, at 10 answers a second."""
    assert Crowd(4, 10.0, [0.4] * 100).p95_by_fair == pytest.approx(1)
