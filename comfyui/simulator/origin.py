"""The Host/Origin check that keeps foreign web pages out, and the CORS headers that replace it."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.typedefs import Middleware

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def is_foreign(host: str | None, origin: str | None) -> bool:
    """Whether a page of another origin asks a server on a loopback address; without both headers nothing does."""
    if host is None or origin is None:
        return False
    own, other = urlsplit(f"//{host.lower()}"), urlsplit(origin.lower())
    if not own.hostname or not other.hostname or not _is_loopback(own.hostname):
        return False
    if own.port is None or other.port is None:
        return own.hostname != other.hostname
    return (own.hostname, own.port) != (other.hostname, other.port)


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def origin_guard() -> Middleware:
    """403 for foreign pages; OPTIONS is always answered."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if is_foreign(request.headers.get("Host"), request.headers.get("Origin")):
            return web.Response(status=403)
        return web.Response() if request.method == "OPTIONS" else await handler(request)

    return guard


def cors(origin: str) -> Middleware:
    """The headers that let pages of `origin` in, on every answer that is not an error of aiohttp's."""
    headers = {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Methods": "POST, GET, DELETE, PUT, OPTIONS",
        "Access-Control-Allow-Headers": "Content-Type, Authorization",
        "Access-Control-Allow-Credentials": "true",
    }

    @web.middleware
    async def allow(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = web.Response() if request.method == "OPTIONS" else await handler(request)
        if not response.prepared:
            response.headers.update(headers)
        return response

    return allow
