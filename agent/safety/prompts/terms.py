"""The operator's lists of terms: files of one term a line, whose name is the category.

# a comment
pistol
machine gun      several words: with anything but letters between them
explos*          every word that begins so
!hot shot        never mind a term of any list where it stands within this one
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.safety.prompts.fold import fold
from agent.safety.prompts.spellings import words_of

#: The word that stands for the lists that come with the agent.
EXAMPLES = "examples"
SHIPPED = Path(__file__).parent.parent / "terms"

#: A longer line is no term.
LONGEST_TERM = 200


class TermsError(ValueError):
    """A list cannot be used; the text says which, and why."""


@dataclass(frozen=True, slots=True)
class Term:
    """One line of a list. `words` is what is compared: folded, with single spaces. `line` is as it was written."""

    words: str
    category: str
    line: str
    is_prefix: bool = False
    is_exception: bool = False


def load_terms(places: Iterable[str]) -> list[Term]:
    """The terms of these files, and of the *.txt files in these folders, in this order. Raises TermsError."""
    found: list[Term] = []
    for place in places:
        for file in _files(SHIPPED if place == EXAMPLES else Path(place)):
            found += read_terms(file)
    if not any(not term.is_exception for term in found):
        raise TermsError(f"there is no term in {', '.join(map(str, places)) or 'no file'}")
    return found


def read_terms(file: Path) -> list[Term]:
    """The terms of one file. Raises TermsError, which names the line."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as exc:
        raise TermsError(f"{file}: {exc.strerror or exc}") from None
    except UnicodeDecodeError as exc:
        line = exc.object[: exc.start].count(b"\n") + 1
        raise TermsError(f"{file}, line {line}: this is not UTF-8") from None
    category = file.name.partition(".")[0]
    return [
        parse_term(line.strip(), category, f"{file}, line {number}")
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]


def _files(place: Path) -> Iterator[Path]:
    if not place.is_dir():
        yield place
        return
    try:
        files = sorted(
            file for file in place.iterdir() if file.suffix == ".txt" and not file.name.startswith(".")
        )
    except OSError as exc:
        raise TermsError(f"{place}: {exc.strerror or exc}") from None
    if not files:
        raise TermsError(f"{place}: there is no file in it whose name ends in .txt")
    yield from files


def parse_term(line: str, category: str, where: str) -> Term:
    """The term of one line, without blanks at its ends. Raises TermsError, which says `where` it stands."""
    text = line.removeprefix("!")
    words = words_of(fold(text.removesuffix("*")))
    if not words:
        raise TermsError(f"{where}: there is neither a letter nor a digit in it")
    if len(line) > LONGEST_TERM:
        raise TermsError(f"{where}: a term has at most {LONGEST_TERM} characters")
    return Term(words, category, line, is_prefix=text.endswith("*"), is_exception=line.startswith("!"))
