"""What browsers load: the document of the HTTP interface, as a page, and the files that pages consist of.

None of it is secret, and a browser cannot send an API key when it opens a page: these routes are open to everybody.
Everything comes from this server; the Content-Security-Policy holds the pages to that. Pictures alone may also come
from the object store, where outputs are kept there.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from pathlib import Path

from aiohttp import web

from agent.api.keys import BOARD
from agent.errors import NotFound, ObjectStoreUnavailable

STATIC = Path(__file__).parent.parent / "static"

#: Where the files lie that pages load.
STATIC_PATH = "/static/"

#: Where ComfyUI's editor looks for its icons, wherever it is served itself; see agent/api/editor.py.
ICONS_PATH = "/assets/"

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Asked again each time, with an answer of 304 as long as the file is the same.
    "Cache-Control": "no-cache",
}


def headers(media_origin: str = "") -> dict[str, str]:
    """What goes with each file. `media_origin`: where pictures, videos and sounds may come from beside this server."""
    policy = (
        f"default-src 'self'; img-src 'self' data: blob: {media_origin}; media-src 'self' blob: {media_origin}; "
        "style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
    )
    return {**HEADERS, "Content-Security-Policy": policy.replace(" ;", ";")}


async def show_page(request: web.Request) -> web.StreamResponse:
    """The page: run workflows, see what comes of them."""
    objects = request.app[BOARD].objects
    origin = ""
    if objects is not None:
        with suppress(ObjectStoreUnavailable):  # then there are no links to its pictures either
            origin = await objects.origin()
    return web.FileResponse(STATIC / "index.html", headers=headers(origin))


async def show_docs(_request: web.Request) -> web.StreamResponse:
    """The HTTP interface, to read and to try."""
    return web.FileResponse(STATIC / "docs.html", headers=headers())


async def fetch_file(request: web.Request) -> web.StreamResponse:
    """A file that belongs to a page."""
    path = _files().get(request.match_info["path"])
    if path is None:
        raise NotFound
    return web.FileResponse(path, headers=headers())


@cache
def _files() -> dict[str, Path]:
    """All there are, by their names: what is asked for is looked up, and never becomes a part of a path."""
    return {path.relative_to(STATIC).as_posix(): path for path in STATIC.rglob("*") if path.is_file()}


def is_open(path: str) -> bool:
    """Whether a route of this module is asked, the document that its page shows, or an icon."""
    return path in ("/", "/docs", "/openapi.json") or path.startswith((STATIC_PATH, ICONS_PATH))


ROUTES = [
    web.get("/", show_page),
    web.get("/docs", show_docs),
    web.get(STATIC_PATH + "{path:.+}", fetch_file),
]
