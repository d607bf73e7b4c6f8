"""Opens pictures that runs have made, so that they can be judged, marked or converted: a few formats alone, and no more
pixels than their user decodes. Everything here takes a while: use a thread."""

from __future__ import annotations

import io
from collections.abc import Callable, Generator
from typing import NamedTuple

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

#: Of an animation so many frames are looked at, the first and the last among them.
MOST_FRAMES = 5

#: All frames of an animation may have so many times the pixels of a picture: they are decoded one after the other.
ANIMATION_PICTURES = 10

#: What lies under transparent pixels: neither black nor white, so that a figure of one colour shows on it.
UNDER_TRANSPARENT = (128, 128, 128, 255)

#: The classes rather than Image.open, whose guard against decompression bombs is a process-wide number: what ComfyUI
#: has made may have more pixels than a stranger's file should. Format -> class.
OPENERS: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
}


class Unreadable(Exception):
    """It is no picture that can be looked at: broken, or of another format."""


class TooManyPixels(Unreadable):
    """The picture is larger than is decoded. The text says how large, and how large it may be."""


def open_picture(data: bytes, most_pixels: int | None = None) -> ImageFile.ImageFile:
    """The picture, of which nothing is decoded yet; its `format` is one of OPENERS. Close it. `most_pixels`: None for
    any. Raises Unreadable, TooManyPixels."""
    kind = _format(data)
    if kind is None:
        raise Unreadable
    try:
        picture = OPENERS[kind](io.BytesIO(data))
    except Exception as exc:
        raise Unreadable from exc
    if most_pixels is not None and picture.width * picture.height > most_pixels:
        picture.close()
        raise TooManyPixels(f"{picture.width} x {picture.height} pixels, more than {most_pixels}")
    return picture


def count_frames(picture: ImageFile.ImageFile, most_pixels: int | None = None) -> int:
    """How many frames there are. Raises TooManyPixels where all of them would take too long to decode."""
    count = int(getattr(picture, "n_frames", 1))
    width, height = picture.size
    if most_pixels is not None and width * height * count > ANIMATION_PICTURES * most_pixels:
        raise TooManyPixels(
            f"{count} times {width} x {height} pixels, more than {ANIMATION_PICTURES} times {most_pixels}"
        )
    return count


class Shown(NamedTuple):
    """A frame in RGB as it is seen; and what lies under its transparent pixels, which whoever takes the alpha channel
    off sees. None where nothing is transparent."""

    frame: Image.Image
    under: Image.Image | None


def frames(data: bytes, most_pixels: int | None = None) -> Generator[Shown]:
    """The picture; of an animation some frames, spread over it, one after the other. Raises Unreadable,
    TooManyPixels."""
    with open_picture(data, most_pixels) as picture:
        try:
            last = count_frames(picture, most_pixels) - 1
            for index in sorted({round(step * last / (MOST_FRAMES - 1)) for step in range(MOST_FRAMES)}):
                picture.seek(index)
                yield Shown(to_rgb(picture), _under(picture))
        except Unreadable:
            raise
        except Exception as exc:
            raise Unreadable from exc


def _under(picture: Image.Image) -> Image.Image | None:
    if not picture.has_transparency_data:
        return None
    layer = picture.convert("RGBA")
    is_opaque = layer.getchannel("A").getextrema() == (255, 255)
    return None if is_opaque else layer.convert("RGB")


def to_rgb(picture: Image.Image) -> Image.Image:
    """As it is seen on gray; a copy."""
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        shown = Image.new("RGBA", layer.size, UNDER_TRANSPARENT)
        shown.alpha_composite(layer)
        return shown.convert("RGB")
    if picture.mode.startswith(("I", "F")):  # 16 bits, or numbers from 0 to 1, which Pillow would cut off
        scale = 255.0 if picture.mode.startswith("F") else 1 / 257
        picture = picture.convert("F").point(lambda value: value * scale).convert("L")
    return picture.convert("RGB")


def shrink(picture: Image.Image, longest: int) -> Image.Image:
    """The whole picture, no side longer than this."""
    if max(picture.size) <= longest:
        return picture
    small = picture.copy()
    small.thumbnail((longest, longest), Image.Resampling.BILINEAR, reducing_gap=2)
    return small


def to_jpeg(picture: Image.Image, quality: int = 90) -> bytes:
    """An RGB picture as JPEG."""
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return out.getvalue()


def _format(data: bytes) -> str | None:
    """By the first bytes, not by the name."""
    head = data[:16]
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith((b"II*\0", b"MM\0*")):
        return "TIFF"
    if head.startswith(b"BM"):
        return "BMP"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis", b"mif1", b"msf1"):
        return "AVIF"
    return None
