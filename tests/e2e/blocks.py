"""The code blocks of the documents, and the tests that execute them."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: A fence may be indented: a block of a list's item. What follows the language is a mistake that a test reports.
FENCE = re.compile(r"^( *)```(\w*)([^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


@dataclass
class Block:
    """A code block of a page, which is named by its path in the repository."""

    page: str
    line: int
    language: str
    flags: str
    text: str
    is_taken: bool = False

    def take(self) -> str:
        """The text, for a test that executes it now: a command is run, data is parsed and compared."""
        self.is_taken = True
        return self.text

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.language or 'no language'}"


def pages() -> list[str]:
    return ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]


def blocks_of(page: str) -> list[Block]:
    text = (ROOT / page).read_text()
    return [
        Block(
            page,
            text.count("\n", 0, found.start()) + 1,
            found[2],
            found[3].strip(),
            textwrap.dedent(found[4]),
        )
        for found in FENCE.finditer(text)
    ]


def executes(page: str, *languages: str) -> pytest.MarkDecorator:
    """This test executes all blocks of the page in these languages, which the fixture `blocks` hands to it.

    The arguments stand there as plain strings, so that `test_every_block.py` can read them.
    """
    return pytest.mark.executes(page, languages)
