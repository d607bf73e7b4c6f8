"""The fault table is true: each row names a test that exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from tests.e2e.blocks import Block, executes
from tests.e2e.shell import Shell

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/reliability.md"
PROOF = re.compile(r"`([\w/]+\.py)::(test_\w+)`")


def rows() -> list[list[str]]:
    """The cells of each row, without heads and rulers."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[0] != "fault"]


@cache
def names_in(path: Path) -> set[str]:
    found = ast.walk(ast.parse(path.read_text()))
    return {node.name for node in found if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_fault_table_has_at_least_forty_rows_and_each_names_a_test_that_exists() -> None:
    assert len(rows()) >= 40
    for row in rows():
        assert len(row) == 4, row
        assert all(row), row
        proofs = PROOF.findall(row[3])
        assert proofs, f"no test proves: {row[0]}"
        for file, name in proofs:
            folder = ROOT / (
                "tests" if file.startswith(("gateway/", "e2e/", "unit/")) else "tests/integration"
            )
            assert name in names_in(folder / file), f"{file} has no {name}"


def test_every_reliability_test_is_in_the_table() -> None:
    named = {name for row in rows() for _, name in PROOF.findall(row[3])}
    for path in (ROOT / "tests/integration/reliability").glob("test_*.py"):
        missing = {name for name in names_in(path) if name.startswith("test_")} - named
        assert not missing, f"{path.name}: {sorted(missing)}"


@executes("docs/reliability.md", "bash")
def test_soak_test_runs_as_the_page_says(blocks: list[Block], shell: Shell) -> None:
    (soak,) = blocks
    shell.environment["SOAK_TASKS"] = "4"
    assert '"tasks": 4' in shell.run(soak, seconds=200)
