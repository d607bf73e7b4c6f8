"""Output nodes for pictures: saved, previewed, animated, or sent over the WebSocket."""

from __future__ import annotations

import json
import math
import struct
from typing import TYPE_CHECKING, Any

from PIL import PngImagePlugin

from comfyui.simulator import NOTICE
from comfyui.simulator.nodes.images import IMAGES_MODULE
from comfyui.simulator.nodes.latents import Latent
from comfyui.simulator.nodes.spec import (
    Output,
    Registry,
    choice,
    flag,
    image,
    integer,
    link,
    mask,
    number,
    string,
)
from comfyui.simulator.raster import Raster

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

    from comfyui.simulator.nodes.job import Job

registry = Registry()
node = registry.node

HIDDEN = ("prompt", "extra_pnginfo")
SAVES = "Saves the input images to your ComfyUI output directory."
PREFIX_TIP = (
    "The prefix for the file to save. This may include formatting information such as %date:yyyy-MM-dd% or "
    "%Empty Latent Image.width% to include values from nodes."
)
SAVE_COMPRESSION, PREVIEW_COMPRESSION = 4, 1  #: PNG levels ComfyUI uses
OUTPUT: dict[str, Any] = {"is_output": True, "hidden": HIDDEN}
ANIMATION: dict[str, Any] = OUTPUT | {"category": "image/animation", "module": IMAGES_MODULE}


@node(
    "SaveImage",
    image("images", tooltip="The images to save."),
    string("filename_prefix", "ComfyUI", tooltip=PREFIX_TIP),
    title="Save Image",
    description=SAVES,
    **OUTPUT,
)
def save_image(images: Raster, filename_prefix: str, job: Job) -> Output:
    return Output(ui={"images": _write(job, images, "output", filename_prefix, SAVE_COMPRESSION)})


@node("PreviewImage", image("images"), title="Preview Image", description=SAVES, **OUTPUT)
def preview_image(images: Raster, job: Job) -> Output:
    return Output(ui={"images": _write(job, images, "temp", _temp_prefix(job), PREVIEW_COMPRESSION)})


@node("MaskPreview", mask(), category="mask", description=SAVES, module="comfy_extras.nodes_mask", **OUTPUT)
def preview_mask(mask: Raster, job: Job) -> Output:
    picture = Raster(tuple(frame * 3 for frame in mask.frames))
    return Output(ui={"images": _write(job, picture, "temp", _temp_prefix(job), SAVE_COMPRESSION)})


def _temp_prefix(job: Job) -> str:
    return f"ComfyUI_temp_{job.temp_letters}"


def _write(job: Job, images: Raster, kind: str, prefix: str, compression: int) -> list[dict[str, str]]:
    """One PNG a frame under the next free numbers; returns the entries for `ui`."""
    height, width = images.shape[1:3]
    place = job.folders.place(kind, prefix, width, height)
    entries = []
    for index, picture in enumerate(images.to_images()):
        name = f"{place.name.replace('%batch_num%', str(index))}_{place.counter + index:05}_.png"
        picture.save(place.folder / name, pnginfo=metadata(job), compress_level=compression)
        spoil(job, place.folder / name)
        entries.append({"filename": name, "subfolder": place.subfolder, "type": kind})
    return entries


def metadata(job: Job) -> PngImagePlugin.PngInfo | None:
    """Text chunks `prompt` and one per key of extra_pnginfo; `simulated` marks what comes from a stand-in."""
    info = PngImagePlugin.PngInfo()
    if job.is_stand_in():
        info.add_text("simulated", NOTICE)
    if not job.options.disable_metadata:
        info.add_text("prompt", json.dumps(job.prompt))
        for key, value in (job.extra_data.get("extra_pnginfo") or {}).items():
            info.add_text(key, json.dumps(value))
    return info if info.chunks else None


def spoil(job: Job, path: Path) -> None:
    """Apply the output faults that are set to a file just written."""
    if job.faults.take("corrupt-output"):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
    if job.faults.take("empty-output"):
        path.write_bytes(b"")
    if job.faults.take("missing-output"):
        path.unlink()


@node(
    "SaveAnimatedWEBP",
    image("images"),
    string("filename_prefix", "ComfyUI"),
    number("fps", 6.0, min=0.01, max=1000.0, step=0.01),
    flag("lossless", default=True),
    integer("quality", 80, min=0, max=100),
    choice("method", ("default", "fastest", "slowest")),
    **ANIMATION,
)
def save_animated_webp(
    images: Raster, filename_prefix: str, fps: float, lossless: bool, quality: int, method: str, job: Job
) -> Output:
    effort = {"default": 4, "fastest": 0, "slowest": 6}[method]
    return _animate(
        job, images, filename_prefix, fps, "webp", lossless=lossless, quality=quality, method=effort
    )


@node(
    "SaveAnimatedPNG",
    image("images"),
    string("filename_prefix", "ComfyUI"),
    number("fps", 6.0, min=0.01, max=1000.0, step=0.01),
    integer("compress_level", 4, min=0, max=9),
    **ANIMATION,
)
def save_animated_png(
    images: Raster, filename_prefix: str, fps: float, compress_level: int, job: Job
) -> Output:
    return _animate(
        job, images, filename_prefix, fps, "png", compress_level=compress_level, pnginfo=metadata(job)
    )


def _animate(job: Job, images: Raster, prefix: str, fps: float, suffix: str, **how: Any) -> Output:
    place = job.folders.place("output", prefix, *images.size)
    name = f"{place.name}_{place.counter:05}_.{suffix}"
    first, *rest = images.to_images()
    first.save(place.folder / name, save_all=True, append_images=rest, duration=int(1000 / fps), **how)
    spoil(job, place.folder / name)
    return saved(name, place.subfolder)


def saved(name: str, subfolder: str) -> Output:
    """The `ui` of an animation or video: files under `images`, and the mark that they move."""
    return Output(
        ui={"images": [{"filename": name, "subfolder": subfolder, "type": "output"}], "animated": [True]}
    )


@node(
    "SaveLatent",
    link("samples", "LATENT"),
    string("filename_prefix", "latents/ComfyUI"),
    category="_for_testing",
    **OUTPUT,
)
def save_latent(samples: Latent, filename_prefix: str, job: Job) -> Output:
    """A safetensors file of zeros in the latent's shape; the picture itself is not in it."""
    place = job.folders.place("output", filename_prefix)
    name = f"{place.name}_{place.counter:05}_.latent"
    shape = [samples.batch, 4, samples.height // 8, samples.width // 8]
    count = math.prod(shape) * 4
    texts = {} if job.options.disable_metadata else {"prompt": json.dumps(job.prompt)}
    header = {
        "__metadata__": texts | {"simulated": NOTICE},
        "latent_tensor": {"dtype": "F32", "shape": shape, "data_offsets": [0, count]},
    }
    packed = json.dumps(header).encode()
    (place.folder / name).write_bytes(struct.pack("<Q", len(packed)) + packed + bytes(count))
    return Output(ui={"latents": [{"filename": name, "subfolder": place.subfolder, "type": "output"}]})


@node(
    "SaveImageWebsocket",
    image("images"),
    category="api/image",
    module="custom_nodes.websocket_image_save",
    is_output=True,
    fingerprint=lambda _folders, _inputs: math.nan,
)
def save_image_websocket(images: Raster, job: Job) -> Output:
    """Whole pictures as preview messages; there is no other trace of them, and they are never cached."""
    pictures: list[Image.Image] = images.to_images()
    for index, picture in enumerate(pictures):
        job.progress(index, len(pictures), picture, "PNG")
    return Output()
