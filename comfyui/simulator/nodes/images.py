"""Image nodes on one picture or batch: make, load, scale, turn, cut, filter."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageFile, ImageOps, ImageSequence

from comfyui.simulator.nodes.kernel import blur_band, gaussian
from comfyui.simulator.nodes.spec import Input, Registry, choice, image, integer, number
from comfyui.simulator.raster import Band, Raster, clamp, compute, from_image, solid, to_band

if TYPE_CHECKING:
    from comfyui.simulator.folders import Folders
    from comfyui.simulator.nodes.job import Job

registry = Registry()
node = registry.node

IMAGES_MODULE = "comfy_extras.nodes_images"
POST: dict[str, Any] = {
    "module": "comfy_extras.nodes_post_processing",
    "category": "image/postprocessing",
    "is_v3": True,
}
UPSCALES = ("nearest-exact", "bilinear", "area", "bicubic", "lanczos")
SIDE = {"min": 1, "max": 16384, "step": 1}
FROM_ZERO = {"min": 0, "max": 16384, "step": 1}

ImageFile.LOAD_TRUNCATED_IMAGES = True  # ComfyUI falls back to this for broken files


def file_exists(folders: Folders, name: Any) -> str | bool:
    """LoadImage's own check, which replaces the one of the list; it does not confine the path."""
    import os  # noqa: PLC0415

    return os.path.exists(folders.locate(str(name))) or f"Invalid image file: {name}"  # noqa: PTH110


def content_of(folders: Folders, inputs: dict[str, Any]) -> str:
    return folders.digest(inputs["image"])


@node(
    "EmptyImage",
    integer("width", 512, **SIDE),
    integer("height", 512, **SIDE),
    integer("batch_size", 1, min=1, max=4096),
    integer("color", 0, min=0, max=0xFFFFFF, step=1, display="color"),
    outputs="IMAGE",
)
def empty_image(width: int, height: int, batch_size: int, color: int) -> tuple[Raster]:
    values = ((color >> shift & 0xFF) / 0xFF for shift in (16, 8, 0))
    return (solid(width, height, values, batch_size),)


@node(
    "LoadImage",
    choice("image", lambda folders: folders.input_files(), image_upload=True),
    outputs=("IMAGE", "MASK"),
    title="Load Image",
    check={"image": file_exists},
    fingerprint=content_of,
)
def load_image(image: str, job: Job) -> tuple[Raster, Raster]:
    pictures: list[Raster] = []
    masks: list[Raster] = []
    with Image.open(job.folders.locate(image)) as opened:
        for page in ImageSequence.Iterator(opened):
            upright = ImageOps.exif_transpose(page)
            picture = from_image(upright.convert("RGB"))
            if pictures and picture.size != pictures[0].size:
                continue
            pictures.append(picture)
            masks.append(_alpha_mask(upright))
    return _joined(pictures), Raster(tuple(mask.frames[0] for mask in masks), is_mask=True)


def _alpha_mask(picture: Image.Image) -> Raster:
    """1 - alpha; ComfyUI gives 64x64 zeros where there is no alpha."""
    if "A" not in picture.getbands() and "transparency" not in picture.info:
        return solid(64, 64, [0.0], is_mask=True)
    alpha = to_band(picture.convert("RGBA").getchannel("A"))
    return Raster(((compute(lambda x: 1.0 - x, alpha),),), is_mask=True)


node(
    "LoadImageOutput",
    Input(
        "image",
        "COMBO",
        {
            "image_upload": True,
            "image_folder": "output",
            "remote": {
                "route": "/internal/files/output",
                "refresh_button": True,
                "control_after_refresh": "first",
            },
        },
    ),
    outputs=("IMAGE", "MASK"),
    title="Load Image (from Outputs)",
    description="Load an image from the output folder. When the refresh button is clicked, the node will update the "
    "image list and automatically select the first image, allowing for easy iteration.",
    is_experimental=True,
    check={"image": file_exists},
    fingerprint=content_of,
)(load_image)


@node(
    "LoadImageMask",
    choice("image", lambda folders: folders.input_files(), image_upload=True),
    choice("channel", ("alpha", "red", "green", "blue")),
    outputs="MASK",
    category="mask",
    title="Load Image (as Mask)",
    check={"image": file_exists},
    fingerprint=content_of,
)
def load_image_mask(image: str, channel: str, job: Job) -> tuple[Raster]:
    with Image.open(job.folders.locate(image)) as opened:
        upright = ImageOps.exif_transpose(opened)
        if channel == "alpha":
            return (
                _alpha_mask(upright) if "A" in upright.getbands() else solid(64, 64, [0.0], is_mask=True),
            )
        band = to_band(upright.convert("RGB").getchannel(channel[0].upper()))
    return (Raster(((band,),), is_mask=True),)


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
        scale(_center(image, width, height) if crop == "center" else image, width, height, upscale_method),
    )


def _center(picture: Raster, width: int, height: int) -> Raster:
    """Cut to the target's proportions around the middle."""
    old_width, old_height = picture.size
    old_aspect, aspect = old_width / old_height, width / height
    x = round((old_width - old_width * (aspect / old_aspect)) / 2) if old_aspect > aspect else 0
    y = round((old_height - old_height * (old_aspect / aspect)) / 2) if old_aspect < aspect else 0
    return picture.map(lambda band: band.crop((x, y, old_width - x, old_height - y)))


