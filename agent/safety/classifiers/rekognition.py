"""Amazon Rekognition's DetectModerationLabels.

It takes JPEG and PNG of at most 5 MB, no side below 50 pixels, so it is sent a JPEG of the shrunken picture.
https://docs.aws.amazon.com/rekognition/latest/APIReference/API_DetectModerationLabels.html
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from agent.safety.classifiers.amazon import AmazonService
from agent.safety.classifiers.classifier import Label

if TYPE_CHECKING:
    from PIL import Image

#: The service takes no smaller side, in pixels, and no larger picture, in bytes.
LEAST_SIDE = 50
MOST_BYTES = 5 * 10**6


class Rekognition:
    """Asks for the labels of pictures."""

    step = "rekognition"

    def __init__(
        self, thresholds: dict[str, float], *, region: str | None, endpoint: str | None, seconds: float
    ) -> None:
        self.thresholds = thresholds
        self._service = AmazonService("rekognition", region=region, endpoint=endpoint, seconds=seconds)

    async def prepare(self) -> None:
        await self._service.prepare()

    async def classify(self, picture: Image.Image) -> list[Label]:
        return await self._service.ask(partial(self._detect, picture))

    async def close(self) -> None:
        await self._service.close()

    def _detect(self, picture: Image.Image, client: Any) -> list[Label]:
        least = min(self.thresholds.values()) * 100
        answer = client.detect_moderation_labels(Image={"Bytes": _encode(picture)}, MinConfidence=least)
        return [
            Label(str(found["Name"]), float(found["Confidence"]) / 100, str(found.get("ParentName") or ""))
            for found in answer["ModerationLabels"]
        ]


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
