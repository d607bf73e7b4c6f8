"""What holds on every route: one form of error, who may call, and from which pages."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import structlog
from aiohttp import hdrs, web

from agent.api import pages
from agent.api.access import shown_key
from agent.api.facades import facade_of, is_keyless
from agent.api.hooks import HOOK_PATHS
from agent.api.keys import API_KEYS, FREEZES, METRICS, ORPHANS, SETTINGS, TRACES
from agent.api.render import ErrorResponse, error_response
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
from agent.traces import Span, entered

log = structlog.get_logger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: Platforms ask these without credentials; the hooks check their caller themselves.
OPEN_PATHS = ("/healthz", "/readyz", *HOOK_PATHS)

#: People open it in a browser, where they can set no header.
EDITOR_PATH = "/comfyui/"

#: Request headers that a page of another origin may set.
PAGE_HEADERS = ("Content-Type", "Authorization", "X-Api-Key", "task-id", "X-Fc-Invocation-Type", "Prefer")


#: Addresses that Function Compute gives; a domain of one's own is another one.
PLATFORMS_DOMAIN = ".fcapp.run"

#: The platform's ids are UUIDs, or a number, a dash and twelve more.
REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

#: As proxies call it: the caller left before there was an answer.
CALLER_LEFT = 499

#: The route of requests that match none.
NO_ROUTE = "none"

#: Platforms ask these every few seconds.
UNLOGGED_PATHS = ("/healthz", "/readyz")


@web.middleware
async def name_request(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Put the request's id into every log line that is written for it, by the task that it starts too, and write one
    line when it is over: before the answer leaves, since after it the instance may be frozen.

    The id is the platform's, so that its log and ours can be joined. It is the only one of the platform's headers
    that may be logged: others carry credentials. The caller's trace goes with it, and the request's span.
    """
    given = request.headers.get("x-fc-request-id", "")
    names = {"request_id": given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex}
    is_quiet, route = request.path in UNLOGGED_PATHS, _route_of(request)
    facts = {"http.request.method": request.method, "http.route": route, "request_id": names["request_id"]}
    traces = request.app[TRACES]
    span = Span() if is_quiet else traces.request(f"{request.method} {route}", request.headers, facts)
    if span.trace_id is not None:
        names["trace_id"] = span.trace_id
    with structlog.contextvars.bound_contextvars(**names), entered(span):
        request.app[FREEZES].check()
        began, status = time.monotonic(), CALLER_LEFT
        try:
            response = await handler(request)
            status = response.status
        finally:
            span.note({"http.response.status_code": status})
            span.end(f"HTTP {status}" if status >= 500 else None)
            if not is_quiet:
                _log_end(request, status, time.monotonic() - began)
    return response


def _route_of(request: web.Request) -> str:
    """The route as it is written, without what callers put into it."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else NO_ROUTE


def _log_end(request: web.Request, status: int, seconds: float) -> None:
    is_poll = (
        request.method in ("GET", "HEAD", "OPTIONS") and status < 500 and "Upgrade" not in request.headers
    )
    say = log.debug if is_poll and request.path not in HOOK_PATHS else log.info
    # The path as it was sent, so without line breaks; never the query, which may hold anything.
    path = request.rel_url.raw_path
    say("request.finished", method=request.method, path=path, status=status, seconds=round(seconds, 3))


@web.middleware
async def end_orphans(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Behind a platform, where an instance works only while a request is open: keep this one open while tasks are being
    ended that this instance has come upon. It seldom does."""
    response = await handler(request)
    if request.path not in OPEN_PATHS:
        await request.app[ORPHANS].rest()
    return response


