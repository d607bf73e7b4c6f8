"""Runs the service until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
import socket

import structlog
from aiohttp import web

from agent.api.slow import READ_SECONDS
from agent.app import build_app
from agent.imports import preload
from agent.settings import Settings
from agent.start_check import warn_of_folders

log = structlog.get_logger(__name__)

#: Function Compute keeps idle connections for 15 minutes; a server that closes one earlier turns the next request
#: into its "502 Process exited unexpectedly".
KEEP_ALIVE_SECONDS = 960

#: Longest request line and header field. aiohttp's default would answer a task-id of 10,000 characters itself, in
#: plain text; with this it is refused like any other wrong one.
LONGEST_LINE_BYTES = 64 * 1024

#: Connections that may wait to be taken.
WAITING_CONNECTIONS = 512


def web_runner(settings: Settings) -> web.AppRunner:
    """The service inside a web server that listens nowhere yet."""
    return web.AppRunner(
        build_app(settings),
        handler_cancellation=True,  # a caller who hangs up cancels what he alone waits for
        keepalive_timeout=KEEP_ALIVE_SECONDS,
        access_log=None,
        shutdown_timeout=5,
        max_line_size=LONGEST_LINE_BYTES,
        max_field_size=LONGEST_LINE_BYTES,
        auto_decompress=False,  # see agent/api/unpacking.py
    )


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain and stop. Raises OSError when the port cannot be had."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    # Bound before anything is started: a port that is taken must not cost the start of an engine.
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.create_server((settings.host, settings.port), family=family) as listener:
        # A client that reads nothing of a finished answer is dropped by the kernel.
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, READ_SECONDS * 1000)
        runner = web_runner(settings)
        await runner.setup()
        try:
            # asyncio takes as many connections at once, and where it has no file descriptor for the first, says so for
            # each: thousands of log lines a second, which soon use up a core.
            await web.SockSite(runner, listener, backlog=1).start()
            listener.listen(WAITING_CONNECTIONS)
            port = listener.getsockname()[1]
            log.info("agent.listening", url=f"http://{settings.host}:{port}", role=settings.role.value)
            warn_of_folders(settings)
            loading = asyncio.create_task(preload(settings.role), name="preload")
            await stop.wait()
            await asyncio.wait((loading,))
            log.info("agent.stopping")
        finally:
            await runner.cleanup()
