"""Nodes that join, repeat and part batches."""

from __future__ import annotations

from comfyui.simulator.nodes.images import IMAGES_MODULE, joined
from comfyui.simulator.nodes.scaling import centered, scale
from comfyui.simulator.nodes.spec import Registry, image, integer
from comfyui.simulator.raster import Raster

registry = Registry()
node = registry.node


@node("ImageBatch", image("image1"), image("image2"), outputs="IMAGE", title="Batch Images")
def image_batch(image1: Raster, image2: Raster) -> tuple[Raster]:
    second = image2
    if image1.size != image2.size:
        width, height = image1.size
        second = scale(centered(image2, width, height), width, height, "bilinear")
    return (joined([image1, second]),)


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
