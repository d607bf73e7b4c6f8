"""The HTTP hook: any classifier that answers a POST.

It is sent the picture as image/jpeg, or what else its caller brings, and answers 200 with

    {"labels": [{"category": "violence", "score": 0.93}, ...]}

where scores are 0 to 1. The URL is the operator's, so it may be a private address. It may hold a secret, and so may the
Authorization header: neither is ever told.
"""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING, Any

import aiohttp
from pydantic import BaseModel, Field, SecretStr, ValidationError

from agent.safety.classifiers.classifier import ClassifierDown, Label

if TYPE_CHECKING:
    from PIL import Image

#: An instance that was frozen wakes up to connections that are dead without a sign: only fresh ones are used again.
IDLE_SECONDS = 3

#: A longer answer is none.
LONGEST_ANSWER = 2**20

#: Status codes after which the same question may be answered: too many at once, or a fault over there.
PASSING = frozenset({408, 425, 429, *range(500, 600)})


class _Label(BaseModel):
    category: str = Field(min_length=1, max_length=200)
    score: float = Field(ge=0, le=1)


class _Answer(BaseModel):
    labels: list[_Label] = Field(max_length=10_000)


class Hook:
    """One URL that is asked for labels. Calls may run at the same time."""

    def __init__(self, url: SecretStr | None, authorization: SecretStr | None = None) -> None:
        self._url = url.get_secret_value() if url else ""
        self._headers = {"Authorization": authorization.get_secret_value()} if authorization else {}
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, body: bytes, media_type: str) -> list[Label]:
        """Raises ClassifierDown. The caller bounds the time."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=None),
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        try:
            async with self._session.post(
                self._url,
                data=io.BytesIO(body),  # in pieces: bytes would be copied whole, and hold up the event loop
                headers={**self._headers, "Content-Type": media_type, "Accept": "application/json"},
                allow_redirects=False,
            ) as answer:
                if answer.status != 200:
                    raise ClassifierDown(
                        f"it answered {answer.status}", is_lasting=answer.status not in PASSING
                    )
                return _read(await _body(answer))
        except (aiohttp.ClientError, OSError, ValueError) as exc:  # their texts may hold the URL
            raise ClassifierDown(f"it cannot be reached ({type(exc).__name__})") from None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


class ImageHook:
    """The hook for pictures."""

    step = "image-hook"

    def __init__(self, hook: Hook, thresholds: dict[str, float]) -> None:
        self._hook, self.thresholds = hook, thresholds

    async def prepare(self) -> None:
        """There is nothing to get ready."""

    async def classify(self, picture: Image.Image) -> list[Label]:
        from agent.safety.picture import to_jpeg  # noqa: PLC0415 - keeps the start of the process light

        return await self._hook.ask(await asyncio.to_thread(to_jpeg, picture), "image/jpeg")

    async def close(self) -> None:
        await self._hook.close()


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    body = await answer.content.read(LONGEST_ANSWER + 1)
    while len(body) <= LONGEST_ANSWER and (piece := await answer.content.read(LONGEST_ANSWER)):
        body += piece
    if len(body) > LONGEST_ANSWER:
        raise ClassifierDown("its answer is too long", is_lasting=True)
    return body


def _read(body: bytes) -> list[Label]:
    try:
        labels: list[Any] = list(_Answer.model_validate_json(body).labels)
    except ValidationError:
        raise ClassifierDown(
            'its answer is not {"labels": [{"category": ..., "score": 0 to 1}]}', is_lasting=True
        ) from None
    return [Label(label.category, label.score) for label in labels]
