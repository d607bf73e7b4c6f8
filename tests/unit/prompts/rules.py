from __future__ import annotations

from pathlib import Path

from agent.safety.prompts.rules import TermRules
from agent.safety.prompts.terms import read_terms


def rules_of(tmp_path: Path, *lines: str, category: str = "weapons") -> TermRules:
    file = tmp_path / f"{category}.txt"
    file.write_text("\n".join(lines), encoding="utf-8")
    return TermRules(read_terms(file))


def found(rules: TermRules, text: str) -> list[str]:
    """The lines of the lists that the text holds."""
    return [match.term.line for match in rules.find(text)]
