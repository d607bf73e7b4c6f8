"""Puts animations together frame by frame, so that two frames are in memory at a time and not all of them.

Pillow's own writers collect every frame first. Here each one is written as a picture of its own, of the part that
differs from the one before, and its data go into the animation's file.

https://www.w3.org/TR/png-3/#apng-frame-based-animation
https://developers.google.com/speed/webp/docs/riff_container#animation
"""

from __future__ import annotations

import io
import itertools
import struct
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

from agent.labels.png import SIGNATURE, PngFile, to_chunk
from agent.labels.webp import HAS_ALPHA, IS_ANIMATED, WebpFile

if TYPE_CHECKING:
    from PIL import Image

#: A frame's part replaces what was there, and stays.
WEBP_REPLACE = 0x02
PNG_KEEP, PNG_REPLACE = 0, 0

#: The chunks of a WebP with one picture that become those of a frame.
WEBP_FRAME = (b"ALPH", b"VP8 ", b"VP8L")

LARGEST_16, LARGEST_24 = 0xFFFF, 0xFFFFFF


class Frame(NamedTuple):
    """A frame as it is shown, and for how many milliseconds. All of an animation have the same size and mode."""

    picture: Image.Image
    duration: float


class _Part(NamedTuple):
    """What of a frame differs from the one before, and where it is."""

    picture: Image.Image
    left: int
    top: int
    duration: float


def write_png(
    frames: Iterable[Frame], count: int, *, loop: int, has_default: bool, how: dict[str, Any]
) -> bytes:
    """An APNG. `count`: of all frames; `has_default`: the first is only shown where animations are not; `how`: further
    parameters of Pillow."""
    chunks = [SIGNATURE]
    numbers = itertools.count()
    for index, part in enumerate(_parts(frames, 1, is_first_apart=has_default)):
        encoded = PngFile.parse(_encode(part.picture, "PNG", how))
        if index == 0:
            chunks.append(encoded.chunk(b"IHDR"))
            chunks.append(to_chunk(b"acTL", struct.pack(">II", count - has_default, loop)))
        if index > 0 or not has_default:
            chunks.append(to_chunk(b"fcTL", struct.pack(">I", next(numbers)) + _control(part)))
        for data in encoded.bodies(b"IDAT"):
            if index == 0:
                chunks.append(to_chunk(b"IDAT", data))
            else:
                chunks.append(to_chunk(b"fdAT", struct.pack(">I", next(numbers)) + data))
    chunks.append(to_chunk(b"IEND", b""))
    return b"".join(chunks)


def write_webp(frames: Iterable[Frame], *, loop: int, how: dict[str, Any]) -> bytes:
    """An animated WebP. `how`: further parameters of Pillow."""
    chunks: list[tuple[bytes, memoryview]] = []
    size, has_alpha = (1, 1), False
    for part in _parts(frames, 2):
        if not chunks:
            size, has_alpha = part.picture.size, part.picture.mode == "RGBA"
        encoded = WebpFile.parse(_encode(part.picture, "WEBP", how))
        inner = WebpFile([chunk for chunk in encoded.chunks if chunk[0] in WEBP_FRAME]).to_bytes()[12:]
        width, height = part.picture.size
        duration = min(round(part.duration), LARGEST_24)
        places = (part.left // 2, part.top // 2, width - 1, height - 1, duration)
        head = b"".join(number.to_bytes(3, "little") for number in places) + bytes((WEBP_REPLACE,))
        chunks.append((b"ANMF", memoryview(head + inner)))
    flags = IS_ANIMATED | (HAS_ALPHA if has_alpha else 0)
    canvas = b"".join((side - 1).to_bytes(3, "little") for side in size)
    background = bytes(4)
    before = [
        (b"VP8X", memoryview(bytes((flags, 0, 0, 0)) + canvas)),
        (b"ANIM", memoryview(background + min(loop, LARGEST_16).to_bytes(2, "little"))),
    ]
    return WebpFile([*before, *chunks]).to_bytes()


def _parts(frames: Iterable[Frame], grid: int, *, is_first_apart: bool = False) -> Iterator[_Part]:
    """What is to be written of each frame; left and top are multiples of `grid`. `is_first_apart`: the second does not
    follow upon it."""
    from PIL import ImageChops  # noqa: PLC0415 - Pillow

    before: Image.Image | None = None
    for index, (picture, duration) in enumerate(frames):
        if before is None or (index == 1 and is_first_apart):
            yield _Part(picture, 0, 0, duration)
        else:
            changed = ImageChops.difference(before, picture).getbbox(alpha_only=False) or (0, 0, 1, 1)
            left, top = changed[0] // grid * grid, changed[1] // grid * grid
            yield _Part(picture.crop((left, top, *changed[2:])), left, top, duration)
        before = picture


def _encode(picture: Image.Image, kind: str, how: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **how)
    return out.getvalue()


def _control(part: _Part) -> bytes:
    """What stands in fcTL behind the number."""
    delay = Fraction(part.duration / 1000).limit_denominator(LARGEST_16)
    times = min(delay.numerator, LARGEST_16), delay.denominator
    return struct.pack(">IIIIHHBB", *part.picture.size, part.left, part.top, *times, PNG_KEEP, PNG_REPLACE)
