"""Makes a picture of which nothing can be made out. Takes a while: use a thread."""

from __future__ import annotations

import io
from contextlib import closing

from PIL import Image, ImageFilter

from agent.safety.picture import frames, open_picture

#: So many pixels of its longer side are left of a picture before it is drawn large again.
DETAIL = 8

#: How the formats that lose something are written.
ENCODING: dict[str, dict[str, int]] = {
    "JPEG": {"quality": 85},
    "WEBP": {"quality": 85},
    "AVIF": {"quality": 60},
}


def blurred(data: bytes) -> bytes:
    """The picture in its own format and size, blurred: of an animation the first frame. Nothing else of the file stays,
    such as ComfyUI's own metadata. Raises Unreadable."""
    with open_picture(data) as picture:
        kind = picture.format or "PNG"
    with closing(frames(data)) as shown:
        first = next(shown).frame
    width, height = first.size
    scale = DETAIL / max(width, height)
    small = first.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.BOX)
    soft = small.filter(ImageFilter.GaussianBlur(1)).resize((width, height), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    soft.save(out, kind, **ENCODING.get(kind, {}))
    return out.getvalue()