def scale(picture: Raster, width: int, height: int, method: str) -> Raster:
    """Scale every frame. bilinear and bicubic do not average when shrinking, as in torch."""
    if method == "lanczos":
        return _joined(
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


@node("ImageInvert", image(), outputs="IMAGE", title="Invert Image")
def image_invert(image: Raster) -> tuple[Raster]:
    return (image.map(lambda band: compute(lambda x: 1.0 - x, band)),)


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
    return (_joined([from_image(one.convert("RGB")) for one in reduced]),)


@node(
    "ImageCrop",
    image(),
    integer("width", 512, **SIDE),
    integer("height", 512, **SIDE),
    integer("x", 0, **FROM_ZERO),
    integer("y", 0, **FROM_ZERO),
    outputs="IMAGE",
    category="image/transform",
    title="Image Crop",
    module=IMAGES_MODULE,
)
def image_crop(image: Raster, width: int, height: int, x: int, y: int) -> tuple[Raster]:
    full_width, full_height = image.size
    left, top = min(x, full_width - 1), min(y, full_height - 1)
    box = (left, top, min(left + width, full_width), min(top + height, full_height))
    return (image.map(lambda band: band.crop(box)),)


@node(
    "ImageRotate",
    image(),
    choice("rotation", ("none", "90 degrees", "180 degrees", "270 degrees")),
    outputs="IMAGE",
    category="image/transform",
    module=IMAGES_MODULE,
)
def image_rotate(image: Raster, rotation: str) -> tuple[Raster]:
    """Clockwise, while Pillow counts anticlockwise."""
    turns = {
        "90": Image.Transpose.ROTATE_270,
        "180": Image.Transpose.ROTATE_180,
        "270": Image.Transpose.ROTATE_90,
    }
    turn = turns.get(rotation.split(maxsplit=1)[0])
    return (image if turn is None else image.map(lambda band: band.transpose(turn)),)


@node(
    "ImageFlip",
    image(),
    choice("flip_method", ("x-axis: vertically", "y-axis: horizontally")),
    outputs="IMAGE",
    category="image/transform",
    module=IMAGES_MODULE,
)
def image_flip(image: Raster, flip_method: str) -> tuple[Raster]:
    up_down = flip_method.startswith("x")
    flip = Image.Transpose.FLIP_TOP_BOTTOM if up_down else Image.Transpose.FLIP_LEFT_RIGHT
    return (image.map(lambda band: band.transpose(flip)),)


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


@node("ImageBatch", image("image1"), image("image2"), outputs="IMAGE", title="Batch Images")
def image_batch(image1: Raster, image2: Raster) -> tuple[Raster]:
    second = image2
    if image1.size != image2.size:
        width, height = image1.size
        second = scale(_center(image2, width, height), width, height, "bilinear")
    return (_joined([image1, second]),)


@node(
    "RepeatImageBatch",
    image(),
    integer("amount", 1, min=1, max=4096),
    outputs="IMAGE",
    category="image/batch",
    module=IMAGES_MODULE,
)
def repeat_image_batch(image: Raster, amount: int) -> tuple[Raster]:
    return (image.repeated(len(image.frames) * amount),)


@node(
    "ImageFromBatch",
    image(),
    integer("batch_index", 0, min=0, max=4095),
    integer("length", 1, min=1, max=4096),
    outputs="IMAGE",
    category="image/batch",
    module=IMAGES_MODULE,
)
def image_from_batch(image: Raster, batch_index: int, length: int) -> tuple[Raster]:
    start = min(len(image.frames) - 1, batch_index)
    return (Raster(image.frames[start : start + length]),)


@node(
    "RebatchImages",
    image("images"),
    integer("batch_size", 1, min=1, max=4096),
    outputs="IMAGE",
    category="image/batch",
    title="Rebatch Images",
    module="comfy_extras.nodes_rebatch",
    is_v3=True,
    lists=(True,),
    takes_lists=True,
)
def rebatch_images(images: list[Raster], batch_size: list[int]) -> tuple[list[Raster]]:
    frames = [frame for one in images for frame in one.frames]
    size = batch_size[0]
    return ([Raster(tuple(frames[at : at + size])) for at in range(0, len(frames), size)],)


@node(
    "GetImageSize",
    image(),
    outputs=("INT", "INT", "INT"),
    names=("width", "height", "batch_size"),
    title="Get Image Size",
    description="Returns width and height of the image, and passes it through unchanged.",
    module=IMAGES_MODULE,
    hidden=("unique_id",),
)
def get_image_size(image: Raster, job: Job) -> tuple[int, int, int]:
    width, height = image.size
    batch = len(image.frames)
    job.reporter.text(f"width: {width}, height: {height}\n batch size: {batch}")
    return width, height, batch


def _joined(rasters: list[Raster]) -> Raster:
    """One batch; pictures without alpha get an opaque one if another has it."""
    channels = max(raster.channels for raster in rasters)
    opaque = Image.new("F", rasters[0].size, 1.0)
    frames = [frame for raster in rasters for frame in raster.frames]
    return Raster(tuple(frame + (opaque,) * (channels - len(frame)) for frame in frames))
