"""Nodes for tests, on request only: progress, blocking, expansion, asynchrony, odd `ui`, failure, delay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfyui.simulator.nodes.spec import Blocker, Later, Output, Registry, image, integer, number, string

if TYPE_CHECKING:
    from comfyui.simulator.nodes.job import Job
    from comfyui.simulator.raster import Raster

registry = Registry("custom_nodes.lab_nodes")
node = registry.node

LAB: dict[str, Any] = {"outputs": "IMAGE", "category": "lab"}


@node(
    "LabSteps",
    image(),
    integer("steps", 3, min=1, max=1000),
    number("seconds", 0.1, min=0.0, max=60.0),
    **LAB,
)
def lab_steps(image: Raster, steps: int, seconds: float, job: Job) -> tuple[Raster]:
    """Sleeps `steps` times and reports each."""
    for step in range(1, steps + 1):
        job.sleep(seconds)
        job.progress(step, steps)
    return (image,)


@node("LabBlock", image(), string("text", ""), **LAB)
def lab_block(image: Raster, text: str) -> tuple[Blocker]:  # noqa: ARG001 - it is what is blocked
    """Blocks everything behind it, with a message if there is a text."""
    return (Blocker(text or None),)


@node("LabExpand", image(), **LAB)
def lab_expand(image: Raster) -> Output:
    """Expands into an inversion and a preview of it. The names are relative; the executor makes them unique."""
    inverted = {"class_type": "ImageInvert", "inputs": {"image": image}}
    preview = {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}
    return Output(values=(["1", 0],), expand={"1": inverted, "2": preview})


@node("LabAsync", image(), number("seconds", 0.3), is_async=True, **LAB)
def lab_async(image: Raster, seconds: float) -> Later:
    """Waits without holding up other nodes."""
    return Later(seconds, (image,))


@node("LabOutput", image(), is_output=True, **LAB)
def lab_output(image: Raster) -> Output:
    """An output node with unusual `ui` and a result beside it."""
    gif = {"filename": "x.gif", "subfolder": "", "type": "output", "format": "image/gif"}
    return Output((image,), ui={"gifs": [gif], "numbers": [1, 2.5], "text": ["a", "b"], "empty": []})


@node("LabRaise", image(), string("message", "raised on purpose"), **LAB)
def lab_raise(image: Raster, message: str) -> tuple[Raster]:  # noqa: ARG001 - never passed on
    """Fails while running."""
    raise RuntimeError(message)


@node("LabSleep", image(), number("seconds", 1.0, min=0.0, max=3600.0), **LAB)
def lab_sleep(image: Raster, seconds: float, job: Job) -> tuple[Raster]:
    """Takes its time without a word, so that an interrupt waits for its end."""
    job.sleep(seconds)
    return (image,)
