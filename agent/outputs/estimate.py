"""What a workflow will surely produce, read from its graph alone.

The size of an answer is known only once the GPU has worked for it. But a batch of forty large pictures is no surprise:
the size of the empty latent is the size of the pictures, unless something in between changes it. So this walks from
the nodes that save PNG files up to the empty latents, through nodes that are known to keep the size (or to enlarge the
picture, which is not counted). Whatever else stands in between makes the size unknown, and unknown counts as nothing.

Half a byte for each pixel is assumed. A PNG of a photograph takes 1.2 to 2 bytes a pixel, one of a smooth drawing
about 0.6; only large areas of one colour come below, and samplers hardly paint those. `EmptyImage` is not counted for
that reason: it is such an area.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from agent.outputs.size import base64_bytes
from comfyui.workflow import Node, Workflow, is_link

BYTES_PER_PIXEL = 0.5

#: Nodes that save each picture as a PNG file, and the input that the pictures come from.
SAVERS = {"SaveImage": "images", "PreviewImage": "images", "SaveImageWebsocket": "images"}

#: Nodes whose pictures are as many and at least as large as those that come in by this input.
KEEPERS = {
    "KSampler": "latent_image",
    "KSamplerAdvanced": "latent_image",
    "SamplerCustom": "latent_image",
    "SamplerCustomAdvanced": "latent_image",
    "VAEDecode": "samples",
    "VAEDecodeTiled": "samples",
    "ImageUpscaleWithModel": "image",
    "ImageInvert": "image",
    "ImageSharpen": "image",
    "ImageBlur": "image",
}


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the nodes that save will at least produce: pixels of all pictures, and bytes of them in an answer."""

    pixels: int
    answer_bytes: int
    node_id: str  #: the node with the most of it


def estimate(workflow: Workflow, targets: Iterable[str] | None = None) -> Estimate | None:
    """What the workflow, or those of its nodes that are targets, will surely produce; None: that cannot be told."""
    wanted = None if targets is None else set(targets)
    known: dict[str, int] = {}
    pixels = {
        node.id: found
        for node in workflow.nodes.values()
        if node.class_type in SAVERS and (wanted is None or node.id in wanted)
        if (found := _pixels(workflow, node.inputs.get(SAVERS[node.class_type]), known))
    }
    if not pixels:
        return None
    total = sum(pixels.values())
    largest = max(pixels, key=lambda node_id: pixels[node_id])
    return Estimate(total, base64_bytes(int(total * BYTES_PER_PIXEL)), largest)


def _pixels(workflow: Workflow, link: Any, known: dict[str, int]) -> int:
    """Pixels of what comes by this link; 0: unknown. `known` has those of the nodes that were passed already."""
    passed: list[str] = []
    found = 0
    while is_link(link):
        node = workflow.nodes[link[0]]
        if node.id in known:
            found = known[node.id]
            break
        passed.append(node.id)
        if _is_empty_latent(node):
            found = _count(node)
            break
        link = node.inputs.get(KEEPERS.get(node.class_type, ""))
    known.update(dict.fromkeys(passed, found))
    return found


def _is_empty_latent(node: Node) -> bool:
    """All of them are called so: EmptyLatentImage, EmptySD3LatentImage, EmptyHunyuanLatentVideo, ..."""
    return node.class_type.startswith("Empty") and "Latent" in node.class_type


def _count(node: Node) -> int:
    width, height = _number(node, "width"), _number(node, "height")
    # A video's frames are saved as one picture each.
    return width * height * (_number(node, "batch_size") or 1) * (_number(node, "length") or 1)


def _number(node: Node, name: str) -> int:
    value: Any = node.inputs.get(name)
    return value if type(value) is int and value > 0 else 0