@web.middleware
async def count_request(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count the request, and the time for which it is open."""
    metrics, response = request.app[METRICS], None
    metrics.request_began()
    try:
        response = await handler(request)
    finally:
        metrics.request_ended(
            request.method,
            _route_of(request),
            response.status if response is not None else CALLER_LEFT,
            code=getattr(response, "code", None) or None,
            read=request.content.total_bytes,
            sent=_body_bytes(response),
        )
    return response


def _body_bytes(response: web.StreamResponse | None) -> int:
    """Bytes of a body that was streamed, or is about to be sent; what goes over a WebSocket is not known."""
    if response is None or isinstance(response, web.WebSocketResponse):
        return 0
    return response.body_length or response.content_length or 0


@web.middleware
async def render_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give every error the form of design section 4, also those of unknown routes and of the web server itself."""
    try:
        return await handler(request)
    except AgentError as error:
        return _say(request, error)
    except web.HTTPMethodNotAllowed as exc:
        allowed = ", ".join(sorted(exc.allowed_methods))
        response = _say(
            request, MethodNotAllowed(f"{request.method} is not for this route; it takes {allowed}.")
        )
        response.headers["Allow"] = allowed
        return response
    except web.HTTPNotFound:
        return _say(request, NotFound())
    except web.HTTPRequestEntityTooLarge:
        return _say(request, BodyTooLarge())
    except web.HTTPException as exc:
        return _say(request, InvalidRequest(exc.reason) if exc.status < 500 else InternalError())
    except ConnectionError:
        raise  # the caller is gone
    except Exception:
        log.exception("request.crashed", method=request.method, path=request.path)
        return _say(request, InternalError())


def _say(request: web.Request, error: AgentError) -> ErrorResponse:
    """The error in the form of the API that the request speaks."""
    facade = facade_of(request)
    return error_response(error) if facade is None else facade.render_error(error)


@web.middleware
async def check_key(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Where keys are configured, a request needs one. Both headers count: the platform uses Authorization too."""
    is_open = request.path in OPEN_PATHS or pages.is_open(request.path) or is_keyless(request)
    if request.app[API_KEYS] and not is_open and shown_key(request) is None:
        if request.path == EDITOR_PATH and request.app[SETTINGS].serves_comfyui_clients:
            raise Unauthorized(
                f"An API key is needed. Open {EDITOR_PATH}?key=KEY once: a cookie keeps it then."
            )
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
        # Clients of other APIs send headers of their own, which mean nothing here.
        asked = request.headers.get("Access-Control-Request-Headers") if facade_of(request) else None
        return web.Response(
            status=204,
            headers={
                "Access-Control-Allow-Methods": "GET, POST, DELETE",
                "Access-Control-Allow-Headers": asked or ", ".join(PAGE_HEADERS),
                "Access-Control-Max-Age": "600",
            },
        )
    return await handler(request)


async def show_to_page(request: web.Request, response: web.StreamResponse) -> None:
    """Let a configured page read the answer, errors and event streams included. A signal, not a middleware: what is
    streamed leaves before a middleware sees it.

    Function Compute says so itself at the addresses that it gives, and a browser refuses an answer that says it twice.
    """
    if request.app[SETTINGS].behind_gateway and request.host.endswith(PLATFORMS_DOMAIN):
        return
    if "Origin" in request.headers and _is_allowed_page(request):
        response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
        response.headers["Access-Control-Expose-Headers"] = "task-id, Location, Retry-After, Content-Range"
        response.headers["Vary"] = "Origin"


async def keep_quiet(request: web.Request, response: web.StreamResponse) -> None:
    """Take away what the web server adds by itself: names and versions of its parts, and behind a gateway the date,
    neither of which a function on Function Compute may set. What is not HTTP at all is answered before any of this."""
    response.headers.pop(hdrs.SERVER, None)
    if request.app[SETTINGS].behind_gateway:
        response.headers.pop(hdrs.DATE, None)


def _is_own_page(request: web.Request) -> bool:
    try:
        return urlsplit(request.headers["Origin"]).netloc == request.host
    except ValueError:
        return False


def _is_allowed_page(request: web.Request) -> bool:
    allowed = request.app[SETTINGS].cors_origins
    return "*" in allowed or request.headers.get("Origin") in allowed
