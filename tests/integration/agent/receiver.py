"""A receiver of webhooks on loopback that answers what a test wants, and keeps what it got."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from standardwebhooks.webhooks import Webhook

from tests.serving import serving

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

#: Until what was set off somewhere has arrived, also on a machine that does much else.
PATIENCE_SECONDS = 30


@dataclass(frozen=True)
class Message:
    """One request. `path` has the query."""

    path: str
    headers: dict[str, str]
    body: bytes = field(repr=False)

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def json(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed

    @property
    def task(self) -> str:
        return str(self.json["data"]["id"])

    def verified(self, secret: str = SECRET) -> dict[str, Any]:
        """The body, after the specification's own library has found it genuine."""
        body: dict[str, Any] = Webhook(secret).verify(self.body, self.headers)
        return body


@dataclass
class Receiver:
    """Takes from `answers` what it answers next: a status, or a status with headers; 204 when there is none.
    While `is_stalled` is set it answers nothing at all."""

    base: str = ""
    messages: list[Message] = field(default_factory=list)
    answers: list[int | tuple[int, dict[str, str]]] = field(default_factory=list)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    _arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def url(self) -> str:
        return f"{self.base}/hook"

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Receiver]:
        self.released.set()
        async with serving(web.route("*", "/{path:.*}", self._take)) as url:
            self.base = url
            yield self

    def stall(self) -> None:
        self.released.clear()

    def release(self) -> None:
        self.released.set()

    async def got(self, count: int = 1) -> list[Message]:
        """The messages, as soon as there are so many."""
        async with asyncio.timeout(PATIENCE_SECONDS), self._arrived:
            await self._arrived.wait_for(lambda: len(self.messages) >= count)
        return list(self.messages)

    def about(self, task_id: str) -> list[Message]:
        return [message for message in self.messages if message.task == task_id]

    async def _take(self, request: web.Request) -> web.Response:
        message = Message(request.path_qs, dict(request.headers), await request.read())
        answer = self.answers.pop(0) if self.answers else 204
        async with self._arrived:
            self.messages.append(message)
            self._arrived.notify_all()
        await self.released.wait()
        status, headers = answer if isinstance(answer, tuple) else (answer, {})
        return web.Response(status=status, headers=headers)
