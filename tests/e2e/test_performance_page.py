"""The benchmarks work: each group finds its figures, no answer is wrong, and what is written can be read again.

What the figures are is looked at by nobody here: other tests run at the same time.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.figures import Report
from benchmarks.groups import GROUPS
from benchmarks.page import BEGIN, write_page
from tests.e2e.blocks import ROOT, Block, executes
from tests.e2e.shell import Shell


@executes("docs/performance.md", "bash")
@pytest.mark.timeout(600)
def test_performance_page(blocks: list[Block], shell: Shell, tmp_path: Path) -> None:
    (bench,) = blocks
    shell.instead = {"make bench": "make bench BENCH=--quick"}
    shown = shell.run(bench, seconds=500)
    assert "missed" in shown
    assert "old and new" in shown  # the comparison with the report that is kept beside the page

    output = shell.folder / "benchmark-output"
    report = Report.load(output / "report.json")
    assert report.errors == []
    assert report.is_quick
    assert {figure.group for figure in report.figures} == set(GROUPS)
    assert (output / "plot.png").read_bytes().startswith(b"\x89PNG")

    page = tmp_path / "performance.md"
    shutil.copy(ROOT / "docs" / "performance.md", page)
    before = page.read_text()
    write_page(report, page)
    assert page.read_text().partition(BEGIN)[0] == before.partition(BEGIN)[0]
    assert all(f"| {figure.name} |" in page.read_text() for figure in report.figures)
    assert "<svg" in page.with_suffix(".svg").read_text()
    assert Report.load(page.with_suffix(".json")) == report


def test_the_page_shows_the_report_beside_it(tmp_path: Path) -> None:
    page, report = tmp_path / "performance.md", Report.load(ROOT / "docs" / "performance.json")
    shutil.copy(ROOT / "docs" / "performance.md", page)
    assert not report.is_quick
    assert {figure.group for figure in report.figures} >= set(GROUPS)
    write_page(report, page)
    assert page.read_text() == (ROOT / "docs" / "performance.md").read_text()
