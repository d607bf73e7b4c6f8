"""What a connection that nobody uses holds: nothing of what went over it."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from agent.api.pieces import Files
from agent.api.response import Response

DEADLINE = 20


class Picture(bytearray):
    """Bytes whose end can be seen."""


class Answers:
    """Answers with a picture that it does not keep, as a whole or within JSON."""

    def __init__(self) -> None:
        self.picture_is_gone = asyncio.Event()

    async def whole(self, _: web.Request) -> web.StreamResponse:
        return Response(body=self._picture())

    async def in_json(self, _: web.Request) -> web.StreamResponse:
        files = Files()
        return files.body({"results": [files.add(self._picture())]}).response()

    def _picture(self) -> bytes:
        picture = Picture(1_000_000)
        weakref.finalize(picture, self.picture_is_gone.set)
        return picture  # type: ignore[return-value] # nobody can watch bytes


@pytest.fixture
async def answers() -> Answers:
    return Answers()


@pytest.fixture
async def server(answers: Answers) -> AsyncIterator[TestServer]:
    app = web.Application()
    app.add_routes([web.get("/whole", answers.whole), web.get("/json", answers.in_json)])
    async with TestServer(app) as started:
        yield started


@pytest.mark.parametrize("path", ["/whole", "/json"])
async def test_an_answer_is_gone_once_it_is_sent_though_its_connection_stays_open(
    answers: Answers, server: TestServer, path: str
) -> None:
    connector = aiohttp.TCPConnector(keepalive_timeout=10 * DEADLINE)
    async with aiohttp.ClientSession(connector=connector) as session:
        async with session.get(server.make_url(path)) as response:
            assert len(await response.read()) >= 1_000_000
        async with asyncio.timeout(DEADLINE):
            await answers.picture_is_gone.wait()
