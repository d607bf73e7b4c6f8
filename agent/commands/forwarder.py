"""A port of this machine that is ComfyUI to its clients, and an agent's routes for them behind it."""

from __future__ import annotations

import asyncio
import errno
import logging
import re
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import unquote

import aiohttp
from aiohttp import WSCloseCode, WSMsgType, web
from aiohttp.http_exceptions import HttpProcessingError
from pydantic_core import to_json
from yarl import URL

from agent.client import AgentUnreachable
from agent.client.asynchronous import reaching
from agent.client.wire import KEY_HEADER, checked_key, checked_url, is_loopback, shown
from agent.commands.remote import FAILED, KEY_VARIABLE, UNREACHABLE, WRONG_USE, Stop, complain, explain

#: Where an agent has all that ComfyUI's clients ask for, the editor's /api included (agent/api/editor.py).
BASE = "/comfyui"

#: Where this machine reaches itself. A program that looks for `localhost` at one of the two alone finds it there.
ADDRESSES = ("127.0.0.1", "::1")
NAMES = ("127.0.0.1", "localhost", "[::1]")

#: Of a machine without IPv6.
NO_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

KEY_REFUSED = "The agent does not take this API key any more. Stop this, and start it with another one."

#: Longest request line and header field, as the agent takes them.
LONGEST_LINE_BYTES = 64 * 1024

#: An instance that must start first takes its time to answer.
CONNECT_SECONDS, SILENCE_SECONDS = 30, 300

#: A WebSocket whose other side says nothing for so long, not even to a ping, is dead.
PING_SECONDS = 20

#: What is open when the port closes has so long to end.
CLOSE_SECONDS = 1

#: What the agent is told of a request. Nothing that a browser knows of other pages is among it, cookies least of all.
REQUEST_HEADERS = (
    "Accept",
    "Comfy-User",
    "Content-Encoding",
    "Content-Length",
    "Content-Type",
    "If-None-Match",
    "Range",
)

#: What the client is told of the answer.
ANSWER_HEADERS = (
    "Cache-Control",
    "Content-Disposition",
    "Content-Encoding",
    "Content-Length",
    "Content-Range",
    "Content-Security-Policy",
    "Content-Type",
    "ETag",
    "Retry-After",
    "X-Content-Type-Options",
    "task-id",
)


#: What stands between the parts of a path, also to servers that take a backslash for a slash.
SLASH = re.compile(r"[/\\]")


