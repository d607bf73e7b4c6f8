"""A server on loopback that answers what it is told to, and keeps what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Respond = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Asked:
    """A request that came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass
class CannedEngine:
    """`answers` maps "METHOD /path", or "" for everything else, to what is answered; "HEAD /x" and "GET /x" differ."""

    url: str = ""
    answers: dict[str, Respond] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    _runner: web.AppRunner | None = None

    def respond(
        self,
        to: str = "",
        status: int = 200,
        *,
        json: Any = None,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
    ) -> None:
        """Answer this. A body that is packed already comes with its Content-Encoding."""

        async def answer(_request: web.Request) -> web.Response:
            if json is not None:
                return web.json_response(json, status=status)
            return web.Response(status=status, body=body, headers=headers)

        self.answers[to] = answer

    def count(self, what: str) -> int:
        """How often this was asked."""
        return sum(f"{one.method} {one.path}" == what for one in self.asked)

    async def start(self) -> None:
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(
            app, auto_decompress=False, handler_cancellation=True, shutdown_timeout=0
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        self.asked.append(
            Asked(request.method, path, dict(request.query), dict(request.headers), await request.read())
        )
        answer = self.answers.get(f"{request.method} {path}") or self.answers.get("")
        return await answer(request) if answer else web.Response(status=501)


async def refuse(request: web.Request) -> web.StreamResponse:
    """Close the connection without an answer."""
    assert request.transport is not None
    request.transport.abort()
    raise asyncio.CancelledError


async def break_off(request: web.Request) -> web.StreamResponse:
    """Announce more than is sent."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b"x")
    assert request.transport is not None
    request.transport.close()
    return response
