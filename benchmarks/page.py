"""Writes a report into a page of the documentation."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.figures import Report
from benchmarks.plot import draw
from benchmarks.table import to_markdown

BEGIN, END = "<!-- begin: measured -->", "<!-- end: measured -->"


class NoMarkers(ValueError):
    """The page has no place for a report: put the two marks of benchmarks/page.py where it should be."""


def write_page(report: Report, page: Path) -> None:
    """Replace what stands between the marks of the page, and beside it the plot (same name, .svg) and the report itself
    (.json), with which others compare theirs. Raises NoMarkers."""
    text = page.read_text()
    between = re.compile(re.escape(BEGIN) + ".*" + re.escape(END), re.DOTALL)
    if not between.search(text):
        raise NoMarkers(f"{page}: {NoMarkers.__doc__}")
    plot = page.with_suffix(".svg")
    draw(report, plot)
    written = f"{BEGIN}\n{to_markdown(report)}\n![Each figure in parts of its target]({plot.name})\n{END}"
    report.save(page.with_suffix(".json"))
    page.write_text(between.sub(lambda _: written, text))
