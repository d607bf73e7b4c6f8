"""Nodes for tests, on request only: progress, blocking, expansion, asynchrony, odd `ui`, failure, delay."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfyui.simulator.nodes.images import content_of, file_exists
from comfyui.simulator.nodes.spec import (
    Blocker,
    Later,
    Output,
    Registry,
    choice,
    image,
    integer,
    number,
    optional,
    string,
)

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


@node(
    "LabFiles",
    choice("image", lambda folders: folders.input_files(), image_upload=True),
    integer("copies", 1, min=1, max=4096),
    number("seconds", 0.0, min=0.0, max=3600.0),
    string("filename_prefix", "ComfyUI"),
    optional(choice("beside", lambda folders: folders.input_files(), image_upload=True)),
    category="lab",
    is_output=True,
    check={"image": file_exists, "beside": file_exists},
    fingerprint=content_of,
)
def lab_files(
    image: str, copies: int, seconds: float, filename_prefix: str, job: Job, beside: str | None = None
) -> Output:
    """Takes its time, then saves a PNG again without looking at its pixels: large pictures from an engine that has
    next to no work with them. Each copy differs in its metadata, as those of a real save node do. `beside` is a
    further input file, which is only read."""
    if beside is not None:
        Path(job.folders.locate(beside)).read_bytes()
    job.sleep(seconds)
    picture = Path(job.folders.locate(image)).read_bytes()
    place = job.folders.place("output", filename_prefix)
    entries = []
    for index in range(copies):
        name = f"{place.name}_{place.counter + index:05}_.png"
        after_header = 33  # the signature and the first chunk, IHDR, which has a fixed length
        parts = (picture[:after_header], _text_chunk("copy", str(index)), picture[after_header:])
        (place.folder / name).write_bytes(b"".join(parts))
        entries.append({"filename": name, "subfolder": place.subfolder, "type": "output"})
    return Output(ui={"images": entries})


def _text_chunk(keyword: str, text: str) -> bytes:
    """A tEXt chunk of a PNG."""
    body = b"tEXt" + keyword.encode() + b"\0" + text.encode()
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
