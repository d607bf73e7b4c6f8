"""Nodes that bring two pictures together, or a picture and its alpha."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from PIL import Image

from comfyui.simulator.nodes.images import FROM_ZERO, IMAGES_MODULE
from comfyui.simulator.nodes.scaling import scale
from comfyui.simulator.nodes.spec import Registry, choice, flag, image, integer, mask, optional
from comfyui.simulator.raster import Band, Raster, compute, solid

if TYPE_CHECKING:
    pass

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
    if resize_source:
        source = scale(source, *destination.size, "bilinear")
    stencil = (
        solid(*source.size, [1.0], is_mask=True) if mask is None else scale(mask, *source.size, "bilinear")
    )
    count = len(destination.frames)
    pieces = zip(
        source.repeated(count).frames, stencil.repeated(count).frames, destination.frames, strict=True
    )
    channels = min(destination.channels, source.channels)
    pasted = (
        tuple(
            _paste(below, above, matte[0], x, y) for below, above in zip(under[:channels], over, strict=False)
        )
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
    if match_image_size:
        image2 = _matched(image2, image1.size, sideways=sideways)
    count = max(len(image1.frames), len(image2.frames))
    first, second = image1.repeated(count), image2.repeated(count)
    if direction in {"left", "up"}:
        first, second = second, first
    ends = (first.size, second.size)
    width = sum(w for w, _ in ends) + spacing_width if sideways else max(w for w, _ in ends)
    height = max(h for _, h in ends) if sideways else sum(h for _, h in ends) + spacing_width
    gap = COLORS[spacing_color]
    frames = []
    for left, right in zip(first.frames, second.frames, strict=True):
        bands = []
        for channel in range(min(len(left), len(right))):
            sheet = Image.new("F", (width, height), 0.0)
            if spacing_width:
                sheet.paste(
                    float((*gap, 1)[channel]), _gap_box(first.size, spacing_width, (width, height), sideways)
                )
            sheet.paste(left[channel], _middle(left[channel].size, (width, height), sideways, 0))
            far = (first.size[0] if sideways else first.size[1]) + spacing_width
            sheet.paste(right[channel], _middle(right[channel].size, (width, height), sideways, far))
            bands.append(sheet)
        frames.append(tuple(bands))
    return (Raster(tuple(frames)),)


def _matched(picture: Raster, size: tuple[int, int], *, sideways: bool) -> Raster:
    width, height = picture.size
    if sideways:
        return scale(picture, int(size[1] * width / height), size[1], "lanczos")
    return scale(picture, size[0], int(size[0] * height / width), "lanczos")


def _gap_box(
    first: tuple[int, int], gap: int, sheet: tuple[int, int], sideways: bool
) -> tuple[int, int, int, int]:
    return (first[0], 0, first[0] + gap, sheet[1]) if sideways else (0, first[1], sheet[0], first[1] + gap)


def _middle(size: tuple[int, int], sheet: tuple[int, int], sideways: bool, at: int) -> tuple[int, int]:
    return (at, (sheet[1] - size[1]) // 2) if sideways else ((sheet[0] - size[0]) // 2, at)


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
    count = max(len(image.frames), len(alpha.frames))
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
