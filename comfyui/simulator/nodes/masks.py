"""Mask nodes: single-channel rasters, 1 meaning selected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from PIL import Image

from comfyui.simulator.nodes.composing import MASK_MODULE
from comfyui.simulator.nodes.images import FROM_ZERO, SIDE
from comfyui.simulator.nodes.spec import Registry, choice, flag, image, integer, mask, number
from comfyui.simulator.raster import Band, Raster, clamp, compute, solid

if TYPE_CHECKING:
    from collections.abc import Callable

registry = Registry(MASK_MODULE)
node = registry.node

MASK: dict[str, Any] = {"outputs": "MASK", "category": "mask"}
SIDES = tuple(integer(side, 0, **FROM_ZERO) for side in ("left", "top", "right", "bottom"))

OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "multiply": lambda low, high: low * high,
    "add": lambda low, high: low + high,
    "subtract": lambda low, high: low - high,
    "and": lambda low, high: _bit(low) * _bit(high),
    "or": lambda low, high: 1.0 * ((low >= 0.5) + (high >= 0.5) > 0),
    "xor": lambda low, high: 1.0 * (_bit(low) + _bit(high) == 1),
}


def _bit(value: Any) -> Any:
    return 1.0 * (value >= 0.5)


@node(
    "SolidMask",
    number("value", 1.0, min=0.0, max=1.0, step=0.01),
    integer("width", 512, **SIDE),
    integer("height", 512, **SIDE),
    **MASK,
)
def solid_mask(value: float, width: int, height: int) -> tuple[Raster]:
    return (solid(width, height, [value], is_mask=True),)


@node("InvertMask", mask(), **MASK)
def invert_mask(mask: Raster) -> tuple[Raster]:
    return (mask.map(lambda band: compute(lambda x: 1.0 - x, band)),)


@node(
    "CropMask",
    mask(),
    integer("x", 0, **FROM_ZERO),
    integer("y", 0, **FROM_ZERO),
    integer("width", 512, **SIDE),
    integer("height", 512, **SIDE),
    **MASK,
)
def crop_mask(mask: Raster, x: int, y: int, width: int, height: int) -> tuple[Raster]:
    full_width, full_height = mask.size
    box = (x, y, min(x + width, full_width), min(y + height, full_height))
    return (mask.map(lambda band: band.crop(box)),)


@node("ThresholdMask", mask(), number("value", 0.5, min=0.0, max=1.0, step=0.01), **MASK)
def threshold_mask(mask: Raster, value: float) -> tuple[Raster]:
    return (mask.map(lambda band: compute(lambda x: 1.0 * (x > value), band)),)


@node("FeatherMask", mask(), *SIDES, **MASK)
def feather_mask(mask: Raster, left: int, top: int, right: int, bottom: int) -> tuple[Raster]:
    width, height = mask.size
    columns, rows = _ramp(width, left, right), _ramp(height, top, bottom)
    across = Image.new("F", (width, 1))
    across.putdata(columns)
    down = Image.new("F", (1, height))
    down.putdata(rows)
    nearest = Image.Resampling.NEAREST
    ramps = across.resize((width, height), nearest), down.resize((width, height), nearest)
    return (mask.map(lambda band: compute(lambda x, a, d: x * a * d, band, *ramps)),)


def _ramp(length: int, first: int, last: int) -> list[float]:
    factors = [1.0] * length
    first, last = min(first, length), min(last, length)
    for at in range(first):
        factors[at] *= (at + 1.0) / first
    for at in range(last):
        factors[length - 1 - at] *= (at + 1.0) / last
    return factors


@node(
    "GrowMask",
    mask(),
    integer("expand", 0, min=-16384, max=16384, step=1),
    flag("tapered_corners", default=True),
    **MASK,
)
def grow_mask(mask: Raster, expand: int, tapered_corners: bool) -> tuple[Raster]:
    """Grow (or shrink) by one pixel at a time; tapered corners grow only straight."""
    for _ in range(abs(expand)):
        mask = mask.map(lambda band: _grown(band, shrink=expand < 0, corners=not tapered_corners))
    return (mask,)


def _grown(band: Band, *, shrink: bool, corners: bool) -> Band:
    """Each pixel takes the greatest (least) of its neighbours; the edge is continued."""
    width, height = band.size
    padded = Image.new("F", (width + 2, height + 2))
    # Corners first, then sides, then the middle: what is left of each at the rim continues the edge.
    for x, y in ((0, 0), (2, 0), (0, 2), (2, 2), (0, 1), (2, 1), (1, 0), (1, 2), (1, 1)):
        padded.paste(band, (x, y))
    result = band
    for x in range(3):
        for y in range(3):
            if corners or x == 1 or y == 1:
                shifted = padded.crop((x, y, x + width, y + height))
                result = _extreme(result, shifted, least=shrink)
    return result


def _extreme(first: Band, second: Band, *, least: bool) -> Band:
    if least:
        return compute(lambda a, b: a * (a <= b) + b * (b < a), first, second)
    return compute(lambda a, b: a * (a >= b) + b * (b > a), first, second)


@node(
    "MaskComposite",
    mask("destination"),
    mask("source"),
    integer("x", 0, **FROM_ZERO),
    integer("y", 0, **FROM_ZERO),
    choice("operation", tuple(OPERATIONS)),
    **MASK,
)
def mask_composite(destination: Raster, source: Raster, x: int, y: int, operation: str) -> tuple[Raster]:
    rule = OPERATIONS[operation]
    count = len(destination.frames)
    pairs = zip(destination.frames, source.repeated(count).frames, strict=True)
    return (Raster(tuple((_operate(low[0], high[0], x, y, rule),) for low, high in pairs), is_mask=True),)


def _operate(below: Band, above: Band, x: int, y: int, rule: Any) -> Band:
    width, height = min(above.width, below.width - x), min(above.height, below.height - y)
    result = below.copy()
    if width > 0 and height > 0:
        under = below.crop((x, y, x + width, y + height))
        result.paste(compute(rule, under, above.crop((0, 0, width, height))), (x, y))
    return clamp(result)


@node("MaskToImage", mask(), outputs="IMAGE", category="mask", title="Convert Mask to Image")
def mask_to_image(mask: Raster) -> tuple[Raster]:
    return (Raster(tuple(frame * 3 for frame in mask.frames)),)


@node(
    "ImageToMask",
    image(),
    choice("channel", ("red", "green", "blue", "alpha")),
    outputs="MASK",
    category="mask",
    title="Convert Image to Mask",
)
def image_to_mask(image: Raster, channel: str) -> tuple[Raster]:
    index = ("red", "green", "blue", "alpha").index(channel)
    return (Raster(tuple((frame[index],) for frame in image.frames), is_mask=True),)


@node("ImageColorToMask", image(), integer("color", 0, min=0, max=0xFFFFFF, step=1, display="color"), **MASK)
def image_color_to_mask(image: Raster, color: int) -> tuple[Raster]:
    wanted = [color >> shift & 0xFF for shift in (16, 8, 0)]

    def select(red: Any, green: Any, blue: Any) -> Any:
        return 1.0 * ((red == wanted[0]) & (green == wanted[1]) & (blue == wanted[2]))

    return (Raster(tuple((_select(frame, select),) for frame in image.frames), is_mask=True),)


def _select(frame: tuple[Band, ...], rule: Any) -> Band:
    """Colours are compared as 8-bit values, rounded."""
    rounded = [compute(lambda x: x * 255.0 + 0.5, band).convert("L").convert("I") for band in frame[:3]]
    return compute(rule, *rounded).convert("F")
