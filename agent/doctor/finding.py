"""What a check found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"  #: as it should be
    ADVICE = "advice"  #: works, but not as well or as safely as it could
    PROBLEM = "problem"  #: tasks would fail, or the service would not start


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence on one thing, and what to do about it. Neither holds a secret."""

    about: str
    level: Level
    text: str
    remedy: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def ok(about: str, text: str) -> Finding:
    return Finding(about, Level.OK, text)


def advice(about: str, text: str, remedy: str) -> Finding:
    return Finding(about, Level.ADVICE, text, remedy)


def problem(about: str, text: str, remedy: str) -> Finding:
    return Finding(about, Level.PROBLEM, text, remedy)
