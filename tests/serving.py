"""A small HTTP server of a test's own, on loopback."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web


@contextlib.asynccontextmanager
async def serving(*routes: web.RouteDef, port: int = 0, **application: Any) -> AsyncIterator[str]:
    """The address at which these routes answer until the end. A handler ends with its caller's connection, so that
    one may wait for ever."""
    app = web.Application(**application)
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
