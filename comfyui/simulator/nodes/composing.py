"""Nodes that bring two pictures together, or a picture and its alpha."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from PIL import Image

from comfyui.simulator.nodes.images import FROM_ZERO, IMAGES_MODULE
from comfyui.simulator.nodes.scaling import scale
from comfyui.simulator.nodes.spec import Registry, choice, flag, image, integer, mask, optional
from comfyui.simulator.raster import Band, Frame, Raster, compute, solid

registry = Registry()
node = registry.node

MASK_MODULE = "comfy_extras.nodes_mask"
COMPOSITING: dict[str, Any] = {
    "module": "comfy_extras.nodes_compositing",
    "category": "mask/compositing",
    "is_v3": True,
}
COLORS = {"white": (1, 1, 1), "black": (0, 0, 0), "red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}
PADDING = {"min": 0, "max": 16384, "step": 8}


@node(
    "ImageCompositeMasked",
    image("destination"),
    image("source"),
    integer("x", 0, **FROM_ZERO),
    integer("y", 0, **FROM_ZERO),
    flag("resize_source", default=False),
    optional(mask()),
    outputs="IMAGE",
    module=MASK_MODULE,
)
def image_composite_masked(
    destination: Raster, source: Raster, x: int, y: int, resize_source: bool, mask: Raster | None = None
) -> tuple[Raster]:
    source = _with_channels(source, destination.channels)
    if resize_source:
        source = scale(source, *destination.size, "bilinear")
    stencil = (
        solid(*source.size, [1.0], is_mask=True) if mask is None else scale(mask, *source.size, "bilinear")
    )
    count = len(destination.frames)
    pieces = zip(
        source.repeated(count).frames, stencil.repeated(count).frames, destination.frames, strict=True
    )
    pasted = (
        tuple(_paste(below, above, matte[0], x, y) for below, above in zip(under, over, strict=True))
        for over, matte, under in pieces
    )
    return (Raster(tuple(pasted)),)


def _paste(below: Band, above: Band, matte: Band, x: int, y: int) -> Band:
    """`above` through its matte at x, y; what lies outside is cut off."""
    width, height = min(above.width, below.width - x), min(above.height, below.height - y)
    if width <= 0 or height <= 0:
        return below
    inner = (0, 0, width, height)
    under = below.crop((x, y, x + width, y + height))
    mixed = compute(
        lambda top, m, low: m * top + (1.0 - m) * low, above.crop(inner), matte.crop(inner), under
    )
    result = below.copy()
    result.paste(mixed, (x, y))
    return result


@node(
    "ImageStitch",
    image("image1"),
    choice("direction", ("right", "down", "left", "up"), default="right"),
    flag("match_image_size", default=True),
    integer("spacing_width", 0, min=0, max=1024, step=2),
    choice("spacing_color", tuple(COLORS), default="white"),
    optional(image("image2")),
    outputs="IMAGE",
    category="image/transform",
    title="Image Stitch",
    module=IMAGES_MODULE,
    description="\nStitches image2 to image1 in the specified direction.\n"
    "If image2 is not provided, returns image1 unchanged.\n"
    "Optional spacing can be added between images.\n",
)
def image_stitch(
    image1: Raster,
    direction: str,
    match_image_size: bool,
    spacing_width: int,
    spacing_color: str,
    image2: Raster | None = None,
) -> tuple[Raster]:
    if image2 is None:
        return (image1,)
    sideways = direction in {"left", "right"}
    count = max(len(image1.frames), len(image2.frames))
    image1, image2 = _lengthened(image1, count), _lengthened(image2, count)
    if match_image_size:
        image2 = _matched(image2, image1.size, sideways=sideways)
    channels = max(image1.channels, image2.channels)
    first, second = _with_channels(image1, channels), _with_channels(image2, channels)
    if direction in {"left", "up"}:
        first, second = second, first
    sheet = _Sheet.around(first.size, second.size, spacing_width + spacing_width % 2, sideways=sideways)
    pairs = zip(first.frames, second.frames, strict=True)
    return (Raster(tuple(sheet.filled(left, right, spacing_color) for left, right in pairs)),)


@dataclass(frozen=True)
class _Sheet:
    """Two pictures beside each other (or one below the other), centred, with a band between them."""

    size: tuple[int, int]
    second_at: int
    gap: int
    sideways: bool

    @classmethod
    def around(cls, first: tuple[int, int], second: tuple[int, int], gap: int, *, sideways: bool) -> _Sheet:
        along, across = (0, 1) if sideways else (1, 0)
        length, breadth = first[along] + gap + second[along], max(first[across], second[across])
        size = (length, breadth) if sideways else (breadth, length)
        return cls(size, first[along] + gap, gap, sideways)

    def filled(self, first: Frame, second: Frame, color: str) -> Frame:
        """What no picture covers is white for white spacing and else black."""
        ground = 1.0 if color == "white" else 0.0
        bands = []
        for left, right, spacing in zip(first, second, (*COLORS[color], 1), strict=False):
            band = Image.new("F", self.size, ground)
            if self.gap:
                band.paste(float(spacing), self._gap_box())
            band.paste(left, self._place(left, 0))
            band.paste(right, self._place(right, self.second_at))
            bands.append(band)
        return tuple(bands)

    def _gap_box(self) -> tuple[int, int, int, int]:
        start, end = self.second_at - self.gap, self.second_at
        return (start, 0, end, self.size[1]) if self.sideways else (0, start, self.size[0], end)

    def _place(self, band: Band, at: int) -> tuple[int, int]:
        if self.sideways:
            return (at, (self.size[1] - band.height) // 2)
        return ((self.size[0] - band.width) // 2, at)


def _lengthened(picture: Raster, count: int) -> Raster:
    """The last frame repeated."""
    return Raster(picture.frames + picture.frames[-1:] * (count - len(picture.frames)))


def _with_channels(picture: Raster, channels: int) -> Raster:
    """Missing channels are opaque, surplus ones left out."""
    opaque = (Image.new("F", picture.size, 1.0),) * channels
    return Raster(tuple((frame + opaque)[:channels] for frame in picture.frames))


def _matched(picture: Raster, size: tuple[int, int], *, sideways: bool) -> Raster:
    width, height = picture.size
    if sideways:
        return scale(picture, int(size[1] * width / height), size[1], "lanczos")
    return scale(picture, size[0], int(size[0] * height / width), "lanczos")


@node(
    "ImagePadForOutpaint",
    image(),
    *(integer(side, 0, **PADDING) for side in ("left", "top", "right", "bottom")),
    integer("feathering", 40, **FROM_ZERO),
    outputs=("IMAGE", "MASK"),
    title="Pad Image for Outpainting",
)
def image_pad_for_outpaint(
    image: Raster, left: int, top: int, right: int, bottom: int, feathering: int
) -> tuple[Raster, Raster]:
    width, height = image.size
    sheet = (width + left + right, height + top + bottom)

    def pad(band: Band) -> Band:
        padded = Image.new("F", sheet, 0.5)
        padded.paste(band, (left, top))
        return padded

    inner = Image.new("F", (width, height), 0.0)
    if feathering and feathering * 2 < min(width, height):
        sides = (left > 0, top > 0, right > 0, bottom > 0)
        inner.putdata(
            [_feather(x, y, (width, height), sides, feathering) for y in range(height) for x in range(width)]
        )
    outer = Image.new("F", sheet, 1.0)
    outer.paste(inner, (left, top))
    return image.map(pad), Raster(((outer,),), is_mask=True)


def _feather(x: int, y: int, size: tuple[int, int], sides: tuple[bool, ...], feathering: int) -> float:
    """Falls from 1 at a padded edge to 0, by the square of the distance; an unpadded edge does not count."""
    width, height = size
    left, top, right, bottom = sides
    distance = min(
        x if left else width,
        y if top else height,
        width - x if right else width,
        height - y if bottom else height,
    )
    return ((feathering - distance) / feathering) ** 2 if distance < feathering else 0.0


@node(
    "JoinImageWithAlpha",
    image(),
    mask("alpha"),
    outputs="IMAGE",
    title="Join Image with Alpha",
    **COMPOSITING,
)
def join_image_with_alpha(image: Raster, alpha: Raster) -> tuple[Raster]:
    """The mask says what is transparent, so alpha is 1 - mask."""
    count = min(len(image.frames), len(alpha.frames))
    matte = scale(alpha, *image.size, "bilinear").map(lambda band: compute(lambda x: 1.0 - x, band))
    pairs = zip(image.repeated(count).frames, matte.repeated(count).frames, strict=True)
    return (Raster(tuple((*frame[:3], band[0]) for frame, band in pairs)),)


@node(
    "SplitImageWithAlpha", image(), outputs=("IMAGE", "MASK"), title="Split Image with Alpha", **COMPOSITING
)
def split_image_with_alpha(image: Raster) -> tuple[Raster, Raster]:
    opaque = Image.new("F", image.size, 1.0)
    colors = Raster(tuple(frame[:3] for frame in image.frames))
    alphas = tuple((frame[3] if len(frame) > 3 else opaque,) for frame in image.frames)
    return colors, Raster(alphas, is_mask=True).map(lambda band: compute(lambda x: 1.0 - x, band))
