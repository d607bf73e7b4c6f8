"""A container for the tests of the platform itself: it says what it got, and misbehaves on request.

Its routes: anything (an echo as JSON), /slow?seconds=S, /status?code=N&fc=V, /large?bytes=N, /headers?bytes=N, /secrets,
/ticks, /socket, /exit. HEALTH and INITIALIZE in the environment are the statuses of the two checks.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from aiohttp import WSMsgType, web

#: Statuses that /initialize has answered so far.
initialized: list[int] = []


async def echo(request: web.Request) -> web.Response:
    body = await request.read()
    about: dict[str, Any] = {
        "instance": os.environ["FC_INSTANCE_ID"],
        "path": request.path_qs,
        "headers": {
            name.lower(): value for name, value in request.headers.items() if "access-key" not in name.lower()
        },
        "names": [name.lower() for name in request.headers],
        "bytes": len(body),
        "initialized": initialized,
    }
    about["headers"].pop("x-fc-security-token", None)
    return web.json_response(
        about, headers={"X-Own": "passes", "X-Fc-Made-Up": "dropped", "Keep-Alive": "dropped"}
    )


async def slow(request: web.Request) -> web.Response:
    print("began", flush=True)
    try:
        await asyncio.sleep(float(request.query["seconds"]))
    except asyncio.CancelledError:
        print("closed by the platform", flush=True)
        raise
    return await echo(request)


async def status(request: web.Request) -> web.Response:
    headers = {"x-fc-status": request.query["fc"]} if "fc" in request.query else {}
    return web.Response(status=int(request.query["code"]), headers=headers)


async def large(request: web.Request) -> web.Response:
    return web.Response(body=bytes(int(request.query["bytes"])))


async def headers(request: web.Request) -> web.Response:
    return web.Response(headers={"X-Long": "x" * int(request.query["bytes"])})


async def secrets(request: web.Request) -> web.Response:
    """What no container should ever do."""
    return web.Response(text=request.headers["x-fc-access-key-secret"])


async def ticks(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for number in range(3):
        await response.write(b"data: %d\n\n" % number)
        await asyncio.sleep(0.05)  # so that the parts travel one by one
    return response


async def socket(request: web.Request) -> web.WebSocketResponse:
    response = web.WebSocketResponse()
    await response.prepare(request)
    async for message in response:
        if message.type is WSMsgType.TEXT:
            await response.send_str(message.data.upper())
        else:
            await response.send_bytes(message.data[::-1])
    return response


async def leave(_request: web.Request) -> web.Response:
    os._exit(3)


async def healthz(_request: web.Request) -> web.Response:
    return web.Response(status=int(os.environ.get("HEALTH", "200")))


async def initialize(_request: web.Request) -> web.Response:
    """Answers INITIALIZE the first time, 200 afterwards."""
    initialized.append(200 if initialized else int(os.environ.get("INITIALIZE", "200")))
    return web.Response(status=initialized[-1])


def main() -> None:
    app = web.Application(client_max_size=2**30)
    for handler in (slow, status, large, headers, secrets, ticks, socket, healthz):
        app.router.add_get(f"/{handler.__name__}", handler)
    app.router.add_post("/status", status)
    app.router.add_post("/slow", slow)
    app.router.add_post("/initialize", initialize)
    app.router.add_route("*", "/exit", leave)
    app.router.add_route("*", "/{path:.*}", echo)
    port = int(os.environ["FC_CUSTOM_LISTEN_PORT"])
    web.run_app(
        app, host="127.0.0.1", port=port, keepalive_timeout=960, print=None, handler_cancellation=True
    )


if __name__ == "__main__":
    main()
