"""Bodies that come packed, with a Content-Encoding.

The web server leaves them as they are (agent/serve.py). It would unpack whatever arrives on the event loop, for callers
without a key too, and go on with that for ten seconds after a refusal: of 8 MB, 8 GB.
"""

from __future__ import annotations

import zlib

from aiohttp import hdrs, web

from agent.errors import InvalidRequest

#: Encodings that nothing here unpacks. Others have no meaning, as in `Content-Encoding: utf-8`.
UNKNOWN = ("br", "compress", "zstd")

#: zlib's words for what a stream has around it: a gzip header, zlib's own, nothing.
GZIP, ZLIB, BARE = 31, 15, -15

#: The lower half of zlib's first byte.
DEFLATED = 8


def packing_of(request: web.Request) -> str | None:
    """How the body is packed: gzip or deflate; None: not at all. Raises InvalidRequest for another one."""
    encoding = request.headers.get(hdrs.CONTENT_ENCODING, "").strip().lower()
    if encoding in UNKNOWN:
        raise InvalidRequest(
            f"Content-Encoding {encoding} is not understood here. Send the body as it is, or as gzip."
        )
    return encoding if encoding in ("gzip", "deflate") else None


def unpack(body: bytes, packing: str, limit: int) -> bytes:
    """Takes a while for megabytes. Raises HTTPRequestEntityTooLarge for more than `limit` bytes, and InvalidRequest."""
    kind = GZIP if packing == "gzip" else ZLIB if body[:1] and body[0] & 0xF == DEFLATED else BARE
    unpacker = zlib.decompressobj(kind)
    try:
        found = unpacker.decompress(body, limit + 1)
    except zlib.error:
        found = None
    if found is not None and len(found) > limit:
        raise web.HTTPRequestEntityTooLarge(limit, len(found))
    if found is None or not unpacker.eof or unpacker.unused_data:
        raise InvalidRequest(f"The body is not what its Content-Encoding says: {packing}.")
    return found
