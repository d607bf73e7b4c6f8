"""Finds an operator's terms in a text, through whatever disguise spellings.py can read."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate

from agent.safety.prompts.fold import fold
from agent.safety.prompts.spellings import IS_UNSPACED, STANDS_FOR, Reading, Vocabulary, readings
from agent.safety.prompts.terms import Term

KANA = re.compile("[\u3041-\u3096\u30a1-\u30f6\u30fc]")

#: Katakana as hiragana, both ways of writing the same sounds.
HIRAGANA = {code: code - 0x60 for code in range(0x30A1, 0x30F7)}

#: What signs, and letters that they cannot be told from, become before they are looked up. A match is then compared
#: letter by letter.
ROUGH = HIRAGANA | {ord(sign): letters[0] for sign, letters in STANDS_FOR.items()} | {ord("l"): "i"}

#: Particles and copulas of Japanese that follow or precede a word without a space.
PARTICLES = frozenset("をがのはにでともへやか")

#: Letters of a term -> how many of them may be signs in a text, for short ones: "4k" and "a55" are names of things.
SIGNS_IN_SHORT = {1: 0, 2: 0, 3: 1}


@dataclass(frozen=True, slots=True)
class Match:
    """A term that a text holds."""

    term: Term

    @property
    def category(self) -> str:
        return self.term.category


@dataclass(frozen=True, slots=True)
class _Pattern:
    """A term as it may stand in a reading. `is_joined`: its words without the spaces between them, which counts only
    where a reading puts words together ("the rapist" is no "therapist")."""

    term: Term
    words: str
    is_joined: bool = False


class TermRules:
    """The lists as one automaton. Looking costs time by the length of the text, not by the number of terms."""

    def __init__(self, terms: Iterable[Term]) -> None:
        import ahocorasick  # noqa: PLC0415 - nobody pays for it who has no lists

        by_key: dict[str, list[_Pattern]] = {}
        vocabulary: set[str] = set()
        listed = dict.fromkeys(terms)
        #: How many terms there are, without exceptions.
        self.size = sum(not term.is_exception for term in listed)
        for term in listed:
            vocabulary |= {word for word in term.words.split() if word.isalpha()}
            by_key.setdefault(term.words.translate(ROUGH), []).append(_Pattern(term, term.words))
            if (glued := term.words.replace(" ", "")) != term.words:
                vocabulary.add(glued)
                joined = _Pattern(term, glued, is_joined=" " in term.line)  # "ak-47" is also "ak47"
                by_key.setdefault(glued.translate(ROUGH), []).append(joined)
        self._vocabulary = Vocabulary(vocabulary)
        self._automaton = ahocorasick.Automaton()
        for key, patterns in by_key.items():
            self._automaton.add_word(key, (len(key), tuple(patterns)))
        self._automaton.make_automaton()

    def find(self, text: str) -> list[Match]:
        """The terms that the text holds, each once, in the order in which they were found."""
        found: dict[Term, None] = {}
        for reading in readings(fold(text), self._vocabulary):
            found |= dict.fromkeys(self._in_reading(reading))
        return [Match(term) for term in found]

    def _in_reading(self, reading: Reading) -> list[Term]:
        hits = list(self._hits(reading))
        is_excepted = _within([(start, end) for start, end, term in hits if term.is_exception])
        return [t for start, end, t in hits if not t.is_exception and not is_excepted(start, end)]

    def _hits(self, reading: Reading) -> Iterator[tuple[int, int, Term]]:
        text = reading.text
        for last, (length, patterns) in self._automaton.iter(text.translate(ROUGH)):
            start, end = last + 1 - length, last + 1
            for pattern in patterns:
                if (
                    (reading.is_joined or not pattern.is_joined)
                    and _is_read_as(text[start:end], pattern.words, with_signs=reading.is_disguised)
                    and _stands_alone(text, start, end, pattern)
                ):
                    yield start, end, pattern.term


def _within(spans: list[tuple[int, int]]) -> Callable[[int, int], bool]:
    """A test whether a span lies in one of these."""
    spans.sort()
    starts = [start for start, _ in spans]
    furthest = list(accumulate((end for _, end in spans), max))

    def test(start: int, end: int) -> bool:
        before = bisect_right(starts, start)
        return before > 0 and furthest[before - 1] >= end

    return test


def _is_read_as(written: str, words: str, *, with_signs: bool) -> bool:
    if written == words:
        return True
    signs = 0
    for sign, letter in zip(written, words, strict=True):
        if sign == letter:
            continue
        if with_signs and letter in STANDS_FOR.get(sign, ""):
            signs += 1
        elif not (KANA.match(sign) and KANA.match(letter)):
            return False
    letters = sum(char.isalpha() for char in words)
    return signs <= SIGNS_IN_SHORT.get(letters, letters - 1)


def _stands_alone(text: str, start: int, end: int, pattern: _Pattern) -> bool:
    """Whether the match is a word of its own; where a script has no spaces, whether it may be one."""
    words, written = pattern.words, text[start:end]
    if written != words and KANA.search(written) and written.translate(HIRAGANA) == words.translate(HIRAGANA):
        return _is_foreign_kana(text, start, end)
    return _begins(text, start) and (pattern.term.is_prefix or _ends(text, end))


def _begins(text: str, start: int) -> bool:
    if start == 0 or IS_UNSPACED.match(text[start]):
        return True
    first = start
    if not text[start].isdecimal():
        while first > 0 and text[first - 1].isdecimal():
            first -= 1
    before = text[first - 1] if first else " "
    return not before.isalnum() or bool(IS_UNSPACED.match(before))


def _ends(text: str, end: int) -> bool:
    if end == len(text) or IS_UNSPACED.match(text[end - 1]):
        return True
    last = end
    if not text[end - 1].isdecimal():
        while last < len(text) and text[last].isdecimal():
            last += 1
    after = text[last] if last < len(text) else " "
    return not after.isalnum() or bool(IS_UNSPACED.match(after))


def _is_foreign_kana(text: str, start: int, end: int) -> bool:
    """Whether a word in the kana that it is not usually written in is one: other words of that kana can hold it by
    chance, and particles are in hiragana."""
    before, after = text[start - 1 : start], text[end : end + 1]
    return all(not KANA.match(char) or char in PARTICLES for char in (before, after) if char)
