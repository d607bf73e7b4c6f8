"""The response for what may be large."""

from __future__ import annotations

from aiohttp import web


class Response(web.Response):
    """Lets go of its body once that is sent. aiohttp keeps the latest response of each connection until the next one is
    answered, and an idle connection may stay open for long."""

    async def write_eof(self, data: bytes = b"") -> None:
        try:
            await super().write_eof(data)
        finally:
            self.body = None
