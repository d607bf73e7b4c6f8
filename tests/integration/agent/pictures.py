"""Pictures to send, and what to look at in those that come back."""

from __future__ import annotations

import base64
import io
import wave
from typing import Any

from PIL import Image

Color = tuple[int, ...]


def picture(color: Any = (255, 0, 0), size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Image.Image:
    return Image.new(mode, size, color)


def encode(image: Image.Image, kind: str = "PNG", **how: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def png(color: Any = (255, 0, 0), size: tuple[int, int] = (8, 8)) -> bytes:
    return encode(picture(color, size))


def animation(kind: str = "GIF") -> bytes:
    first, *rest = (picture(c) for c in ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
    return encode(first, kind, save_all=True, append_images=rest, duration=100, loop=0)


def sound() -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(1600))
    return buffer.getvalue()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def unb64(text: str) -> bytes:
    """Strictly: padding is there and nothing else is."""
    return base64.b64decode(text, validate=True)


def look(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def color_of(data: bytes) -> Color:
    """The one colour that the whole picture has."""
    colors = look(data).convert("RGB").getcolors(maxcolors=1)
    assert colors is not None, "the picture has more than one colour"
    color = colors[0][1]
    assert isinstance(color, tuple)
    return color
