"""One persistent WebSocket to the engine, shared by every prompt that this instance runs.

ComfyUI keeps one socket per client id, replays nothing, and never tells that it dropped somebody. So there is
one socket with an id of its own for the life of the process, opened before anything is submitted, and each
follower is told when the connection broke: what happened meanwhile has to be asked over HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from comfyui.events import (
    Event,
    Ignored,
    NodeAdvanced,
    NodeStarted,
    PreviewImage,
    PromptEnded,
    PromptStarted,
    QueueChanged,
    Unknown,
    parse,
)

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

log = structlog.get_logger(__name__)

#: Must be the first message of a connection; makes previews carry their prompt and node.
HELLO = json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}})

#: How long a socket may take to prove that it is alive. A heavy node can hold the engine up.
CHECK_SECONDS = 10

#: Pauses between attempts to connect, in seconds; the last one repeats.
RETRY_PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


class ConnectionLost(Event):
    """The socket broke; events may be missing from here on."""


class ConnectionRestored(Event):
    """The socket is open again; the engine replays nothing."""


class Feed:
    """Reads the socket and hands each prompt's events to its follower, in the order in which they came.

    `start` and `stop` are called once; everything else may be called at any time from the same event loop.
    """

    def __init__(self, url: str, *, client_id: str | None = None) -> None:
        self.client_id = client_id or uuid.uuid4().hex
        scheme, _, rest = url.rstrip("/").partition("://")
        self._url = f"{'wss' if scheme == 'https' else 'ws'}://{rest}/ws?clientId={self.client_id}"
        self._followers: dict[str, asyncio.Queue[Event]] = {}
        self._connected = asyncio.Event()
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._connection: ClientConnection | None = None
        self._check: asyncio.Task[None] | None = None
        self._running_prompt: str | None = None
        self._running_node: str | None = None
        self._reported: set[str] = set()
        self.reconnects = 0

    @property
    def is_connected(self) -> bool:
        return self._connected.is_set()

    async def start(self) -> None:
        """Begin to connect as soon as `resume` allows it. Returns at once."""
        self._task = asyncio.create_task(self._run(), name="feed")

    async def stop(self) -> None:
        tasks = [task for task in (self._task, self._check) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def resume(self) -> None:
        """The engine is there: connect, and reconnect whenever the socket breaks."""
        self._wanted.set()

    def pause(self) -> None:
        """The engine is gone: do not knock until `resume`."""
        self._wanted.clear()

    async def wait_connected(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for the socket to be open; tell whether it is."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._connected.wait()
        return self.is_connected

    def renew(self) -> None:
        """The process was frozen: do not trust the socket until it has proved to be alive.

        With nobody who follows a prompt it is replaced at once. Else it is asked first, because what is streamed over
        it meanwhile would be lost.
        """
        if self._connection is None:
            return
        self._connected.clear()
        if not self._followers:
            self.reconnect()
        elif self._check is None or self._check.done():
            self._check = asyncio.create_task(self._check_alive(self._connection), name="feed-check")

    def reconnect(self) -> None:
        """Drop the connection and open another: the cure for a socket that the engine no longer knows."""
        if self._connection is not None:
            self._connection.transport.abort()

    async def _check_alive(self, connection: ClientConnection) -> None:
        from websockets.exceptions import WebSocketException  # noqa: PLC0415 - loaded with the connection

        with contextlib.suppress(TimeoutError, WebSocketException):
            async with asyncio.timeout(CHECK_SECONDS):
                await (await connection.ping())
            if connection is self._connection:
                self._connected.set()
            return
        log.info("feed.dead")
        connection.transport.abort()

    @contextlib.contextmanager
    def follow(self, prompt_id: str) -> Iterator[asyncio.Queue[Event]]:
        """The events of one prompt. Enter before the prompt is submitted, or its first events are lost."""
        queue: asyncio.Queue[Event] = asyncio.Queue()
        self._followers[prompt_id] = queue
        try:
            yield queue
        finally:
            del self._followers[prompt_id]

    async def _run(self) -> None:
        await self._wanted.wait()
        from websockets.asyncio.client import connect  # noqa: PLC0415 - not needed to open our own port
        from websockets.exceptions import WebSocketException  # noqa: PLC0415

        attempt = 0
        while True:
            await self._wanted.wait()
            try:
                async with connect(
                    self._url,
                    proxy=None,  # the engine is on this machine, whatever HTTP_PROXY says
                    max_size=None,  # SaveImageWebsocket sends whole pictures
                    compression=None,
                    open_timeout=10,
                    ping_interval=20,
                    ping_timeout=60,  # a heavy node can hold the engine's interpreter lock for long
                    close_timeout=1,
                ) as connection:
                    attempt = 0
                    await self._read(connection)
            except (OSError, WebSocketException, TimeoutError) as exc:
                log.debug("feed.not_connected", reason=str(exc) or type(exc).__name__)
            await asyncio.sleep(RETRY_PAUSES[min(attempt, len(RETRY_PAUSES) - 1)])
            attempt += 1

    async def _read(self, connection: ClientConnection) -> None:
        await connection.send(HELLO)
        self._connection = connection
        self._connected.set()
        self._running_prompt = self._running_node = None
        self._tell_everyone(ConnectionRestored(None))
        try:
            async for message in connection:
                self._dispatch(parse(message))
        finally:
            self._connection = None
            self._connected.clear()
            self.reconnects += 1
            self._tell_everyone(ConnectionLost(None))
            log.info("feed.lost", followers=len(self._followers))

    def _dispatch(self, event: Event) -> None:
        match event:
            case QueueChanged() | Ignored():
                return
            case Unknown(type=kind):
                self._report_once(kind)
                return
            case PromptStarted(prompt_id=prompt):
                self._running_prompt, self._running_node = prompt, None
            case (
                NodeStarted(prompt_id=prompt, display_node=node) | NodeAdvanced(prompt_id=prompt, node=node)
            ) if prompt:
                self._running_prompt, self._running_node = prompt, node
            case PreviewImage(prompt_id=None):
                # Without metadata a picture belongs to whatever runs: the engine runs one prompt at a time.
                event = replace(event, prompt_id=self._running_prompt, node=self._running_node)
            case _:
                pass
        follower = self._followers.get(event.prompt_id or "")
        if follower is not None:
            follower.put_nowait(event)
        if isinstance(event, PromptEnded):
            self._running_prompt = self._running_node = None

    def _tell_everyone(self, event: Event) -> None:
        for follower in self._followers.values():
            follower.put_nowait(event)

    def _report_once(self, kind: str) -> None:
        if kind not in self._reported and len(self._reported) < 100:
            self._reported.add(kind)
            log.info("feed.unknown_message", type=kind)
