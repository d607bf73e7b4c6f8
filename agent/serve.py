"""Runs the service until it is told to stop."""

from __future__ import annotations

import asyncio
import signal

import structlog
from aiohttp import web

from agent.app import build_app
from agent.settings import Settings

log = structlog.get_logger(__name__)

#: Function Compute keeps idle connections for 15 minutes; a server that closes one earlier turns the next request
#: into its "502 Process exited unexpectedly".
KEEP_ALIVE_SECONDS = 960


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain and stop. Raises OSError when the port cannot be had."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    runner = web.AppRunner(
        build_app(settings),
        handler_cancellation=True,  # a caller who hangs up cancels what he alone waits for
        keepalive_timeout=KEEP_ALIVE_SECONDS,
        access_log=None,
        shutdown_timeout=5,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.host, settings.port, backlog=512)
        await site.start()
        log.info("agent.listening", url=f"http://{settings.host}:{_port(runner)}", role=settings.role.value)
        await stop.wait()
        log.info("agent.stopping")
    finally:
        await runner.cleanup()


def _port(runner: web.AppRunner) -> int:
    """The port that was really bound: settings may ask for any free one."""
    return int(runner.addresses[0][1])
