"""Function Compute's lifecycle hooks: POST /initialize before the first request, GET /pre-stop before the end."""

from __future__ import annotations

import time
from ipaddress import ip_address

import structlog
from aiohttp import web

from agent.api.access import shown_key
from agent.api.endpoint import Answer, Endpoint
from agent.api.keys import API_KEYS, ENGINE, RUNNER, SETTINGS, TRACES, WARM_UP
from agent.api.models import Status
from agent.api.render import json_response
from agent.errors import EngineFailed, HookNotAllowed
from comfyui.engine import EngineState
from comfyui.errors import EngineFailedError

log = structlog.get_logger(__name__)

#: Routes that the platform calls without our API key.
HOOK_PATHS = ("/initialize", "/pre-stop")

#: The platform gives the initializer 300 seconds, and counts an error against the caller.
INITIALIZE_SECONDS = 270


async def initialize(request: web.Request) -> web.Response:
    """Wait for the engine, and for the warm-up workflow where there is one. Either of them may need longer than the
    platform waits, which is no error: the first task will wait for it too. May be called again, also meanwhile.

    An engine that cannot start is a 500, upon which the platform replaces the instance.
    """
    _check_caller(request)
    engine = request.app.get(ENGINE)
    if engine is None:  # a front has nothing to wait for
        return json_response({"status": "ok"})
    warm_up = request.app[WARM_UP]
    deadline = time.monotonic() + INITIALIZE_SECONDS
    try:
        await engine.wait_ready(INITIALIZE_SECONDS)
    except EngineFailedError as exc:
        if engine.state is EngineState.FAILED:
            reason = str(exc).partition("\n")[0]
            raise EngineFailed(f"ComfyUI cannot be started: {reason}") from None
    is_over = await warm_up.wait(max(0, deadline - time.monotonic()))
    if not is_over:
        log.warning("warm_up.unfinished", note="the platform waits no longer; the first task will")
    return json_response({"status": "ok", "engine": engine.state, "warming_up": not is_over})


async def pre_stop(request: web.Request) -> web.Response:
    """Take no more tasks, and answer when those that run have finished or were put back."""
    _check_caller(request)
    await drain(request.app)
    return json_response({"status": "ok"})


async def drain(app: web.Application) -> None:
    """Let tasks finish, put the others back. A front has no warm-up that would have to give way to them."""
    if warm_up := app.get(WARM_UP):
        await warm_up.stop()
    await app[RUNNER].drain()
    await app[TRACES].flush()


def _check_caller(request: web.Request) -> None:
    """The platform names the hook in a header that its gateway lets no caller set. Without it only programs on this
    machine may call, and they need a key where there are any, since a proxy on this machine looks like one of them:
    neither strangers nor a web page in somebody's browser shall drain the instance."""
    control_path = request.headers.get("x-fc-control-path")
    if request.app[SETTINGS].behind_gateway and control_path is not None:
        is_allowed = control_path == request.path
    else:
        knows_key = not request.app[API_KEYS] or shown_key(request) is not None
        is_allowed = knows_key and _is_loopback(request.remote) and "Sec-Fetch-Site" not in request.headers
    if not is_allowed:
        raise HookNotAllowed


def _is_loopback(address: str | None) -> bool:
    try:
        return ip_address(address or "").is_loopback
    except ValueError:
        return False


ENDPOINTS = [
    Endpoint("POST", "/initialize", initialize, {200: Answer("Initialized.", Status)}, tag="platform"),
    Endpoint("GET", "/pre-stop", pre_stop, {200: Answer("Drained.", Status)}, tag="platform"),
]