class Forwarder:
    """`url` and `api_key` are the agent's. Raises ValueError for what cannot be one.

    Only programs of this machine are let in, and of pages in its browsers only those that come from this port: another
    site's page would spend the GPU, and one whose name was made to lead here would read the answers too.
    """

    def __init__(self, url: str, api_key: str | None) -> None:
        self._url = str(URL(checked_url(url))).rstrip("/")
        self.shown_url = shown(self._url)
        self._sockets: set[web.WebSocketResponse] = set()
        self._said: str | None = None
        self._is_closing = False
        self._headers = {} if api_key is None else {KEY_HEADER: checked_key(api_key)}

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers={"Accept-Encoding": "identity", **self._headers},
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS
            ),
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=not is_loopback(self._url),
            middlewares=(self._stay,),
        )
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        app.on_shutdown.append(self._hang_up)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=_complaints(),
            handler_cancellation=True,
            shutdown_timeout=CLOSE_SECONDS,
            auto_decompress=False,
            max_line_size=LONGEST_LINE_BYTES,
            max_field_size=LONGEST_LINE_BYTES,
        )
        await self._runner.setup()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def check(self) -> None:
        """Raises Stop unless the agent lets ComfyUI's clients in."""
        try:
            with reaching(self._url):
                async with self._session.get(self._far("/prompt"), allow_redirects=False) as answer:
                    status, is_json = answer.status, answer.content_type == "application/json"
        except AgentUnreachable as error:
            raise explain(error) from None
        if status == 401:
            raise Stop(f"The agent wants a valid API key: --api-key or {KEY_VARIABLE}.", WRONG_USE)
        if status == 404 and is_json:
            raise Stop(
                f"The agent at {self.shown_url} lets no clients of ComfyUI in: it needs AGENT_PASS_THROUGH=all, and "
                "an engine of its own.",
                FAILED,
            )
        if status != 200 or not is_json:
            raise Stop(
                f"{self.shown_url} answers {status}, and not as an agent that is ready for clients of ComfyUI.",
                UNREACHABLE,
            )

    async def listen(self, port: int) -> None:
        """Open the port, on this machine alone. Raises OSError."""
        self._hosts = hosts_of(port)
        for address in ADDRESSES:
            try:
                await web.TCPSite(self._runner, address, port).start()
            except OSError as exc:
                if address == "127.0.0.1" or exc.errno not in NO_ADDRESS:
                    raise

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Host", "").lower() not in self._hosts:
            return _refuse(403, "HostNotAllowed", f"This port answers to {', '.join(NAMES)} alone.")
        origin = request.headers.get("Origin")
        if origin not in (None, *(f"http://{host}" for host in self._hosts)):
            return _refuse(403, "OriginNotAllowed", "Only pages of this port itself may use it.")
        if {".", ".."} & {*SLASH.split(unquote(request.rel_url.raw_path))}:
            return _refuse(404, "NotFound", "On the way to the agent this path would come to be another one.")
        upgrade = request.headers.get("Upgrade", "")
        is_socket = request.method == "GET" and upgrade.lower() == "websocket"
        try:
            with reaching(self._url):
                return await (self._connect(request) if is_socket else self._ask(request))
        except AgentUnreachable as error:
            self._say(error.detail)
            return _refuse(502, "AgentUnreachable", error.detail)

    async def _ask(self, request: web.Request) -> web.StreamResponse:
        headers = {name: request.headers[name] for name in REQUEST_HEADERS if name in request.headers}
        async with self._session.request(
            request.method,
            self._at(request),
            headers=headers,
            data=request.content if request.body_exists else None,
            allow_redirects=False,
        ) as answer:
            self._note(answer.status)
            if answer.status == 401:
                return _refuse(401, "Unauthorized", KEY_REFUSED)
            told = {name: answer.headers[name] for name in ANSWER_HEADERS if name in answer.headers}
            # Of a file that lies in the object store, or of one of the editor's.
            if "Location" in answer.headers:
                told["Location"] = answer.headers["Location"].removeprefix(BASE)
            response = web.StreamResponse(status=answer.status, headers=told)
            await response.prepare(request)
            try:
                async for piece in answer.content.iter_any():
                    await response.write(piece)
            except (aiohttp.ClientError, TimeoutError):
                # It has begun: only a connection that breaks can say that the rest is missing.
                if request.transport is not None:
                    request.transport.abort()
                return response
            await response.write_eof()
            return response

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        try:
            far = await self._session.ws_connect(self._at(request), max_msg_size=0, heartbeat=PING_SECONDS)
        except aiohttp.WSServerHandshakeError as exc:
            self._note(exc.status)
            if exc.status == 401:
                return _refuse(401, "Unauthorized", KEY_REFUSED)
            status = exc.status if exc.status >= 400 else 502
            return _refuse(status, "NoSocket", f"The agent refused the WebSocket with status {exc.status}.")
        self._note(101)
        async with far:
            near = web.WebSocketResponse(max_msg_size=0, compress=False, timeout=CLOSE_SECONDS)
            await near.prepare(request)
            self._sockets.add(near)
            ways = [asyncio.create_task(_copy(near, far)), asyncio.create_task(_copy(far, near))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._sockets.discard(near)
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
            broken = far.close_code in (None, WSCloseCode.ABNORMAL_CLOSURE)
            await near.close(code=WSCloseCode.GOING_AWAY if broken else far.close_code or 0)
        return near

    def _note(self, status: int) -> None:
        """The agent has answered with this."""
        self._say(KEY_REFUSED if status == 401 else None)

    def _say(self, sentence: str | None) -> None:
        """What is wrong now, once: ComfyUI's clients show little of what they are answered."""
        if sentence not in (None, self._said) and not self._is_closing:
            complain(sentence)
        self._said = sentence

    async def _hang_up(self, _: web.Application) -> None:
        self._is_closing = True
        await asyncio.gather(*(near.close(code=WSCloseCode.GOING_AWAY) for near in self._sockets))

    async def _stay(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """A WebSocket's handshake follows redirects, and would take the key with it."""
        if request.url.origin() != self._far("").origin():
            raise aiohttp.ClientError("it redirects elsewhere, where your key does not belong.")
        return await handler(request)

    def _at(self, request: web.Request) -> URL:
        target = request.raw_path
        return self._far(target if target.startswith("/") else request.rel_url.raw_path_qs)

    def _far(self, path: str) -> URL:
        """The agent's address for a path with its query, neither of which is changed: they stay as they came."""
        return URL(f"{self._url}{BASE}{path}", encoded=True)


def hosts_of(port: int) -> set[str]:
    """What a browser of this machine calls this port; 80, which is HTTP's own, it leaves out."""
    return {f"{name}:{port}" for name in NAMES} | (set(NAMES) if port == 80 else set())


async def _copy(
    source: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
    target: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
) -> None:
    """Pass messages on until one side closes."""
    with suppress(ConnectionError):
        async for message in source:
            if message.type is WSMsgType.TEXT:
                await target.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                await target.send_bytes(message.data)


def _refuse(status: int, kind: str, sentence: str) -> web.Response:
    """A refusal in ComfyUI's form, which its clients know how to show."""
    error = {"type": kind, "message": sentence, "details": "", "extra_info": {}}
    body = to_json({"error": error, "node_errors": {}})
    return web.Response(status=status, body=body, content_type="application/json")


def _complaints() -> logging.Logger:
    """For the web server, which would show a traceback of each request that is no HTTP; who sends it is told why."""
    logger = logging.getLogger("agent.forward")
    logger.addFilter(
        lambda record: not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))
    )
    return logger
