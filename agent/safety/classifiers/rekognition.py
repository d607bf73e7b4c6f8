"""Amazon Rekognition's DetectModerationLabels.

It takes JPEG and PNG of at most 5 MB, no side below 50 pixels, so it is sent a JPEG of the shrunken picture. boto3 is
the extra `aws`; it blocks, so that it has threads of its own. Credentials and region are found as all of Amazon's tools
find them. https://docs.aws.amazon.com/rekognition/latest/APIReference/API_DetectModerationLabels.html
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from agent.safety.classifiers.classifier import ClassifierDown, Label

if TYPE_CHECKING:
    from PIL import Image

#: Pictures of all tasks that are on their way at the same time.
PARALLEL = 4

#: The service takes no smaller side, in pixels, and no larger picture, in bytes.
LEAST_SIDE = 50
MOST_BYTES = 5 * 10**6

#: Error codes after which the same question may be answered.
PASSING = frozenset(
    {
        "InternalServerError",
        "ProvisionedThroughputExceededException",
        "ThrottlingException",
        "ServiceUnavailable",
        "RequestTimeout",
    }
)


class Rekognition:
    """One client, made at the first question."""

    step = "rekognition"

    def __init__(
        self, thresholds: dict[str, float], *, region: str | None, endpoint: str | None, seconds: float
    ) -> None:
        self.thresholds = thresholds
        self._region, self._endpoint, self._seconds = region, endpoint, seconds
        self._threads = ThreadPoolExecutor(PARALLEL, thread_name_prefix="rekognition")
        self._lock = asyncio.Lock()
        self._client: Any = None

    async def prepare(self) -> None:
        async with self._lock:
            if self._client is None:
                self._client = await self._in_thread(self._open)

    async def classify(self, picture: Image.Image) -> list[Label]:
        await self.prepare()
        found: list[Label] = await self._in_thread(partial(self._detect, picture))
        return found

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            self._client.close()

    async def _in_thread(self, work: Any) -> Any:
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
                "rekognition", region_name=self._region, endpoint_url=self._endpoint, config=config
            )
        except (BotoCoreError, ValueError) as exc:
            raise ClassifierDown(
                f"its client cannot be made ({type(exc).__name__})", is_lasting=True
            ) from None

    def _detect(self, picture: Image.Image) -> list[Label]:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        least = min(self.thresholds.values()) * 100
        try:
            answer = self._client.detect_moderation_labels(
                Image={"Bytes": _encode(picture)}, MinConfidence=least
            )
            return [
                Label(
                    str(found["Name"]), float(found["Confidence"]) / 100, str(found.get("ParentName") or "")
                )
                for found in answer["ModerationLabels"]
            ]
        except ClientError as exc:
            code = str(exc.response.get("Error", {}).get("Code", ""))[:100]
            status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            is_lasting = code not in PASSING and status < 500
            raise ClassifierDown(f"it answered {code}", is_lasting=is_lasting) from None
        except (BotoCoreError, KeyError, TypeError, ValueError) as exc:
            raise ClassifierDown(f"it cannot be asked ({type(exc).__name__})") from None


def _encode(picture: Image.Image) -> bytes:
    """As JPEG within the service's bounds; a picture that is too narrow gets gray margins."""
    from PIL import ImageOps  # noqa: PLC0415 - keeps the start of the process light

    from agent.safety.picture import to_jpeg  # noqa: PLC0415

    if min(picture.size) < LEAST_SIDE:
        width, height = (max(side, LEAST_SIDE) for side in picture.size)
        picture = ImageOps.pad(picture, (width, height), color=(128, 128, 128))
    for quality in (90, 75, 50):
        data = to_jpeg(picture, quality)
        if len(data) <= MOST_BYTES:
            return data
    return to_jpeg(picture.resize((picture.width // 2, picture.height // 2)), 50)
