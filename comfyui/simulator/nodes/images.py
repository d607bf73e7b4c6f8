"""Image nodes that make, load, turn and cut pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageFile, ImageOps, ImageSequence

from comfyui.simulator.nodes.spec import Input, Registry, choice, image, integer
from comfyui.simulator.raster import Raster, compute, from_image, solid, to_band

if TYPE_CHECKING:
    from comfyui.simulator.folders import Folders
    from comfyui.simulator.nodes.job import Job

registry = Registry()
node = registry.node

IMAGES_MODULE = "comfy_extras.nodes_images"
SIDE = {"min": 1, "max": 16384, "step": 1}
FROM_ZERO = {"min": 0, "max": 16384, "step": 1}


@contextmanager
def opened_leniently(path: str) -> Iterator[Image.Image]:
    """Open a picture as ComfyUI does: one that is cut short is loaded as far as it goes.

    Pillow knows only a global flag for that, which is put back afterwards.
    """
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        with Image.open(path) as picture:
            yield picture
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


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
    with opened_leniently(job.folders.locate(image)) as opened:
        for page in ImageSequence.Iterator(opened):
            upright = ImageOps.exif_transpose(page)
            picture = from_image(upright.convert("RGB"))
            if pictures and picture.size != pictures[0].size:
                continue
            pictures.append(picture)
            masks.append(_alpha_mask(upright))
    if opened.format == "MPO":  # a stereo photo: upstream takes its first picture
        pictures, masks = pictures[:1], masks[:1]
    return joined(pictures), Raster(tuple(mask.frames[0] for mask in masks), is_mask=True)


def _alpha_mask(picture: Image.Image) -> Raster:
    """1 - alpha; ComfyUI gives 64x64 zeros where there is no alpha."""
    if "A" not in picture.getbands() and not (picture.mode == "P" and "transparency" in picture.info):
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
    with opened_leniently(job.folders.locate(image)) as opened:
        upright = ImageOps.exif_transpose(opened)
        band = to_band(upright.convert("RGBA").getchannel(channel[0].upper()))
    mask = Raster(((band,),), is_mask=True)
    return (mask.map(lambda alpha: compute(lambda x: 1.0 - x, alpha)) if channel == "alpha" else mask,)


@node("ImageInvert", image(), outputs="IMAGE", title="Invert Image")
def image_invert(image: Raster) -> tuple[Raster]:
    return (image.map(lambda band: compute(lambda x: 1.0 - x, band)),)


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


def joined(rasters: list[Raster]) -> Raster:
    """One batch; pictures without alpha get an opaque one if another has it."""
    channels = max(raster.channels for raster in rasters)
    opaque = Image.new("F", rasters[0].size, 1.0)
    frames = [frame for raster in rasters for frame in raster.frames]
    return Raster(tuple(frame + (opaque,) * (channels - len(frame)) for frame in frames))
