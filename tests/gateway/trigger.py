"""The HTTP trigger of a function: a listener whose requests go to instances (sections 3 to 5)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from aiohttp import WSMsgType, web

from tests.gateway.calls import (
    LARGEST_SYNC_BODY,
    Call,
    Refused,
    callers_headers,
    read_async_body,
    read_call,
    refusal,
    too_large,
)
from tests.gateway.fleet import Fleet
from tests.gateway.function import Account
from tests.gateway.instance import Instance, StartFailed
from tests.gateway.journal import Journal, What
from tests.gateway.leaks import LeakDetector
from tests.gateway.tasks import AsyncQueue

CHUNK_BYTES = 64 * 1024


class Trigger:
    """Listens on a free loopback port, from `start` to `close`."""

    def __init__(
        self, fleet: Fleet, queue: AsyncQueue, account: Account, journal: Journal, leaks: LeakDetector
    ) -> None:
        self._fleet, self._queue = fleet, queue
        self._account, self._journal, self._leaks = account, journal, leaks
        self.url = ""

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(
            app,
            handler_cancellation=True,  # a caller who hangs up ends his request in the container too
            access_log=None,
            shutdown_timeout=1,
            max_line_size=64 * 1024,
            max_field_size=64 * 1024,
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def close(self) -> None:
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        request_id = ""
        # Another function's container may be the caller: it must not pass on what it was given.
        self._leaks.look_at_headers(f"{request.method} {request.path}: request", request.headers)
        try:
            call = read_call(request, self._fleet.function, self._account)
            request_id = call.request_id
            if call.is_async:
                return await self._accept(request, call)
            return await self._invoke(request, call)
        except StartFailed as failure:
            return self._not_started(failure, request_id)
        except Refused as refused:
            self._journal.note(
                What.REFUSED, self._fleet.function.name, detail=f"{refused.status} {refused.code}"
            )
            return refusal(refused, request_id)

    async def _accept(self, request: web.Request, call: Call) -> web.Response:
        """Section 4: answered before any container sees it."""
        self._queue.accept(call, await read_async_body(request))
        headers = {"X-Fc-Request-Id": call.request_id, "X-Fc-Async-Task-Id": call.task_id}
        return web.Response(status=202, headers=headers)

    async def _invoke(self, request: web.Request, call: Call) -> web.StreamResponse:
        answer: web.StreamResponse = web.WebSocketResponse(autoping=False, max_msg_size=0)
        try:
            async with (
                self._fleet.slot(is_patient=False) as instance,
                asyncio.timeout(self._fleet.function.timeout_seconds),
            ):
                if call.is_websocket:
                    return await self._splice(request, call, instance)
                answer = web.StreamResponse()
                await self._pass_on(request, call, instance, answer)
                return answer
        except (aiohttp.ClientError, TimeoutError) as error:
            if answer.prepared:
                _cut(request)
                return answer
            if isinstance(error, TimeoutError):
                raise Refused(504, "FunctionTimeout", "The function did not answer in time.") from None
            raise Refused(
                502, "FunctionExited", "Process exited unexpectedly before completing request"
            ) from None

    async def _pass_on(
        self, request: web.Request, call: Call, instance: Instance, answer: web.StreamResponse
    ) -> None:
        body = _Upload(request) if request.body_exists else None
        try:
            async with instance.send(call, body.chunks() if body else None) as response:
                await self._answer(request, call, response, answer)
        except aiohttp.ClientError:
            if body and body.is_too_large:
                raise too_large(is_async=False) from None
            raise

    async def _answer(
        self,
        request: web.Request,
        call: Call,
        response: aiohttp.ClientResponse,
        answer: web.StreamResponse,
    ) -> None:
        """Stream the answer through. One that says it is larger than 32 MB is a 502."""
        headers = callers_headers(response.headers, call.request_id)
        if (response.content_length or 0) > LARGEST_SYNC_BODY:
            raise Refused(502, "BadResponse", "The response is larger than 32 MB.")
        self._leaks.look_at_headers(str(call), response.headers)
        answer.set_status(response.status, response.reason)
        answer.headers.update(headers)
        if "Content-Length" not in headers and call.method != "HEAD" and response.status not in (204, 304):
            answer.enable_chunked_encoding()
        await answer.prepare(request)
        async for chunk in response.content.iter_any():
            self._leaks.look_at(f"{call}: body", chunk)
            await answer.write(chunk)
        await answer.write_eof()

    async def _splice(self, request: web.Request, call: Call, instance: Instance) -> web.WebSocketResponse:
        """Join two WebSockets. When the function's time is over, the client sees 1006."""
        async with instance.connect(call) as onward:
            socket = web.WebSocketResponse(autoping=False, max_msg_size=0)
            await socket.prepare(request)
            pumps = {
                asyncio.create_task(self._pump(socket, onward)),
                asyncio.create_task(self._pump(onward, socket)),
            }
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                _cut(request)
                raise
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
            return socket

    async def _pump(self, source: Any, sink: Any) -> None:
        with contextlib.suppress(ConnectionError, aiohttp.ClientError):
            async for message in source:
                match message.type:
                    case WSMsgType.TEXT:
                        self._leaks.look_at("WebSocket", message.data)
                        await sink.send_str(message.data)
                    case WSMsgType.BINARY:
                        await sink.send_bytes(message.data)
                    case WSMsgType.PING:
                        await sink.ping(message.data)
                    case WSMsgType.PONG:
                        await sink.pong(message.data)
        if source.close_code not in (None, 1006):
            await sink.close(code=source.close_code)

    def _not_started(self, failure: StartFailed, request_id: str) -> web.Response:
        """Section 2: the caller of a function whose initializer failed gets 200 with a header that says so."""
        self._journal.note(What.REFUSED, self._fleet.function.name, detail=failure.kind)
        status = 200 if failure.kind == "InitializationError" else 502
        return web.json_response(
            {"errorType": failure.kind, "errorMessage": str(failure)},
            status=status,
            headers={"X-Fc-Error-Type": failure.kind, "X-Fc-Request-Id": request_id},
        )


class _Upload:
    """A caller's body on its way in, up to 32 MB."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self.is_too_large = False

    async def chunks(self) -> AsyncIterator[bytes]:
        total = 0
        async for chunk in self._request.content.iter_chunked(CHUNK_BYTES):
            total += len(chunk)
            if total > LARGEST_SYNC_BODY:
                self.is_too_large = True
                raise too_large(is_async=False)
            yield chunk


def _cut(request: web.Request) -> None:
    """The answer has begun and cannot go on: the caller must not take it for a whole one."""
    if request.transport is not None:
        request.transport.abort()
