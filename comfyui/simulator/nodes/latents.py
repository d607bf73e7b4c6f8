"""Latents and what turns pictures into them and back; decoding draws the stand-in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from PIL import Image

from comfyui.simulator.nodes.painting import paint
from comfyui.simulator.nodes.scaling import scale
from comfyui.simulator.nodes.spec import Registry, choice, image, integer, link, mask
from comfyui.simulator.raster import Band, Raster, compute, from_image

if TYPE_CHECKING:
    from comfyui.simulator.nodes.loaders import Model

registry = Registry()
node = registry.node

UPSCALES = ("nearest-exact", "bilinear", "area", "bicubic", "bislerp")


LATENT_SIDE: dict[str, Any] = {"min": 16, "max": 16384, "step": 8}


@dataclass(frozen=True)
class Latent:
    """What stands for a latent: its picture's size, what it was encoded from, and what was sampled over it."""

    width: int
    height: int
    batch: int = 1
    pixels: Raster | None = None
    noise_mask: Raster | None = None
    recipe: str = ""
    denoise: float = 0.0


@node(
    "EmptyLatentImage",
    integer("width", 512, **LATENT_SIDE, tooltip="The width of the latent images in pixels."),
    integer("height", 512, **LATENT_SIDE, tooltip="The height of the latent images in pixels."),
    integer("batch_size", 1, min=1, max=4096, tooltip="The number of latent images in the batch."),
    outputs="LATENT",
    category="latent",
    title="Empty Latent Image",
    description="Create a new batch of empty latent images to be denoised via sampling.",
    tooltips=("The empty latent image batch.",),
)
@node(
    "EmptySD3LatentImage",
    integer("width", 1024, min=16, max=16384, step=16),
    integer("height", 1024, min=16, max=16384, step=16),
    integer("batch_size", 1, min=1, max=4096),
    outputs="LATENT",
    category="latent/sd3",
    module="comfy_extras.nodes_sd3",
    is_v3=True,
)
def empty_latent(width: int, height: int, batch_size: int) -> tuple[Latent]:
    """A latent pixel covers 8 by 8, so sizes are cut to a multiple of 8."""
    return (Latent(width // 8 * 8, height // 8 * 8, batch_size),)


def frame_recipe(latent: Latent, index: int) -> str:
    return f"{latent.recipe} #{index}"


@node(
    "VAEDecode",
    link("samples", "LATENT", tooltip="The latent to be decoded."),
    link("vae", "VAE", tooltip="The VAE model used for decoding the latent."),
    outputs="IMAGE",
    category="latent",
    title="VAE Decode",
    description="Decodes latent images back into pixel space images.",
    tooltips=("The decoded image.",),
    is_stand_in=True,
)
def vae_decode(samples: Latent, vae: Model) -> tuple[Raster]:  # noqa: ARG001 - no VAE has a say here
    size = (samples.width, samples.height)
    if not samples.recipe:
        empty = from_image(Image.new("RGB", size, (127, 127, 127))).repeated(samples.batch)
        return (empty if samples.pixels is None else samples.pixels,)
    frames = tuple(
        from_image(paint(frame_recipe(samples, at), *size)).frames[0] for at in range(samples.batch)
    )
    drawn = Raster(frames)
    return (drawn if samples.pixels is None else _blended(samples.pixels, drawn, samples),)


def _blended(pixels: Raster, drawn: Raster, latent: Latent) -> Raster:
    """Image to image: the drawing shows by the amount of denoising, and only where the mask selects."""
    amount = latent.denoise
    matte = (
        None if latent.noise_mask is None else scale(latent.noise_mask, *drawn.size, "bilinear").frames[0][0]
    )

    def mix(below: Band, above: Band) -> Band:
        if matte is None:
            return compute(lambda a, b: a * (1.0 - amount) + b * amount, below, above)
        return compute(lambda a, b, m: a * (1.0 - amount * m) + b * amount * m, below, above, matte)

    return pixels.combine(drawn, mix)


@node(
    "VAEEncode", image("pixels"), link("vae", "VAE"), outputs="LATENT", category="latent", title="VAE Encode"
)
def vae_encode(pixels: Raster, vae: Model) -> tuple[Latent]:  # noqa: ARG001 - no VAE has a say here
    width, height = (side // 8 * 8 for side in pixels.size)
    left, top = ((full - side) // 2 for full, side in zip(pixels.size, (width, height), strict=True))
    cut = pixels.map(lambda band: band.crop((left, top, left + width, top + height)))
    return (Latent(width, height, len(cut.frames), Raster(tuple(frame[:3] for frame in cut.frames))),)


@node(
    "VAEEncodeForInpaint",
    image("pixels"),
    link("vae", "VAE"),
    mask(),
    integer("grow_mask_by", 6, min=0, max=64, step=1),
    outputs="LATENT",
    category="latent/inpaint",
    title="VAE Encode (for Inpainting)",
)
def vae_encode_for_inpaint(pixels: Raster, vae: Model, mask: Raster, grow_mask_by: int) -> tuple[Latent]:  # noqa: ARG001 - the drawing needs no soft border
    (latent,) = vae_encode(pixels, vae)
    return (replace(latent, noise_mask=mask),)


@node(
    "SetLatentNoiseMask",
    link("samples", "LATENT"),
    mask(),
    outputs="LATENT",
    category="latent/inpaint",
    title="Set Latent Noise Mask",
)
def set_latent_noise_mask(samples: Latent, mask: Raster) -> tuple[Latent]:
    return (replace(samples, noise_mask=mask),)


@node(
    "LatentUpscale",
    link("samples", "LATENT"),
    choice("upscale_method", UPSCALES),
    integer("width", 512, min=0, max=16384, step=8),
    integer("height", 512, min=0, max=16384, step=8),
    choice("crop", ("disabled", "center")),
    outputs="LATENT",
    category="latent",
    title="Upscale Latent",
)
def latent_upscale(samples: Latent, upscale_method: str, width: int, height: int, crop: str) -> tuple[Latent]:  # noqa: ARG001 - the drawing is only stretched
    if width == 0 and height == 0:
        return (samples,)
    width = width or max(64, round(samples.width * height / samples.height))
    height = height or max(64, round(samples.height * width / samples.width))
    pixels = None if samples.pixels is None else scale(samples.pixels, width, height, "bilinear")
    return (replace(samples, width=width // 8 * 8, height=height // 8 * 8, pixels=pixels),)


@node(
    "ImageUpscaleWithModel",
    link("upscale_model", "UPSCALE_MODEL"),
    image(),
    outputs="IMAGE",
    category="image/upscaling",
    title="Upscale Image (using Model)",
    module="comfy_extras.nodes_upscale_model",
    is_v3=True,
    is_stand_in=True,
)
def upscale_with_model(upscale_model: Model, image: Raster) -> tuple[Raster]:
    """Four times the size, or as often as the model's name says (x2, 2x)."""
    by = next((n for n in (2, 3, 8) if f"x{n}" in upscale_model.name or f"{n}x" in upscale_model.name), 4)
    width, height = image.size
    return (scale(image, width * by, height * by, "bicubic"),)
