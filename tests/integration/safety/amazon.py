"""A local stand-in for Amazon's JSON services, which speaks their wire format: one address, the operation in
X-Amz-Target, the answer as application/x-amz-json-1.1, errors with `__type`. It refuses what the service would."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from PIL import Image

Operation = Callable[[dict[str, Any]], dict[str, Any]]

SCOPE = re.compile(r"AWS4-HMAC-SHA256 Credential=(\w+)/\d{8}/([\w-]+)/(\w+)/aws4_request, SignedHeaders=")


class Refused(Exception):
    """An error of the service."""

    def __init__(self, code: str, status: int = 400) -> None:
        self.code, self.status = code, status
        super().__init__(code)


@dataclass
class Amazon:
    """`operations` by their targets. `calls`: what was asked; `signed`: key, region and service of each signature.
    The codes in `faults` are answered first."""

    operations: dict[str, Operation]
    calls: list[dict[str, Any]] = field(default_factory=list)
    signed: list[tuple[str, str, str]] = field(default_factory=list)
    faults: list[Refused] = field(default_factory=list)
    url: str = ""

    async def answer(self, request: web.Request) -> web.Response:
        scope = SCOPE.match(request.headers.get("Authorization", ""))
        operation = self.operations.get(request.headers.get("X-Amz-Target", ""))
        if scope is None or operation is None or request.content_type != "application/x-amz-json-1.1":
            return self._refuse(Refused("UnknownOperationException"))
        self.signed.append((scope[1], scope[2], scope[3]))
        body = await request.json()
        self.calls.append(body)
        try:
            if self.faults:
                raise self.faults.pop(0)
            return web.json_response(operation(body), content_type="application/x-amz-json-1.1")
        except Refused as exc:
            return self._refuse(exc)

    def _refuse(self, refused: Refused) -> web.Response:
        return web.Response(
            status=refused.status,
            body=json.dumps({"__type": refused.code, "message": "says the stand-in"}).encode(),
            content_type="application/x-amz-json-1.1",
        )


def moderation(labels: Callable[[Image.Image], list[dict[str, Any]]]) -> dict[str, Operation]:
    """Rekognition, which answers with what `labels` says of a picture and is at least as sure as was asked for."""

    def detect(body: dict[str, Any]) -> dict[str, Any]:
        data = base64.b64decode(body["Image"]["Bytes"], validate=True)
        if len(data) > 5 * 2**20:
            raise Refused("ImageTooLargeException")
        picture = Image.open(io.BytesIO(data))
        if picture.format not in ("JPEG", "PNG") or min(picture.size) < 50:
            raise Refused("InvalidImageFormatException")
        least = body.get("MinConfidence", 50)
        found = [label for label in labels(picture) if label["Confidence"] >= least]
        return {"ModerationLabels": found, "ModerationModelVersion": "7.0", "ContentTypes": []}

    return {"RekognitionService.DetectModerationLabels": detect}


def label(name: str, confidence: float, parent: str = "", level: int = 2) -> dict[str, Any]:
    """As Rekognition writes it."""
    return {"Name": name, "Confidence": confidence, "ParentName": parent, "TaxonomyLevel": level}
