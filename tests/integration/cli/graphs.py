"""Small workflows."""

from __future__ import annotations

import json
import random
from typing import Any

from tests.integration.cli.conftest import ROOT


def flat(color: int = 0x0000FF, count: int = 1) -> dict[str, Any]:
    """`count` pictures of one colour, 8 x 8."""
    inputs = {"width": 8, "height": 8, "batch_size": count, "color": color}
    return {
        "1": {"class_type": "EmptyImage", "inputs": inputs},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "flat"}},
    }


def two_saves() -> dict[str, Any]:
    """Node 9 saves red, node 2 saves green: in this order."""
    red, green = flat(0xFF0000), flat(0x00FF00)
    red["2"]["inputs"]["images"] = ["8", 0]
    return {"8": red["1"], "9": red["2"], "1": green["1"], "2": green["2"]}


def failing() -> dict[str, Any]:
    """ImageBlur raises where the picture is smaller than its radius."""
    graph = flat()
    inputs = {"image": ["1", 0], "blur_radius": 31, "sigma": 1.0}
    graph["3"] = {"class_type": "ImageBlur", "inputs": inputs, "_meta": {"title": "Too much"}}
    graph["2"]["inputs"]["images"] = ["3", 0]
    return graph


def sampled(**inputs: Any) -> dict[str, Any]:
    """The ready text-to-image workflow with other inputs of its sampler."""
    graph = json.loads((ROOT / "workflows" / "text-to-image.json").read_text())
    sampler = next(node for node in graph.values() if node["class_type"] == "KSampler")
    sampler["inputs"].update(inputs)
    return graph


def fresh_seed() -> int:
    """One that no test has used, so that the engine has nothing in its cache."""
    return random.getrandbits(63)
