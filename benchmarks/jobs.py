"""The jobs that are measured, as graphs for the simulator and for a real ComfyUI.

No two graphs are equal and no two inputs have the same bytes: neither the agent nor ComfyUI finds anything in a cache.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic_core import to_json

from benchmarks.pictures import noise_of, photo

Graph = dict[str, Any]

_numbers = itertools.count(1)

#: Files that lie in the engine's input folder from the start.
PRESETS: dict[str, Callable[[], bytes]] = {
    "small.png": lambda: photo(64),
    "photo.png": photo,
    "five.png": lambda: noise_of(5),
}


class Way(StrEnum):
    """How a job's input picture comes to the agent."""

    NONE = "none"  #: there is none
    BASE64 = "base64"
    URL = "url"


@dataclass(frozen=True)
class Job:
    """One kind of job. `seconds` is what the engine takes by itself, on the simulator alone.

    An input is saved again as the output, `copies` times; where `preset` names a file of the engine's, that is saved
    instead and the input is only read.
    """

    name: str
    seconds: float = 0.0
    way: Way = Way.NONE
    picture: bytes = b""
    preset: str | None = None
    copies: int = 1
    to_bucket: bool = False  #: the outputs are wanted as URLs
    nodes: int = 3  #: of a job without pictures, on the simulator; more than three take no time

    def body(self, graph: Graph) -> bytes:
        """What the agent's caller sends."""
        return to_json({"prompt": graph, "outputs": "url"} if self.to_bucket else {"prompt": graph})

    def simulated(self, reference: str | None) -> Graph:
        """The graph for the simulator. `reference`: the value of the input, whatever it is."""
        prefix = f"run-{next(_numbers)}/picture"
        if reference is None and self.preset is None:
            if self.nodes > 3:
                return _tree(self.nodes, prefix)
            return _chain(
                (
                    "EmptyImage",
                    {"width": 64, "height": 64, "batch_size": self.copies, "color": next(_numbers)},
                ),
                ("LabSleep", {"seconds": self.seconds}),
                ("SaveImage", {"filename_prefix": prefix}),
            )
        given: Graph = {"copies": self.copies, "seconds": self.seconds, "filename_prefix": prefix}
        given["image"] = self.preset or reference
        if self.preset is not None and reference is not None:
            given["beside"] = reference
        return {"1": {"class_type": "LabFiles", "inputs": given}}

    def real(self, reference: str | None) -> Graph:
        """The same for a ComfyUI with its own nodes only, which decode and encode every picture."""
        save = ("SaveImage", {"filename_prefix": f"run-{next(_numbers)}/picture"})
        if reference is None and self.preset is None:
            size = {"width": 64, "height": 64, "batch_size": self.copies}
            return _chain(("EmptyImage", {**size, "color": next(_numbers) % 2**24}), save)
        repeat = ("RepeatImageBatch", {"amount": self.copies})
        graph = _chain(("LoadImage", {"image": self.preset or reference}), repeat, save)
        if self.preset is not None and reference is not None:
            graph["in"] = {"class_type": "LoadImage", "inputs": {"image": reference}}
            size = {"width": 64, "height": 64, "x": 0, "y": 0}
            graph["crop"] = {"class_type": "ImageCrop", "inputs": {**size, "image": ["in", 0]}}
            graph["out"] = {"class_type": "PreviewImage", "inputs": {"images": ["crop", 0]}}
        return graph


def _chain(*nodes: tuple[str, dict[str, Any]]) -> Graph:
    """Nodes in a row, each of which takes the pictures of the one before."""
    graph: Graph = {}
    for number, (class_type, inputs) in enumerate(nodes, 1):
        links = {}
        if number > 1:
            links["images" if class_type == "SaveImage" else "image"] = [str(number - 1), 0]
        graph[str(number)] = {"class_type": class_type, "inputs": {**inputs, **links}}
    return graph


#: Nodes in a row. ComfyUI looks at a node's inputs before the node, one inside the other, and Python lets it go only so
#: deep: several hundred nodes in one row are refused.
_ROW = 30


def _tree(nodes: int, prefix: str) -> Graph:
    """A graph of so many nodes: rows of them, whose ends are joined one after the other and saved as one picture."""
    graph: Graph = {}

    def add(class_type: str, **inputs: Any) -> list[Any]:
        graph[str(len(graph) + 1)] = {"class_type": class_type, "inputs": inputs}
        return [str(len(graph)), 0]

    joined: list[Any] | None = None
    while (left := nodes - 2 - len(graph)) > 0:
        row = min(_ROW, left - (joined is not None))
        end = add("EmptyImage", width=64, height=64, batch_size=1, color=next(_numbers))
        for _ in range(row - 1):
            end = add("ImageFlip", image=end, flip_method="x-axis: vertically")
        joined = end if joined is None else add("ImageBatch", image1=joined, image2=end)
    add(
        "SaveImage",
        images=add("ImageFromBatch", image=joined, batch_index=0, length=1),
        filename_prefix=prefix,
    )
    return graph
