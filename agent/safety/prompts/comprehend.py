"""Amazon Comprehend's DetectToxicContent.

It reads English alone, in up to 10 pieces of at most 1 KB each.
https://docs.aws.amazon.com/comprehend/latest/APIReference/API_DetectToxicContent.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from agent.safety.classifiers.amazon import AmazonService
from agent.safety.classifiers.classifier import ClassifierDown, Label

#: What one question may hold. The service allows 1024 bytes a piece.
MOST_PIECES, MOST_BYTES = 10, 1000

#: The category of the service's score for a text as a whole.
TOXICITY = "TOXICITY"

#: A word with what follows it, in parts where it alone is too long.
WORD = re.compile(r"\S{1,250}\s{0,50}|\s+")


class Comprehend:
    """Asks for the labels of texts."""

    step = "comprehend"

    def __init__(
        self, thresholds: dict[str, float], *, region: str | None, endpoint: str | None, seconds: float
    ) -> None:
        self.thresholds = thresholds
        self._service = AmazonService("comprehend", region=region, endpoint=endpoint, seconds=seconds)

    async def classify(self, text: str) -> list[Label] | None:
        """The labels of a text; None for one that is not English. Raises ClassifierDown."""
        return await self._service.ask(partial(_detect, text)) if is_latin(text) else None

    async def close(self) -> None:
        await self._service.close()


def _detect(text: str, client: Any) -> list[Label]:
    worst: dict[str, float] = {}
    pieces = list(split(text))
    for first in range(0, len(pieces), MOST_PIECES):
        segments = [{"Text": piece} for piece in pieces[first : first + MOST_PIECES]]
        results = client.detect_toxic_content(TextSegments=segments, LanguageCode="en")["ResultList"]
        if len(results) != len(segments):
            raise ClassifierDown("its answer is not for all that it was asked")
        for result in results:
            for found in (*result["Labels"], {"Name": TOXICITY, "Score": result["Toxicity"]}):
                name = str(found["Name"])
                worst[name] = max(worst.get(name, 0.0), float(found["Score"]))
    return [Label(name, score) for name, score in worst.items()]


def split(text: str) -> Iterator[str]:
    """The text in pieces of at most MOST_BYTES in UTF-8, cut between words where there are any."""
    piece, size = "", 0
    for word in WORD.findall(text):
        length = len(word.encode(errors="replace"))
        if size + length > MOST_BYTES:
            if piece.strip():
                yield piece.strip()
            piece, size = "", 0
        if not word.isspace():
            piece, size = piece + word, size + length
    if piece.strip():
        yield piece.strip()


def is_latin(text: str) -> bool:
    """Whether at least half of the letters are Latin ones: nothing else can be English."""
    letters = [char for char in text if char.isalpha()]
    return 2 * sum(char < "\u0250" for char in letters) >= len(letters)
