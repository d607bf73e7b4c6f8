"""The ways to read a folded text: as it stands, with digits as letters, with set-apart letters put together again."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass

#: Scripts that are written without spaces, or (Hangul) with particles joined to a word: there is no word boundary to
#: be seen in them. Thai, Lao, Tibetan, Myanmar, Hangul, Khmer, kana, bopomofo, Han.
UNSPACED = (
    "\u0e00-\u0fff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3041-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)

IS_UNSPACED = re.compile(f"[{UNSPACED}]")

#: What a sign may stand for within a word. "(" is left out: prompts are full of it.
STANDS_FOR = {
    "0": "o",
    "1": "il",
    "2": "z",
    "3": "e",
    "4": "a",
    "5": "s",
    "6": "g",
    "7": "t",
    "8": "b",
    "9": "g",
    "@": "a",
    "$": "s",
    "€": "e",
    "!": "il",
    "|": "il",
    "+": "t",
}

#: A letter, a digit, or a sign that is used as one; and what is between those. Underscores are taken out before.
LETTER, GAP = r"[\w@$€]", r"[^\w@$€]"
DISGUISED_WORD = re.compile(r"[\w@$€](?:[\w@$€!|+]*[\w@$€])?")
SET_APART = re.compile(rf"(?<!{LETTER}){LETTER}(?:{GAP}+{LETTER}(?!{LETTER}))+")
APART = re.compile(rf"({LETTER})({GAP}*)")

#: Words of one letter, which may stand before or after a word of set-apart letters.
ARTICLES = "aio"

PIECES = re.compile(rf"{LETTER}+")
CHUNK = re.compile(r"\S+")
HARD = re.compile(r"[,;:(){}\[\]<>|/]+")
#: The ":1.3" of "(word:1.3)". Bounded, so that no text makes it slow.
WEIGHT = re.compile(r":\d{0,4}\.?\d{1,8}(?=[)\]>]|$)")

WORD = re.compile(r"\w+")
STRETCH = re.compile(r"([^\W\d])\1\1")
RUN = re.compile(r"(.)\1*")

#: Between characters of unspaced scripts these separate nothing; only the end of a sentence does.
LOOSE = re.compile(rf"(?<=[{UNSPACED}])[^\w;!?。；！？\n]+(?=[{UNSPACED}])")


class _Separators(dict[int, str | int]):
    """A table for str.translate: punctuation and the like become a space; pictures stand alone; letters, digits and
    marks stay. Filled as characters are met."""

    def __missing__(self, code: int) -> str | int:
        char = chr(code)
        found: str | int = " "
        match unicodedata.category(char):
            case "So":
                found = f" {char} "
            case category if category[0] in "LNM":
                found = code
        if code < 0x10000:  # so that texts of callers cannot fill it without end
            self[code] = found
        return found


SEPARATORS = _Separators()


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to read a text: words with one space between them. `is_disguised`: signs may stand for letters in it;
    `is_joined`: its words were put together, so that a term of several words is one word here."""

    text: str
    is_disguised: bool = False
    is_joined: bool = False


def readings(folded: str, vocabulary: Vocabulary) -> Iterator[Reading]:
    """Every reading of a folded text that may show what another does not. The first is the text as it stands."""
    folded = folded.replace("_", " ")
    plain = words_of(folded)
    yield Reading(plain)
    signs = any(sign in folded for sign in STANDS_FOR)
    if signs and (disguised := " ".join(DISGUISED_WORD.findall(folded))) != plain:
        yield Reading(disguised, is_disguised=True)
    elif signs:
        yield Reading(plain, is_disguised=True)
    if (tight := LOOSE.sub("", folded)) != folded:
        yield Reading(words_of(tight))
    joined = "\n".join(dict.fromkeys(word for word in _joined(folded) if not word.isdecimal()))
    if joined:
        yield Reading(joined, is_disguised=True, is_joined=True)
    if (shrunk := vocabulary.shrink(plain)) != plain:
        yield Reading(shrunk)
    if (shrunk := vocabulary.shrink(joined)) != joined:
        yield Reading(shrunk, is_joined=True)


def words_of(folded: str) -> str:
    """The words, with one space between them."""
    return " ".join(folded.translate(SEPARATORS).split())


def _joined(folded: str) -> Iterator[str]:
    for apart in SET_APART.finditer(folded):
        yield from _put_together(apart[0])
    for chunk in CHUNK.finditer(folded):
        # Without spaces a chunk is a whole sentence.
        if len(PIECES.findall(chunk[0])) > 1 and not IS_UNSPACED.search(chunk[0]):
            yield from _glued(chunk[0])


def _put_together(apart: str) -> Iterator[str]:
    """Letters that stand apart as one word; as several where some gaps are wider than the others."""
    pairs = APART.findall(apart)
    widths = [_width(gap) for _, gap in pairs[:-1]]
    least = min(widths)
    whole = "".join(letter for letter, _ in pairs)
    parts = "".join(
        letter + (" " if width > least else "")
        for (letter, _), width in zip(pairs, [*widths, least], strict=True)
    )
    for word in {whole: None, parts: None}:
        yield word
        if len(word) > 3 and word[0] in ARTICLES:
            yield word[1:]
        if len(word) > 3 and word[-1] in ARTICLES:
            yield word[:-1]


def _width(gap: str) -> tuple[bool, int]:
    return (any(char.isspace() for char in gap), len(gap))


def _glued(chunk: str) -> Iterator[str]:
    """A word with signs in it that are no letters, without them; also between its brackets and commas."""
    chunk = WEIGHT.sub("", chunk)
    for part in (chunk, *HARD.split(chunk)):
        if len(pieces := PIECES.findall(part)) > 1:
            yield "".join(pieces)


class Vocabulary:
    """The words of a list, by what they are with each run of a letter made one: finds the word that one with
    stretched letters ("guuun") comes from."""

    def __init__(self, words: Collection[str]) -> None:
        self._by_shape: dict[str, list[str]] = {}
        for word in words:
            self._by_shape.setdefault(_shape(word), []).append(word)

    def shrink(self, text: str) -> str:
        """The text with each stretched word replaced by the word that it comes from, if there is one."""
        if not STRETCH.search(text):
            return text
        return WORD.sub(lambda word: self._origin(word[0]), text)

    def _origin(self, word: str) -> str:
        if not STRETCH.search(word):
            return word
        lengths = _run_lengths(word)
        candidates = self._by_shape.get(_shape(word), ())
        fitting = (w for w in candidates if all(map(int.__le__, _run_lengths(w), lengths)))
        return max(fitting, key=len, default=word)


def _shape(word: str) -> str:
    return RUN.sub(r"\1", word)


def _run_lengths(word: str) -> list[int]:
    return [len(run[0]) for run in RUN.finditer(word)]
