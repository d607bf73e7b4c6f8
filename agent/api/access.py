"""Which of the API keys a request shows."""

from __future__ import annotations

import base64
import binascii
import hmac

from aiohttp import web

from agent.api.facades import facade_of
from agent.api.keys import API_KEYS, SETTINGS


def shown_key(request: web.Request) -> bytes | None:
    """The key that the request shows, compared in constant time; None for one that shows none of ours.

    It is the bearer's token or stands in X-Api-Key: the platform uses Authorization too. Some clients of other APIs
    know it as the password of HTTP Basic, whose user may be anybody.
    """
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    given = [request.headers.get("X-Api-Key", ""), token if scheme.lower() == "bearer" else ""]
    if scheme.lower() == "basic" and (facade := facade_of(request)) is not None and facade.takes_password:
        given.append(_password(token))
    if request.app[SETTINGS].serves_comfyui_clients:
        given.append(_key_of_editor(request))
    found = None
    for key in request.app[API_KEYS]:
        for candidate in given:
            if hmac.compare_digest(key, candidate.encode(errors="surrogateescape")):
                found = key
    return found


def _password(token: str) -> str:
    try:
        decoded = base64.b64decode(token, validate=True).decode(errors="surrogateescape")
    except (binascii.Error, ValueError):
        return ""
    return decoded.partition(":")[2]


def _key_of_editor(request: web.Request) -> str:
    from agent.api.editor import key_of  # noqa: PLC0415 - is there only where it is open

    return key_of(request)
