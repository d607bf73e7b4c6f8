"""Amazon Comprehend's DetectToxicContent.

It reads English alone, in up to 10 pieces of at most 1 KB each. boto3 is the extra `aws`; it blocks, so that it has
threads of its own. Credentials and region are found as all of Amazon's tools find them.
https://docs.aws.amazon.com/comprehend/latest/APIReference/API_DetectToxicContent.html
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from agent.safety.classifiers.classifier import ClassifierDown, Label

T = TypeVar("T")

#: Texts of all tasks that are on their way at the same time.
PARALLEL = 4

#: What one question may hold. The service allows 1024 bytes a piece.
MOST_PIECES, MOST_BYTES = 10, 1000

#: The category of the service's score for a text as a whole.
TOXICITY = "TOXICITY"

#: Error codes after which the same question may be answered.
PASSING = frozenset(
    {"InternalServerException", "ThrottlingException", "ServiceUnavailable", "RequestTimeout"}
)

#: A word with what follows it, in parts where it alone is too long.
WORD = re.compile(r"\S{1,250}\s{0,50}|\s+")


class Comprehend:
    """One client, made at the first question."""

    step = "comprehend"

    def __init__(
        self, thresholds: dict[str, float], *, region: str | None, endpoint: str | None, seconds: float
    ) -> None:
        self.thresholds = thresholds
        self._region, self._endpoint, self._seconds = region, endpoint, seconds
        self._threads = ThreadPoolExecutor(PARALLEL, thread_name_prefix="comprehend")
        self._lock = asyncio.Lock()
        self._client: Any = None

    async def classify(self, text: str) -> list[Label] | None:
        """The labels of a text; None for one that is not English. Raises ClassifierDown."""
        if not is_latin(text):
            return None
        async with self._lock:
            if self._client is None:
                self._client = await self._in_thread(self._open)
        return await self._in_thread(partial(self._detect, text))

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            self._client.close()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _open(self) -> Any:
        import boto3  # noqa: PLC0415 - an extra, and half a second
        from botocore.config import Config  # noqa: PLC0415
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415

        config = Config(
            connect_timeout=self._seconds,
            read_timeout=self._seconds,
            retries={"total_max_attempts": 1},  # the review asks again itself
            max_pool_connections=PARALLEL,
        )
        try:
            return boto3.session.Session().client(
                "comprehend", region_name=self._region, endpoint_url=self._endpoint, config=config
            )
        except (BotoCoreError, ValueError) as exc:
            raise ClassifierDown(
                f"its client cannot be made ({type(exc).__name__})", is_lasting=True
            ) from None

    def _detect(self, text: str) -> list[Label]:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        worst: dict[str, float] = {}
        pieces = list(split(text))
        try:
            for first in range(0, len(pieces), MOST_PIECES):
                segments = [{"Text": piece} for piece in pieces[first : first + MOST_PIECES]]
                answer = self._client.detect_toxic_content(TextSegments=segments, LanguageCode="en")
                results = answer["ResultList"]
                if len(results) != len(segments):
                    raise ClassifierDown("its answer is not for all that it was asked")
                for result in results:
                    for found in (*result["Labels"], {"Name": TOXICITY, "Score": result["Toxicity"]}):
                        name = str(found["Name"])
                        worst[name] = max(worst.get(name, 0.0), float(found["Score"]))
        except ClientError as exc:
            code = str(exc.response.get("Error", {}).get("Code", ""))[:100]
            raise ClassifierDown(f"it answered {code}", is_lasting=code not in PASSING) from None
        except (BotoCoreError, KeyError, TypeError, ValueError) as exc:
            raise ClassifierDown(f"it cannot be asked ({type(exc).__name__})") from None
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
