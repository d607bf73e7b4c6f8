"""What an engine's `GET /object_info` says of its node classes, as far as a run needs it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from comfyui.workflow import Workflow

#: Flag of an input in /object_info -> kind of file that the editor lets people upload there.
UPLOAD_FLAGS = {
    "image_upload": "image",
    "animated_image_upload": "image",
    "video_upload": "video",
    "audio_upload": "audio",
    "file_upload": "file",
}


@dataclass(frozen=True, slots=True)
class MediaInput:
    """An input of a workflow node whose value names a file. `kind` is image, video, audio or file; `is_known`:
    the engine listed this name when the catalogue was read."""

    node_id: str
    input_name: str
    kind: str
    value: Any
    is_known: bool


class Catalog:
    """The node classes of one engine. Custom nodes are loaded only at its start, so a catalogue holds for as
    long as the engine runs; only the lists of files in it grow old."""

    def __init__(self, object_info: Mapping[str, Any]) -> None:
        self._classes = object_info

    def __contains__(self, class_type: str) -> bool:
        return class_type in self._classes

    def unknown_nodes(self, workflow: Workflow) -> list[str]:
        """Ids of the nodes whose class this engine does not have. One of them is enough for ComfyUI to refuse."""
        return [node.id for node in workflow.nodes.values() if node.class_type not in self]

    def output_nodes(self, workflow: Workflow) -> list[str]:
        """Ids of the nodes that ComfyUI executes for their own sake."""
        return [
            n.id for n in workflow.nodes.values() if self._classes.get(n.class_type, {}).get("output_node")
        ]

    def media_inputs(self, workflow: Workflow) -> Iterator[MediaInput]:
        """The inputs that are marked as uploads and hold a constant, in the workflow's order."""
        for node in workflow.nodes.values():
            for name, spec in self._inputs(node.class_type):
                kind = next((k for flag, k in UPLOAD_FLAGS.items() if _options(spec).get(flag)), None)
                if kind and name in node.inputs and not isinstance(node.inputs[name], list):
                    value = node.inputs[name]
                    yield MediaInput(node.id, name, kind, value, is_known=value in _choices(spec))

    def number_range(self, class_type: str, input_name: str) -> tuple[int, int] | None:
        """Smallest and largest value of an INT input, or None if it is not one or has no bounds."""
        spec = dict(self._inputs(class_type)).get(input_name)
        if not isinstance(spec, list) or spec[:1] != ["INT"]:
            return None
        low, high = _options(spec).get("min"), _options(spec).get("max")
        return (low, high) if isinstance(low, int) and isinstance(high, int) else None

    def required(self, class_type: str) -> list[str]:
        """Names of the inputs that a node of this class must have."""
        return list((self._classes.get(class_type, {}).get("input") or {}).get("required") or {})

    def outputs(self, class_type: str) -> list[str]:
        """Types of what a node of this class gives. A list of choices counts as COMBO."""
        found = self._classes.get(class_type, {}).get("output") or []
        return [kind if isinstance(kind, str) else "COMBO" for kind in found]

    def choices(self, class_type: str, input_name: str) -> list[Any] | None:
        """What an input may be; None for one that is not chosen from a list, or whose class is unknown."""
        spec = self.spec(class_type, input_name)
        is_list = isinstance(spec, list) and spec and (isinstance(spec[0], list) or spec[0] == "COMBO")
        return _choices(spec) if is_list else None

    def spec(self, class_type: str, input_name: str) -> Any:
        """What /object_info says of an input, `[type, options]`; None where there is no such input."""
        return dict(self._inputs(class_type)).get(input_name)

    def _inputs(self, class_type: str) -> Iterator[tuple[str, Any]]:
        groups = self._classes.get(class_type, {}).get("input") or {}
        for group in ("required", "optional"):
            yield from (groups.get(group) or {}).items()


def _options(spec: Any) -> Mapping[str, Any]:
    has_options = isinstance(spec, list) and len(spec) > 1 and isinstance(spec[1], dict)
    return spec[1] if has_options else {}


def _choices(spec: Any) -> list[Any]:
    """Old nodes list their choices in place of the type, newer ones under "options"."""
    choices = spec[0] if isinstance(spec[0], list) else _options(spec).get("options")
    return choices if isinstance(choices, list) else []
