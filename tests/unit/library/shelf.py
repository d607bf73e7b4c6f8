"""Named workflows made for a test."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from agent.library.library import NamedWorkflow, load
from agent.library.manifest import Manifest
from comfyui.workflow import Workflow

GRAPH: dict[str, Any] = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 5,
            "steps": 20,
            "cfg": 7.5,
            "sampler_name": "euler",
            "scheduler": "normal",
            "denoise": 1.0,
            "model": ["4", 0],
            "positive": ["6", 0],
            "negative": ["7", 0],
            "latent_image": ["5", 0],
        },
        "_meta": {"title": "Sampler"},
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "v1-5-pruned-emaonly.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 512, "batch_size": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "a dog", "clip": ["4", 1]}},
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "x"}},
}


@cache
def object_info() -> dict[str, Any]:
    """What a real ComfyUI says of the classes that the shipped workflows use."""
    recorded = Path(__file__).parents[2] / "golden/library/object_info.json"
    content: dict[str, Any] = json.loads(recorded.read_text())
    return content


def named(parameters: dict[str, Any], graph: dict[str, Any] = GRAPH, **more: Any) -> NamedWorkflow:
    """A workflow with these parameters; those that say nothing of it get a title."""
    titled = {name: {"title": name, **parameter} for name, parameter in parameters.items()}
    manifest = Manifest.model_validate({"title": "Made up", "parameters": titled, **more})
    return NamedWorkflow("made-up", manifest, Workflow.parse(graph))


def write(folder: Path, name: str, graph: Any = GRAPH, manifest: Any = None) -> NamedWorkflow:
    """Put a workflow into a folder and read it. A manifest that is text is written as it is."""
    (folder / f"{name}.json").write_text(json.dumps(graph))
    if manifest is not None:
        text = manifest if isinstance(manifest, str) else yaml.safe_dump(manifest)
        (folder / f"{name}.yaml").write_text(text)
    return load(folder / f"{name}.json")
