"""Inputs that travel inside the workflow: base64 and data URIs, decoded strictly.

Everything here is plain CPU work; run it in a thread for more than a few hundred kilobytes. No error repeats
the value beyond its first 16 characters.
"""

from __future__ import annotations

import binascii
import re
import urllib.parse
from contextlib import suppress

import pybase64

from agent.errors import InputTooLarge, InvalidInput

_SPACE = b" \t\r\n\f\v"
_TO_STANDARD = bytes.maketrans(b"-_", b"+/")

#: No path that ComfyUI could open is longer, and hardly a file name without a dot is as long as the second.
_LONGEST_PATH = 1024
_SHORTEST_CERTAIN = 64
_STANDARD_OR_URL_SAFE = re.compile(r"(?:[A-Za-z0-9+/\s]+|[A-Za-z0-9_\-\s]+)(?:=\s*){0,2}")
#: Beginnings of PNG, JPEG, GIF, RIFF (WebP, WAV) and Ogg files: pictures of a few pixels are short.
_KNOWN_BEGINNINGS = ("iVBORw0KGgo", "/9j/", "_9j_", "R0lGOD", "UklGR", "T2dnUw")

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ESCAPE_STEP = 65_536


def looks_like_base64(text: str) -> bool:
    """Tell base64 from the name of a file that the engine already has. Quick for any length.

    A text too long for a path counts as base64 whatever it holds: the strict decoder then says what is wrong.
    """
    if len(text) > _LONGEST_PATH:
        return True
    if not _STANDARD_OR_URL_SAFE.fullmatch(text):
        return False
    return len(text) >= _SHORTEST_CERTAIN or text.lstrip().startswith(_KNOWN_BEGINNINGS)


def decode_base64(text: str, max_bytes: int) -> bytes:
    """Decode base64 in the standard or the URL-safe alphabet, padded or not, white space anywhere.

    Raises InvalidInput for anything else in the text, InputTooLarge for a result over `max_bytes`.
    """
    if len(text) * 3 // 4 <= max_bytes:
        with suppress(
            ValueError
        ):  # the usual form needs no other one; binascii.Error is one, and so is other text
            if data := pybase64.b64decode(text, validate=True):
                return data
    if not text.isascii():
        raise _not_base64(text)
    digits = text.encode("ascii").translate(None, _SPACE)
    if not digits:
        raise InvalidInput("The base64 input is empty.")
    if b"-" in digits or b"_" in digits:
        if b"+" in digits or b"/" in digits:
            raise _not_base64(text)
        digits = digits.translate(_TO_STANDARD)
    unpadded = digits.rstrip(b"=")
    _check_size(len(unpadded) * 3 // 4, max_bytes)
    padding = -len(unpadded) % 4
    if padding == 3 or len(digits) - len(unpadded) not in (0, padding):
        raise _not_base64(text)
    try:
        return pybase64.b64decode(unpadded + b"=" * padding, validate=True)
    except binascii.Error:
        raise _not_base64(text) from None


def parse_data_uri(text: str, max_bytes: int) -> tuple[str, bytes]:
    """Read `data:[<media type>][;parameters][;base64],<data>`: the media type, lower case, and the data.

    Without a media type it is text/plain (RFC 2397). Raises InvalidInput, and InputTooLarge for data over
    `max_bytes`.
    """
    text = text.lstrip()
    comma = text.find(",")
    if text[:5].lower() != "data:" or comma < 0:
        raise InvalidInput(f"The input is not a data URI: no comma ends its head. {_excerpt(text)}")
    media_type, *parameters = (part.strip().lower() for part in text[5:comma].split(";"))
    payload = text[comma + 1 :]
    if "base64" not in parameters:
        return media_type or "text/plain", _percent_decoded(payload, max_bytes)
    if "%" in payload:
        # Percent signs are legal here too: some callers escape "+", "/" and "=".
        payload = _percent_decoded(payload, len(payload)).decode("latin-1")
    return media_type or "text/plain", decode_base64(payload, max_bytes)


def _percent_decoded(text: str, max_bytes: int) -> bytes:
    if not text.isascii() or _BAD_ESCAPE.search(text):
        raise InvalidInput(f"The data URI's text is not percent-encoded. {_excerpt(text)}")
    _check_size(len(text) - 2 * text.count("%"), max_bytes)
    # In steps, because the decoder makes an object for each escape: a hundred times the size of the text.
    decoded, position = bytearray(), 0
    while position < len(text):
        end = position + _ESCAPE_STEP
        escape = text.rfind("%", end - 2, end)
        end = escape if escape >= 0 else end
        decoded += urllib.parse.unquote_to_bytes(text[position:end])
        position = end
    return bytes(decoded)


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise InputTooLarge(
            f"The input file has {size} bytes, more than {max_bytes}. "
            "Send a smaller one or raise AGENT_MAX_INPUT_BYTES.",
            limit=max_bytes,
        )


def _not_base64(text: str) -> InvalidInput:
    return InvalidInput(f"The input is neither a URL, a data URI nor base64. {_excerpt(text)}")


def _excerpt(text: str) -> str:
    return f"It begins with {text[:16]!r} and has {len(text)} characters."
