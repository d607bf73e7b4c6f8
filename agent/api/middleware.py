"""What holds on every route: one form of error, who may call, and from which pages."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import structlog
from aiohttp import web

from agent.api.hooks import HOOK_PATHS
from agent.api.keys import API_KEYS, SETTINGS
from agent.api.render import error_response
from agent.errors import (
    AgentError,
    BodyTooLarge,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    OriginNotAllowed,
    Unauthorized,
)

log = structlog.get_logger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: Platforms ask these without credentials; the hooks check their caller themselves.
OPEN_PATHS = ("/healthz", "/readyz", *HOOK_PATHS)

#: Request headers that a page of another origin may set.
PAGE_HEADERS = ("Content-Type", "Authorization", "X-Api-Key", "task-id", "X-Fc-Invocation-Type")


@web.middleware
async def render_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give every error the form of design section 4, also those of unknown routes and of the web server itself."""
    try:
        return await handler(request)
    except AgentError as error:
        return error_response(error)
    except web.HTTPMethodNotAllowed as exc:
        allowed = ", ".join(sorted(exc.allowed_methods))
        response = error_response(
            MethodNotAllowed(f"{request.method} is not for this route; it takes {allowed}.")
        )
        response.headers["Allow"] = allowed
        return response
    except web.HTTPNotFound:
        return error_response(NotFound())
    except web.HTTPRequestEntityTooLarge:
        return error_response(BodyTooLarge())
    except web.HTTPException as exc:
        return error_response(InvalidRequest(exc.reason) if exc.status < 500 else InternalError())
    except ConnectionError:
        raise  # the caller is gone
    except Exception:
        log.exception("request.crashed", method=request.method, path=request.path)
        return error_response(InternalError())


@web.middleware
async def check_key(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Where keys are configured, a request needs one. Both headers count: the platform uses Authorization too."""
    keys = request.app[API_KEYS]
    if keys and request.path not in OPEN_PATHS:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        given = [request.headers.get("X-Api-Key", ""), token if scheme.lower() == "bearer" else ""]
        matches = [
            hmac.compare_digest(key, candidate.encode(errors="surrogateescape"))
            for key in keys
            for candidate in given
        ]
        if not any(matches):
            raise Unauthorized
    return await handler(request)


@web.middleware
async def check_origin(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let only pages of our own origin and of configured ones in. Programs send no Origin and never meet this.

    A browser would send a foreign page's POST or WebSocket even where CORS hides the answer from it, and any page
    could spend the GPU.
    """
    if "Origin" in request.headers and not _is_own_page(request) and not _is_allowed_page(request):
        raise OriginNotAllowed
    if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
        if not _is_allowed_page(request):
            return await handler(request)
        return web.Response(
            status=204,
            headers={
                "Access-Control-Allow-Methods": "GET, POST, DELETE",
                "Access-Control-Allow-Headers": ", ".join(PAGE_HEADERS),
                "Access-Control-Max-Age": "600",
            },
        )
    return await handler(request)


async def show_to_page(request: web.Request, response: web.StreamResponse) -> None:
    """Let a configured page read the answer, errors and event streams included. A signal, not a middleware: what is
    streamed leaves before a middleware sees it."""
    if "Origin" in request.headers and _is_allowed_page(request):
        response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
        response.headers["Access-Control-Expose-Headers"] = "task-id, Location, Retry-After"
        response.headers["Vary"] = "Origin"


def _is_own_page(request: web.Request) -> bool:
    try:
        return urlsplit(request.headers["Origin"]).netloc == request.host
    except ValueError:
        return False


def _is_allowed_page(request: web.Request) -> bool:
    allowed = request.app[SETTINGS].cors_origins
    return "*" in allowed or request.headers.get("Origin") in allowed
