"""PNG files to send around, the same ones in every run."""

from __future__ import annotations

import io
import itertools
import random
import struct
import zlib
from functools import cache

from PIL import Image, ImageChops

SIGNATURE = b"\x89PNG\r\n\x1a\n"

#: Where the first chunk, IHDR, ends.
_AFTER_HEADER = 33

_numbers = itertools.count()


@cache
def photo(side: int = 1024) -> bytes:
    """A square picture that packs as photographs do: about 1.3 MB at the default size, one megapixel."""
    size = (side, side)
    bands = [Image.linear_gradient("L").resize(size), Image.radial_gradient("L").resize(size)]
    smooth = Image.merge("RGB", [*bands, bands[0].transpose(Image.Transpose.ROTATE_90)])
    grain = _noise(side).point(lambda value: value >> 5)
    return _png(ImageChops.add(smooth, grain), level=6)


@cache
def noise_of(megabytes: float) -> bytes:
    """A square picture whose file has so many million bytes, which nothing packs any smaller."""
    return _png(_noise(round((megabytes * 1e6 / 3) ** 0.5)), level=1)


def new_variant(picture: bytes) -> bytes:
    """The same picture with another text in it: a file that neither the agent nor ComfyUI has seen before."""
    body = b"tEXtvariant\0%d" % next(_numbers)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return picture[:_AFTER_HEADER] + chunk + picture[_AFTER_HEADER:]


def _noise(side: int) -> Image.Image:
    return Image.frombytes("RGB", (side, side), random.Random(side).randbytes(side * side * 3))  # noqa: S311 - no secret


def _png(image: Image.Image, level: int) -> bytes:
    written = io.BytesIO()
    image.save(written, "PNG", compress_level=level)
    return written.getvalue()
