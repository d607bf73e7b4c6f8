"""Nodes that change a picture's size."""

from __future__ import annotations

import math

from PIL import Image

from comfyui.simulator.nodes.images import FROM_ZERO, IMAGES_MODULE, joined
from comfyui.simulator.nodes.spec import Registry, choice, image, integer, number
from comfyui.simulator.raster import Band, Raster, from_image

registry = Registry()
node = registry.node

TRANSPOSE = Image.Transpose.TRANSPOSE

UPSCALES = ("nearest-exact", "bilinear", "area", "bicubic", "lanczos")


@node(
    "ImageScale",
    image(),
    choice("upscale_method", UPSCALES),
    integer("width", 512, **FROM_ZERO),
    integer("height", 512, **FROM_ZERO),
    choice("crop", ("disabled", "center")),
    outputs="IMAGE",
    category="image/upscaling",
    title="Upscale Image",
)
def image_scale(image: Raster, upscale_method: str, width: int, height: int, crop: str) -> tuple[Raster]:
    if width == 0 and height == 0:
        return (image,)
    old_width, old_height = image.size
    width = width or max(1, round(old_width * height / old_height))
    height = height or max(1, round(old_height * width / old_width))
    return (
        scale(centered(image, width, height) if crop == "center" else image, width, height, upscale_method),
    )


def centered(picture: Raster, width: int, height: int) -> Raster:
    """Cut to the target's proportions around the middle."""
    old_width, old_height = picture.size
    old_aspect, aspect = old_width / old_height, width / height
    x = round((old_width - old_width * (aspect / old_aspect)) / 2) if old_aspect > aspect else 0
    y = round((old_height - old_height * (old_aspect / aspect)) / 2) if old_aspect < aspect else 0
    return picture.map(lambda band: band.crop((x, y, old_width - x, old_height - y)))


def scale(picture: Raster, width: int, height: int, method: str) -> Raster:
    """Scale every frame as torch does, except that bicubic uses Pillow's kernel, which is a little softer."""
    if (width, height) == picture.size and method != "lanczos":
        return picture
    match method:
        case "lanczos":  # ComfyUI goes through 8-bit Pillow images here
            images = picture.to_images()
            return joined(
                [from_image(one.resize((width, height), Image.Resampling.LANCZOS)) for one in images]
            )
        case "nearest-exact":
            return picture.map(lambda band: band.resize((width, height), Image.Resampling.NEAREST))
        case "area":
            return picture.map(
                lambda band: _averaged(_averaged(band, width).transpose(TRANSPOSE), height).transpose(
                    TRANSPOSE
                )
            )
        case _:
            sampling = Image.Resampling.BICUBIC if method == "bicubic" else Image.Resampling.BILINEAR
            return picture.map(lambda band: _sampled(band, width, height, sampling))


def _averaged(band: Band, width: int) -> Band:
    """Each column is the mean of the whole columns it covers, as torch's adaptive pooling takes them."""
    result = Image.new("F", (width, band.height))
    for x in range(width):
        window = (x * band.width // width, 0, -(-(x + 1) * band.width // width), band.height)
        result.paste(band.resize((1, band.height), Image.Resampling.BOX, window), (x, 0))
    return result


def _sampled(band: Band, width: int, height: int, sampling: Image.Resampling) -> Band:
    """Interpolate at the centres; unlike Pillow's resize, shrinking does not average."""
    matrix = (band.width / width, 0, 0, 0, band.height / height, 0)
    return band.transform((width, height), Image.Transform.AFFINE, matrix, sampling)


@node(
    "ImageScaleBy",
    image(),
    choice("upscale_method", UPSCALES),
    number("scale_by", 1.0, min=0.01, max=8.0, step=0.01),
    outputs="IMAGE",
    category="image/upscaling",
    title="Upscale Image By",
)
def image_scale_by(image: Raster, upscale_method: str, scale_by: float) -> tuple[Raster]:
    width, height = image.size
    return (scale(image, round(width * scale_by), round(height * scale_by), upscale_method),)


@node(
    "ImageScaleToTotalPixels",
    image(),
    choice("upscale_method", UPSCALES),
    number("megapixels", 1.0, min=0.01, max=16.0, step=0.01),
    outputs="IMAGE",
    category="image/upscaling",
    module="comfy_extras.nodes_post_processing",
    is_v3=True,
)
def image_scale_to_total_pixels(image: Raster, upscale_method: str, megapixels: float) -> tuple[Raster]:
    width, height = image.size
    by = math.sqrt(megapixels * 1024 * 1024 / (width * height))
    return (scale(image, round(width * by), round(height * by), upscale_method),)


@node(
    "ImageScaleToMaxDimension",
    image(),
    choice("upscale_method", ("area", "lanczos", "bilinear", "nearest-exact", "bilinear", "bicubic")),
    integer("largest_size", 512, **FROM_ZERO),
    outputs="IMAGE",
    category="image/upscaling",
    module=IMAGES_MODULE,
)
def image_scale_to_max_dimension(image: Raster, upscale_method: str, largest_size: int) -> tuple[Raster]:
    width, height = image.size
    longer = max(width, height)
    return (
        scale(
            image, round(width / longer * largest_size), round(height / longer * largest_size), upscale_method
        ),
    )
