"""Workflows as callers send them. Each function returns a fresh one, so a test may change it."""

from __future__ import annotations

from itertools import count
from typing import Any

Graph = dict[str, Any]

#: Every use gives a number nobody had before, so that no picture comes out of the engine's cache by accident.
_fresh = count(1)

RED, GREEN, BLUE = 0xFF0000, 0x00FF00, 0x0000FF


def fresh_color() -> int:
    return next(_fresh) * 7919 % 0xFFFFFF + 1


def rgb(color: int) -> tuple[int, int, int]:
    return color >> 16, color >> 8 & 0xFF, color & 0xFF


def node(class_type: str, title: str | None = None, **inputs: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"class_type": class_type, "inputs": inputs}
    return made if title is None else {**made, "_meta": {"title": title}}


def chain(*nodes: dict[str, Any]) -> Graph:
    """Nodes "1", "2", ...; the input that is `...` (or `images`, if there is none) comes from the one before."""
    graph: Graph = {}
    for number, made in enumerate(nodes, 1):
        inputs = {k: [str(number - 1), 0] if v is ... else v for k, v in made["inputs"].items()}
        graph[str(number)] = {**made, "inputs": inputs}
    return graph


def empty(color: int | None = None, size: tuple[int, int] = (8, 8), batch: int = 1) -> dict[str, Any]:
    chosen = fresh_color() if color is None else color
    return node("EmptyImage", width=size[0], height=size[1], batch_size=batch, color=chosen)


def save(prefix: str = "agent-test", **inputs: Any) -> dict[str, Any]:
    return node("SaveImage", **{"images": ..., "filename_prefix": prefix, **inputs})


def preview() -> dict[str, Any]:
    return node("PreviewImage", images=...)


def painted(color: int | None = None, size: tuple[int, int] = (8, 8), **changes: Any) -> Graph:
    """One picture of one colour, saved by node 2."""
    return chain(empty(color, size), save(**changes))


def loaded(value: Any, **load: Any) -> Graph:
    """A LoadImage with this value, saved by node 2."""
    return chain(node("LoadImage", image=value, **load), save())


def stepping(steps: int = 200, seconds: float = 0.02, color: int | None = None) -> Graph:
    """Takes steps * seconds, reports each step, can be interrupted at each."""
    return chain(
        empty(color), node("LabSteps", "The slow one", image=..., steps=steps, seconds=seconds), preview()
    )


def sleeping(seconds: float, color: int | None = None) -> Graph:
    """Takes its time without a word."""
    return chain(empty(color), node("LabSleep", image=..., seconds=seconds), preview())


def raising(message: str = "raised on purpose") -> Graph:
    return chain(empty(), node("LabRaise", "Troublemaker", image=..., message=message), preview())


def sampled(checkpoint: str = "tiny.safetensors", *, steps: int = 4, seed: int | None = None) -> Graph:
    """A whole text-to-image workflow; node 5 is the sampler, node 7 saves."""
    return {
        "1": node("CheckpointLoaderSimple", ckpt_name=checkpoint),
        "2": node("CLIPTextEncode", clip=["1", 1], text="a cat"),
        "3": node("CLIPTextEncode", clip=["1", 1], text="a dog"),
        "4": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "5": node(
            "KSampler",
            model=["1", 0],
            positive=["2", 0],
            negative=["3", 0],
            latent_image=["4", 0],
            seed=next(_fresh) if seed is None else seed,
            steps=steps,
            cfg=7.5,
            sampler_name="euler",
            scheduler="normal",
            denoise=1.0,
        ),
        "6": node("VAEDecode", samples=["5", 0], vae=["1", 2]),
        "7": node("SaveImage", images=["6", 0], filename_prefix="agent-test"),
    }


def cycle() -> Graph:
    return {
        "1": node("ImageInvert", image=["2", 0]),
        "2": node("ImageInvert", image=["1", 0]),
        "3": node("SaveImage", images=["2", 0], filename_prefix="x"),
    }
