"""Pictures from and to plain numbers, for tests of nodes."""

from __future__ import annotations

from PIL import Image

from comfyui.simulator.nodes import node_classes
from comfyui.simulator.raster import Raster, from_image

CLASSES = node_classes(with_lab=True)

Pixel = tuple[int, ...]


def picture(*rows: list[Pixel]) -> Raster:
    """RGB or RGBA from 8-bit values."""
    mode = "RGB" if len(rows[0][0]) == 3 else "RGBA"
    image = Image.new(mode, (len(rows[0]), len(rows)))
    image.putdata([pixel for row in rows for pixel in row])
    return from_image(image)


def mask(*rows: list[float]) -> Raster:
    band = Image.new("F", (len(rows[0]), len(rows)))
    band.putdata([value for row in rows for value in row])
    return Raster(((band,),), is_mask=True)


def pixels(raster: Raster, frame: int = 0) -> list[list[Pixel]]:
    image = raster.to_images()[frame]
    return [[image.getpixel((x, y)) for x in range(image.width)] for y in range(image.height)]


def values(raster: Raster, frame: int = 0) -> list[list[float]]:
    (band,) = raster.frames[frame]
    return [[round(band.getpixel((x, y)), 4) for x in range(band.width)] for y in range(band.height)]


def run(name: str, **inputs):
    """The first output of a node that needs no job."""
    return CLASSES[name].run(**inputs)[0]
