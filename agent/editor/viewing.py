"""Pictures that ComfyUI's /view makes of a file where its query asks for them: `preview=FORMAT;QUALITY`, the same in
fewer bytes, and `channel=rgb` or `channel=a`, its colours or its transparency alone.

As view_image in ComfyUI's server.py (0.3.64) makes them, but that a quality is at most 100.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from PIL import Image

#: ComfyUI's own.
USUAL_QUALITY = 90


class Rendering(NamedTuple):
    """A way to show a picture: the media type that it then has, and what makes it. The latter takes a while, and raises
    whatever Pillow meets in a file that it cannot read."""

    media_type: str
    render: Callable[[bytes], bytes]


def rendering_of(query: Mapping[str, str]) -> Rendering | None:
    """What the query of a request to /view asks for; None for the file as it is. Nothing in it is wrong for ComfyUI."""
    channel = query.get("channel", "")
    if "preview" in query:
        words = query["preview"].split(";")
        form = "jpeg" if words[0] == "jpeg" and "a" not in channel else "webp"
        quality = int(words[-1]) if re.fullmatch("[0-9]{1,3}", words[-1]) else USUAL_QUALITY
        is_opaque = form == "jpeg" or channel == "rgb"
        return Rendering(
            f"image/{form}", partial(_preview, form=form, quality=min(quality, 100), is_opaque=is_opaque)
        )
    if channel == "rgb":
        return Rendering("image/png", _colors)
    if channel == "a":
        return Rendering("image/png", _transparency)
    return None


def _preview(data: bytes, form: str, quality: int, *, is_opaque: bool) -> bytes:
    with _open(data) as picture:
        return _write(picture.convert("RGB") if is_opaque else picture, form, quality=quality)


def _colors(data: bytes) -> bytes:
    with _open(data) as picture:
        return _write(picture.convert("RGB"), "PNG", compress_level=1)


def _transparency(data: bytes) -> bytes:
    """The alpha channel of a picture that has one, above black; another picture is opaque all over."""
    from PIL import Image  # noqa: PLC0415

    with _open(data) as picture:
        alpha = picture.getchannel("A") if picture.mode == "RGBA" else Image.new("L", picture.size, 255)
        shown = Image.new("RGBA", picture.size)
        shown.putalpha(alpha)
        return _write(shown, "PNG", compress_level=1)


def _open(data: bytes) -> Image.Image:
    """Raises Unreadable, also for formats that outputs seldom have: some of Pillow's run interpreters."""
    from agent.safety.picture import open_picture  # noqa: PLC0415 - keeps the start of the process light

    return open_picture(data)


def _write(picture: Image.Image, form: str, **encoding: int) -> bytes:
    out = io.BytesIO()
    picture.save(out, form, **encoding)
    return out.getvalue()
