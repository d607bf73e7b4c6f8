"""The code blocks of the documents."""

from __future__ import annotations

import re
from pathlib import Path

BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks_of(document: Path, language: str) -> list[str]:
    """The code blocks of a document in a language, without those that need what no fresh machine has."""
    blocks = BLOCK.findall(document.read_text())
    return [text for found, flags, text in blocks if found == language and "skip" not in flags]
