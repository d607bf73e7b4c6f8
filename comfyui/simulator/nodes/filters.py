"""Nodes that change a picture's values and not its shape: blur, sharpen, blend, quantize, noise."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from PIL import Image

from comfyui.simulator.nodes.images import IMAGES_MODULE, joined
from comfyui.simulator.nodes.kernel import blur_band, gaussian
from comfyui.simulator.nodes.scaling import scale
from comfyui.simulator.nodes.spec import Registry, choice, image, integer, number
from comfyui.simulator.raster import Band, Raster, clamp, compute, from_image

if TYPE_CHECKING:
    from collections.abc import Callable

registry = Registry()
node = registry.node

POST: dict[str, Any] = {
    "module": "comfy_extras.nodes_post_processing",
    "category": "image/postprocessing",
    "is_v3": True,
}


@node(
    "ImageBlur",
    image(),
    integer("blur_radius", 1, min=1, max=31, step=1),
    number("sigma", 1.0, min=0.1, max=10.0, step=0.1),
    outputs="IMAGE",
    **POST,
)
def image_blur(image: Raster, blur_radius: int, sigma: float) -> tuple[Raster]:
    _check_padding(image, blur_radius)
    weights = gaussian(blur_radius, sigma)
    return (image.map(lambda band: blur_band(band, weights)),)


def _check_padding(picture: Raster, radius: int) -> None:
    """ComfyUI pads by reflection, which needs a picture larger than the radius."""
    width, height = picture.size
    if min(width, height) > radius:
        return
    axis = 3 if width <= radius else 2
    shape = [len(picture.frames), picture.channels, height, width]
    raise RuntimeError(
        "Argument #4: Padding size should be less than the corresponding input dimension, "
        f"but got: padding ({radius}, {radius}) at dimension {axis} of input {shape}"
    )


@node(
    "ImageSharpen",
    image(),
    integer("sharpen_radius", 1, min=1, max=31, step=1),
    number("sigma", 1.0, min=0.1, max=10.0, step=0.01),
    number("alpha", 1.0, min=0.0, max=5.0, step=0.01),
    outputs="IMAGE",
    **POST,
)
def image_sharpen(image: Raster, sharpen_radius: int, sigma: float, alpha: float) -> tuple[Raster]:
    _check_padding(image, sharpen_radius)
    weights = gaussian(sharpen_radius, sigma)

    def sharpen(band: Band) -> Band:
        return clamp(compute(lambda x, soft: x + (x - soft) * (alpha * 10), band, blur_band(band, weights)))

    return (image.map(sharpen),)


@node(
    "ImageQuantize",
    image(),
    integer("colors", 256, min=1, max=256, step=1),
    choice("dither", ("none", "floyd-steinberg", "bayer-2", "bayer-4", "bayer-8", "bayer-16")),
    outputs="IMAGE",
    **POST,
)
def image_quantize(image: Raster, colors: int, dither: str) -> tuple[Raster]:
    """Bayer dithering is left out: those choices give the undithered picture."""
    rule = Image.Dither.FLOYDSTEINBERG if dither == "floyd-steinberg" else Image.Dither.NONE
    flat = [one.convert("RGB") for one in image.to_images()]
    palettes = [one.quantize(colors=colors) for one in flat]
    reduced = [
        one.quantize(palette=palette, dither=rule) for one, palette in zip(flat, palettes, strict=True)
    ]
    return (joined([from_image(one.convert("RGB")) for one in reduced]),)


@node(
    "ImageAddNoise",
    image(),
    integer(
        "seed",
        0,
        min=0,
        max=0xFFFFFFFFFFFFFFFF,
        control_after_generate=True,
        tooltip="The random seed used for creating the noise.",
    ),
    number("strength", 0.5, min=0.0, max=1.0, step=0.01),
    outputs="IMAGE",
    module=IMAGES_MODULE,
)
def image_add_noise(image: Raster, seed: int, strength: float) -> tuple[Raster]:
    """Deterministic noise of our own; torch's generator is not copied."""
    chance = random.Random(seed)  # noqa: S311 - a picture, not a secret

    def add(band: Band) -> Band:
        noise = Image.frombytes("L", band.size, chance.randbytes(band.width * band.height)).convert("F")
        return clamp(compute(lambda x, y: x + (y / 127.5 - 1.0) * strength, band, noise))

    return (image.map(add),)


def _overlay(low: Any, high: Any) -> Any:
    return (low <= 0.5) * (2 * low * high) + (low > 0.5) * (1 - 2 * (1 - low) * (1 - high))


def _soft_light(low: Any, high: Any) -> Any:
    deep = ((16 * low - 12) * low + 4) * low
    curve = (low <= 0.25) * deep + (low > 0.25) * (low**0.5)
    darker = low - (1 - 2 * high) * low * (1 - low)
    return (high <= 0.5) * darker + (high > 0.5) * (low + (2 * high - 1) * (curve - low))


BLENDS: dict[str, Callable[[Any, Any], Any]] = {
    "normal": lambda low, high: high + low * 0.0,
    "multiply": lambda low, high: low * high,
    "screen": lambda low, high: 1 - (1 - low) * (1 - high),
    "overlay": _overlay,
    "soft_light": _soft_light,
    "difference": lambda low, high: low - high,
}


@node(
    "ImageBlend",
    image("image1"),
    image("image2"),
    number("blend_factor", 0.5, min=0.0, max=1.0, step=0.01),
    choice("blend_mode", tuple(BLENDS)),
    outputs="IMAGE",
    **POST,
)
def image_blend(image1: Raster, image2: Raster, blend_factor: float, blend_mode: str) -> tuple[Raster]:
    if blend_mode not in BLENDS:
        raise ValueError(f"Unsupported blend mode: {blend_mode}")
    rule = BLENDS[blend_mode]
    second = image2 if image1.size == image2.size else scale(image2, *image1.size, "bicubic")

    def blend(low: Band, high: Band) -> Band:
        return clamp(compute(lambda a, b: a * (1 - blend_factor) + rule(a, b) * blend_factor, low, high))

    return (image1.combine(second, blend),)
