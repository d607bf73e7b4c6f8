"""`comfyui-agent check-prompts`: what the lists make of prompts, one a line, and how often they are right."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.safety.prompts.rules import TermRules
from agent.safety.prompts.terms import TermsError, load_terms

#: What may stand before a prompt, with a tab between: what the verdict should be.
SAFE, UNSAFE = "safe", "unsafe"


@dataclass(frozen=True, slots=True)
class Line:
    """A prompt and what its label says; None: it has no label."""

    number: int
    text: str
    is_unsafe: bool | None = None


@dataclass(slots=True)
class Score:
    """How the verdicts compare with the labels."""

    right: int = 0  #: refused, and labelled unsafe
    too_much: int = 0  #: refused, and labelled safe
    missed: int = 0  #: not refused, and labelled unsafe
    passed: int = 0  #: not refused, and labelled safe

    def add(self, *, refused: bool, unsafe: bool) -> None:
        match refused, unsafe:
            case True, True:
                self.right += 1
            case True, False:
                self.too_much += 1
            case False, True:
                self.missed += 1
            case _:
                self.passed += 1

    @property
    def precision(self) -> float:
        """Of those that were refused, the share that should be; 1 where none was."""
        return _share(self.right, self.right + self.too_much)

    @property
    def recall(self) -> float:
        """Of those that should be refused, the share that was; 1 where none should be."""
        return _share(self.right, self.right + self.missed)


def run_check(file: str, terms: list[str], echo: Callable[[str], None], *, as_json: bool) -> bool:
    """Print a verdict for each line; whether all are as they should be: as labelled, or without label not refused.

    Raises TermsError for lists and prompts that cannot be read.
    """
    rules = TermRules(load_terms(terms))
    lines = list(parse(_read(file)))
    score, is_well, began = Score(), True, time.perf_counter()
    for line in lines:
        found = {match.category: match.term.line for match in reversed(rules.find(line.text))}
        is_well &= bool(found) == bool(line.is_unsafe)
        if line.is_unsafe is not None:
            score.add(refused=bool(found), unsafe=line.is_unsafe)
        echo(_to_json(line, found) if as_json else _to_text(line, found))
    seconds = time.perf_counter() - began
    if not as_json:
        echo(_summary(lines, score, seconds))
    elif any(line.is_unsafe is not None for line in lines):
        echo(json.dumps({"precision": round(score.precision, 4), "recall": round(score.recall, 4)}))
    return is_well


def parse(lines: Iterable[str]) -> Iterator[Line]:
    """The prompts of these lines; empty ones and those that begin with # are left out."""
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        label, tab, text = line.rstrip("\r\n").partition("\t")
        if tab and label in (SAFE, UNSAFE):
            yield Line(number, text, label == UNSAFE)
        else:
            yield Line(number, line.strip())


def _read(file: str) -> list[str]:
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return data.decode("utf-8-sig").split("\n")
    except OSError as exc:
        raise TermsError(f"{file}: {exc.strerror or exc}") from None
    except UnicodeDecodeError:
        raise TermsError(f"{file}: this is not UTF-8") from None


def _to_text(line: Line, found: dict[str, str]) -> str:
    verdict = ", ".join(f'{category} ("{term}")' for category, term in found.items())
    wrong = " WRONG" if line.is_unsafe is not None and line.is_unsafe != bool(found) else ""
    return f"{line.number}{wrong}: {'refused: ' + verdict if found else 'passed'}: {line.text}"


def _to_json(line: Line, found: dict[str, str]) -> str:
    shown = {"line": line.number, "refused": bool(found), "found": found, "unsafe": line.is_unsafe}
    return json.dumps({**shown, "text": line.text}, ensure_ascii=False)


def _summary(lines: list[Line], score: Score, seconds: float) -> str:
    each = 1000 * seconds / len(lines) if lines else 0.0
    text = f"\n{len(lines)} prompts, {each:.2f} ms each"
    labelled = score.right + score.too_much + score.missed + score.passed
    if not labelled:
        return text
    return (
        f"{text}\n{labelled} labelled: {score.right} rightly refused, {score.too_much} wrongly refused, "
        f"{score.missed} missed, {score.passed} rightly passed\n"
        f"precision {score.precision:.3f}, recall {score.recall:.3f}"
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
