"""The Range header: one part of a file."""

from __future__ import annotations

import re

#: `bytes=0-99`, `bytes=100-` or `bytes=-50`. Several ranges at once are not served; a server may ignore them.
_RANGE = re.compile(r"bytes=(?:(\d{1,15})-(\d{1,15})?|-(\d{1,15}))")


def part_of(header: str | None, size: int) -> range | None:
    """The bytes that are asked for, as positions in a file of this size; None: all of it (RFC 9110, section 14.2).

    Raises ValueError for a part that the file does not have.
    """
    match = _RANGE.fullmatch((header or "").strip())
    if match is None:
        return None
    first, last, suffix = (None if text is None else int(text) for text in match.groups())
    if first is None:
        first, last = max(size - (suffix or 0), 0), None
    if last is not None and last < first:
        return None  # the header says nothing
    if first >= size:
        raise ValueError(f"the file has {size} bytes")
    return range(first, size if last is None else min(last + 1, size))
