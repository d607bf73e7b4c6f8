"""Clients that do not read what they asked for: each holds an answer in memory, and must not do so for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

#: How long a client may leave what is sent to it unread.
READ_SECONDS = 60


class SlowReader(Exception):
    """The client did not read in time."""


@asynccontextmanager
async def reading_limit() -> AsyncIterator[None]:
    """Raises SlowReader when what is sent inside waits for the client for too long."""
    try:
        async with asyncio.timeout(READ_SECONDS):
            yield
    except TimeoutError:
        raise SlowReader from None


def cut_off(request: web.Request) -> None:
    """Drop the connection at once: an orderly close would wait for the client to read the rest."""
    if request.transport is not None:
        request.transport.abort()
