"""Passes requests on to ComfyUI's own routes, for programs that were written for ComfyUI: a page that uploads a photo,
reads the list of nodes, or shows a file by its name.

Nothing is passed on unless AGENT_PASS_THROUGH names the route, and only routes can be named that read, or that upload
an input file: what runs, cancels or forgets work goes through the tasks.
"""

from __future__ import annotations

import io

import aiohttp
import structlog
from aiohttp import web

from agent.api.slow import SlowReader, cut_off, reading_limit
from agent.errors import EngineUnavailable, NotFound

log = structlog.get_logger(__name__)

CONNECT_SECONDS = 10

#: An instance that was frozen wakes up to connections that are dead without a sign: only fresh ones are used again.
IDLE_SECONDS = 3

#: How long ComfyUI may be silent within an answer. /object_info takes seconds where there are many custom nodes.
SILENCE_SECONDS = 60

#: What of the request ComfyUI is told.
REQUEST_HEADERS = ("Accept", "Range", "If-None-Match", "Comfy-User")

#: What of its answer the caller is told.
ANSWER_HEADERS = (
    "Content-Type",
    "Content-Length",
    "Content-Disposition",
    "Content-Range",
    "ETag",
    "Cache-Control",
)

#: Files may hold scripts, and shall not run in the origin of our pages.
SANDBOX = {"Content-Security-Policy": "sandbox; default-src 'none'", "X-Content-Type-Options": "nosniff"}

#: ComfyUI's own editor, where the operator opens it. Nobody else's page may frame it.
OWN = {"Content-Security-Policy": "frame-ancestors 'self'", "X-Content-Type-Options": "nosniff"}


class Passage:
    """The way to ComfyUI, or, on a front, to the engine function, with its credentials. Answers are passed on piece by
    piece."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self._url, self._headers = url.rstrip("/"), headers
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def pass_on(
        self,
        request: web.Request,
        body: aiohttp.MultipartWriter | bytes | None = None,
        *,
        path: str | None = None,
        is_ours: bool = False,
    ) -> web.StreamResponse:
        """Ask ComfyUI the same with this body; `path` is what it is asked for instead, with its query. `is_ours`: the
        file may run in the origin of our pages, as ComfyUI's own editor must.

        Raises NotFound, EngineUnavailable.
        """
        if any(name in (".", "..") for name in request.match_info.values()):
            raise NotFound  # on the way it would come to be another route
        headers = {name: request.headers[name] for name in REQUEST_HEADERS if name in request.headers}
        try:
            async with self._open().request(
                request.method,
                f"{self._url}{request.rel_url if path is None else path}",
                headers={**headers, **self._headers},
                data=io.BytesIO(body) if isinstance(body, bytes) else body,
                allow_redirects=False,
            ) as answer:
                return await _relay(request, answer, OWN if is_ours else SANDBOX)
        except (aiohttp.ClientError, TimeoutError) as exc:
            raise EngineUnavailable(f"ComfyUI did not answer: {type(exc).__name__}.") from None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers={"Accept-Encoding": "identity"},  # the library would ask for packed answers
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS
                ),
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return self._session


async def _relay(
    request: web.Request, answer: aiohttp.ClientResponse, guard: dict[str, str]
) -> web.StreamResponse:
    headers = {name: answer.headers[name] for name in ANSWER_HEADERS if name in answer.headers}
    response = web.StreamResponse(status=answer.status, headers={**headers, **guard})
    await response.prepare(request)
    try:
        async for piece in answer.content.iter_any():
            async with reading_limit():
                await response.write(piece)
        async with reading_limit():
            await response.write_eof()
    except SlowReader:
        cut_off(request)
    except (aiohttp.ClientError, TimeoutError) as exc:
        # The answer has begun: only a connection that breaks can say that the rest is missing.
        log.warning("passage.broken_off", path=request.rel_url.raw_path, reason=type(exc).__name__)
        cut_off(request)
    return response
