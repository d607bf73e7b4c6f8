"""Nodes that change a picture's size."""

from __future__ import annotations

import math

from PIL import Image

from comfyui.simulator.nodes.images import FROM_ZERO, IMAGES_MODULE, joined
from comfyui.simulator.nodes.spec import Registry, choice, image, integer, number
from comfyui.simulator.raster import Raster, from_image

registry = Registry()
node = registry.node

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
    """Scale every frame. bilinear and bicubic do not average when shrinking, as in torch."""
    if method == "lanczos":
        return joined(
            [from_image(one.resize((width, height), Image.Resampling.LANCZOS)) for one in picture.to_images()]
        )
    if method in {"nearest-exact", "area"}:
        rule = Image.Resampling.NEAREST if method == "nearest-exact" else Image.Resampling.BOX
        return picture.map(lambda band: band.resize((width, height), rule))
    old_width, old_height = picture.size
    matrix = (old_width / width, 0, 0, 0, old_height / height, 0)
    sampling = Image.Resampling.BICUBIC if method == "bicubic" else Image.Resampling.BILINEAR
    affine = Image.Transform.AFFINE
    return picture.map(lambda band: band.transform((width, height), affine, matrix, sampling))


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
