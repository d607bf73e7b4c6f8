"""Each code block of the README and of docs/ is executed by a test: no page and no language is left out."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator

from tests.e2e.blocks import ROOT, blocks_of, pages

MARK = "executes"


def promises() -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, ast.Call]]:
    """Each test that has `@executes(...)` above it, with that call."""
    for path in (ROOT / "tests").rglob("test_*.py"):
        if f"@{MARK}(" not in (text := path.read_text()):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                for call in (d for d in node.decorator_list if isinstance(d, ast.Call)):
                    if isinstance(call.func, ast.Name) and call.func.id == MARK:
                        yield node, call


def promised() -> Counter[tuple[str, str]]:
    """Page and language of each promise, and how many tests make it."""
    found: Counter[tuple[str, str]] = Counter()
    for _, call in promises():
        page, *languages = (ast.literal_eval(argument) for argument in call.args)
        found.update((page, language) for language in languages)
    return found


def test_every_block_is_executed_by_one_test() -> None:
    there = {(block.page, block.language): block for page in pages() for block in blocks_of(page)}
    tests = promised()
    assert [str(block) for key, block in there.items() if key not in tests] == [], (
        "blocks that no test executes: see `executes` in blocks.py"
    )
    assert set(tests) == set(there), "tests for blocks that are not there"
    assert set(tests.values()) == {1}


def test_no_block_has_a_mark_that_lets_it_be_left_out() -> None:
    assert [str(block) for page in pages() for block in blocks_of(page) if block.flags] == []


def test_every_fence_is_one_that_is_read() -> None:
    for page in pages():
        fences = sum(line.lstrip().startswith("```") for line in (ROOT / page).read_text().splitlines())
        assert fences == 2 * len(blocks_of(page)), page


def test_what_promises_to_execute_blocks_takes_them() -> None:
    """The fixture `blocks` is what looks whether all were taken, so each promise must come with it."""
    for node, _ in promises():
        assert "blocks" in {argument.arg for argument in node.args.args}, node.name
