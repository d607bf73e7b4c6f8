"""EXIF data: a TIFF header and lists of entries that point anywhere in it.

A change appends a new list and leaves everything else where it is, because values that only their makers understand
(MakerNote) may point anywhere too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

ASCII, LONG, UNDEFINED = 2, 4, 7
EXIF_LIST, USER_COMMENT = 0x8769, 0x9286

#: Bytes of one value of each type (TIFF 6.0, section 2); others are of no interest here.
WIDTHS = {1: 1, ASCII: 1, 3: 2, LONG: 4, 5: 8, 6: 1, UNDEFINED: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}

#: How a comment's encoding is named in its first eight bytes (EXIF 2.32, section 4.6.5).
UNICODE, ASCII_TEXT = b"UNICODE\0", b"ASCII\0\0\0"

#: More than any camera writes; a broken list may claim 65,535.
MOST_ENTRIES = 1000


class BrokenExif(ValueError):
    """The data are not what a TIFF header promises."""


class _Entry(NamedTuple):
    tag: int
    kind: int
    values: int
    value: bytes  #: four bytes: the value itself where it is that short, else its offset


#: A list that has anything must have this (EXIF 2.32).
VERSION = _Entry(0x9000, UNDEFINED, 4, b"0232")


def user_comment(tiff: bytes) -> str | None:
    """The picture's comment. Raises BrokenExif."""
    found = _Tiff(tiff)
    _, comment = found.comment()
    return None if comment is None else found.text(comment)


def with_user_comment(tiff: bytes | None, text: str) -> bytes:
    """The data with another comment; None or broken data are begun anew. The comment is UTF-16 with its high bytes
    first whatever the data's own order, since that is how the programs that look for generation parameters read it."""
    body = UNICODE + text.encode("utf-16-be", errors="replace")
    try:
        found = _Tiff(tiff or _EMPTY)
        return found.with_comment(body)
    except BrokenExif:
        return _Tiff(_EMPTY).with_comment(body)


def without_texts(tiff: bytes, is_unwanted: Callable[[str], bool]) -> bytes | None:
    """The data without the texts for which the callback says so; None where nothing remains. Data in which nobody can
    tell what they hold are removed whole."""
    try:
        return _Tiff(tiff).without_texts(is_unwanted)
    except BrokenExif:
        return None


_EMPTY = b"MM\0*\0\0\0\x08" + b"\0\0" + b"\0\0\0\0"


