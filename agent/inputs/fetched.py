"""A file that came from where an input leads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a URL answered. `filename` is what the server or the URL call it: a hint, never a path to use."""

    data: bytes
    content_type: str | None
    filename: str | None
