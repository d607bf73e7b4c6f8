"""What the review asks of a classifier of pictures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")

#: Pauses between tries of one question, in seconds; the last one is repeated.
PAUSES = (0.2, 0.5, 1.0, 2.0)


@dataclass(frozen=True, slots=True)
class Label:
    """`score` is 0 to 1. `group` is a wider label that this one belongs to."""

    category: str
    score: float
    group: str = ""


class Classifier(Protocol):
    """One classifier. Calls may run at the same time."""

    #: Names it in verdicts, metrics and logs.
    step: str
    #: Label in lower case -> from where on it counts; * is any other.
    thresholds: dict[str, float]

    async def prepare(self) -> None:
        """Get ready for the first picture, while the engine is still at it. Raises ClassifierDown."""

    async def classify(self, picture: Image.Image) -> list[Label]:
        """The labels of an RGB picture, in any order. Raises ClassifierDown."""

    async def close(self) -> None:
        """Let go of connections and threads."""


class ClassifierDown(Exception):
    """It gave no answer that makes sense. The text says why, and holds no secret; `is_lasting`: it would give none if
    it were asked again at once."""

    def __init__(self, reason: str, *, is_lasting: bool = False) -> None:
        self.reason, self.is_lasting = reason, is_lasting
        super().__init__(reason)


async def ask(question: Callable[[], Awaitable[T]], seconds: float) -> T:
    """The answer, asked for again while it fails and time is left. Raises ClassifierDown."""
    reason, began = "", time.monotonic()
    try:
        async with asyncio.timeout(seconds):
            for number in range(1_000_000):
                try:
                    return await question()
                except ClassifierDown as down:
                    if down.is_lasting:
                        raise
                    reason = down.reason
                await asyncio.sleep(PAUSES[min(number, len(PAUSES) - 1)])
    except TimeoutError:
        pass
    spent = round(time.monotonic() - began, 1)
    raise ClassifierDown(reason or f"it gave no answer within {spent} seconds")