class _Tiff:
    def __init__(self, tiff: bytes) -> None:
        if tiff[:4] not in (b"II*\0", b"MM\0*"):
            raise BrokenExif("no TIFF header")
        self._order: Literal["little", "big"] = "little" if tiff[:2] == b"II" else "big"
        self._data = bytearray(tiff)

    def comment(self) -> tuple[list[_Entry], _Entry | None]:
        """The entries of the EXIF list, and of them the comment."""
        entries, _ = self._list(self._number(4, 4))
        pointer = _of(entries, EXIF_LIST)
        inner = self._list(self._offset(pointer))[0] if pointer else []
        return inner, _of(inner, USER_COMMENT)

    def text(self, entry: _Entry) -> str:
        """An entry as text; empty where it is none."""
        start, length = self._place(entry)
        raw = bytes(self._data[start : start + length]) if start else entry.value[:length]
        if entry.tag != USER_COMMENT:
            return raw.decode(errors="replace").rstrip("\0") if entry.kind == ASCII else ""
        if raw.startswith(UNICODE):
            # Other writers use the data's own order; then the many high bytes that are zero come second.
            body = raw[len(UNICODE) :]
            is_little = body[1::2].count(0) > body[0::2].count(0)
            return body.decode("utf-16-le" if is_little else "utf-16-be", errors="replace")
        return raw.removeprefix(ASCII_TEXT).decode(errors="replace").strip("\0")

    def with_comment(self, body: bytes) -> bytes:
        inner, old = self.comment()
        if old is not None:
            self._blank(old)
        value = self._append(body).to_bytes(4, self._order)
        kept = [entry for entry in inner if entry.tag != USER_COMMENT]
        if _of(kept, VERSION.tag) is None:
            kept.append(VERSION)
        self._set_inner([*kept, _Entry(USER_COMMENT, UNDEFINED, len(body), value)])
        return bytes(self._data)

    def without_texts(self, is_unwanted: Callable[[str], bool]) -> bytes | None:
        inner, comment = self.comment()
        if comment is not None and is_unwanted(self.text(comment)):
            self._blank(comment)
            self._set_inner([entry for entry in inner if entry is not comment])
        first = self._number(4, 4)
        entries, following = self._list(first)
        unwanted = [entry for entry in entries if entry.kind == ASCII and is_unwanted(self.text(entry))]
        for entry in unwanted:
            self._blank(entry)
        if unwanted:
            kept = [entry for entry in entries if entry not in unwanted]
            self._data[4:8] = self._append_list(kept, following).to_bytes(4, self._order)
            entries = kept
        if not following and all(entry.tag == EXIF_LIST and not self.comment()[0] for entry in entries):
            return None
        return bytes(self._data)

    def _set_inner(self, inner: list[_Entry]) -> None:
        """Write the EXIF list anew and have the first list point to it."""
        pointer = self._append_list(inner, 0).to_bytes(4, self._order)
        entries, following = self._list(self._number(4, 4))
        kept = [entry for entry in entries if entry.tag != EXIF_LIST]
        changed = [*kept, _Entry(EXIF_LIST, LONG, 1, pointer)]
        self._data[4:8] = self._append_list(changed, following).to_bytes(4, self._order)

    def _list(self, at: int) -> tuple[list[_Entry], int]:
        """The entries of the list there, and where the next list is."""
        count = self._number(at, 2)
        end = at + 2 + 12 * count
        if count > MOST_ENTRIES or end > len(self._data):
            raise BrokenExif("a list is longer than the data")
        entries = [
            _Entry(
                self._number(start, 2),
                self._number(start + 2, 2),
                self._number(start + 4, 4),
                bytes(self._data[start + 8 : start + 12]),
            )
            for start in range(at + 2, end, 12)
        ]
        # Some writers leave out the last offset.
        return entries, self._number(end, 4) if end + 4 <= len(self._data) else 0

    def _append_list(self, entries: list[_Entry], following: int) -> int:
        order = self._order
        raw = len(entries).to_bytes(2, order)
        for entry in sorted(entries):
            raw += entry.tag.to_bytes(2, order) + entry.kind.to_bytes(2, order)
            raw += entry.values.to_bytes(4, order) + entry.value
        return self._append(raw + following.to_bytes(4, order))

    def _append(self, raw: bytes) -> int:
        """Put bytes at the end, on an even offset; returns it."""
        self._data += b"\0" * (len(self._data) % 2)
        at = len(self._data)
        self._data += raw
        return at

    def _blank(self, entry: _Entry) -> None:
        start, length = self._place(entry)
        if start:
            self._data[start : start + length] = bytes(length)

    def _place(self, entry: _Entry) -> tuple[int, int]:
        """Where an entry's value lies and how long it is; offset 0: in the entry itself."""
        length = WIDTHS.get(entry.kind, 1) * entry.values
        if length <= 4:
            return 0, length
        start = self._offset(entry)
        if start < 8 or start + length > len(self._data):
            raise BrokenExif("a value lies outside the data")
        return start, length

    def _offset(self, entry: _Entry) -> int:
        return int.from_bytes(entry.value, self._order)

    def _number(self, at: int, width: int) -> int:
        if at + width > len(self._data):
            raise BrokenExif("the data end too early")
        return int.from_bytes(self._data[at : at + width], self._order)


def _of(entries: list[_Entry], tag: int) -> _Entry | None:
    return next((entry for entry in entries if entry.tag == tag), None)
