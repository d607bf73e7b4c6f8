"""A first manifest for a workflow that has none, from what its graph shows.

Where somebody has marked inputs as editable, in the way of the page published with the couple-photo solution on
Function Compute, these marks decide: `_meta.edit` of a node, or `params` beside the graph, is a list of panels
`{"type": "image" | "select" | "number" | "string" | "group", "id": node id, "key": input name, "title", "description",
"options", "min", "max", "step", "hidden", "children"}`. Elsewhere it is what people usually set: prompts, sizes, seeds,
steps, files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from agent.errors import InvalidManifest
from agent.library.manifest import NAME, Manifest, Place
from comfyui.catalog import Catalog
from comfyui.workflow import SEED_INPUTS, Node, Workflow, is_link

#: Panels within panels; nothing real comes near this.
DEEPEST_GROUP = 8

LARGEST_SIZE = 16384

#: Input name -> name of the parameter, its type, and its limits. In this order they are shown.
NUMBERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "width": ("width", "integer", {"minimum": 1, "maximum": LARGEST_SIZE}),
    "height": ("height", "integer", {"minimum": 1, "maximum": LARGEST_SIZE}),
    "steps": ("steps", "integer", {"minimum": 1, "maximum": 10000}),
    "cfg": ("cfg", "number", {"minimum": 0, "maximum": 100}),
    "guidance": ("guidance", "number", {"minimum": 0, "maximum": 100}),
    "denoise": ("denoise", "number", {"minimum": 0, "maximum": 1}),
    "strength_model": ("lora_strength", "number", {"minimum": -100, "maximum": 100}),
    "strength": ("strength", "number", {}),
}

#: Limits as a manifest calls them, and as /object_info does.
LIMITS = {"minimum": "min", "maximum": "max", "step": "step"}

#: Inputs that hold words for a model.
TEXTS = ("text", "prompt", "text_g", "text_l", "clip_l", "t5xxl", "positive_prompt", "negative_prompt")

#: Input that names a model file -> the folder it lies in.
MODEL_FOLDERS = {
    "ckpt_name": "checkpoints",
    "unet_name": "diffusion_models",
    "vae_name": "vae",
    "lora_name": "loras",
    "control_net_name": "controlnet",
    "clip_name": "text_encoders",
    "clip_name1": "text_encoders",
    "clip_name2": "text_encoders",
    "model_name": "upscale_models",
    "style_model_name": "style_models",
}

#: Nodes whose input of this name is a file that people upload.
FILES = (
    (re.compile(r"LoadImageMask"), "image", "mask"),
    (re.compile(r"LoadImage|.*ImageLoad|LoadImage.*"), "image", "image"),
    (re.compile(r"LoadVideo|VHS_LoadVideo"), "file", "video"),
    (re.compile(r"VHS_LoadVideo"), "video", "video"),
    (re.compile(r"(VHS_)?LoadAudio.*"), "audio", "audio"),
)


def first_manifest(
    workflow: Workflow, name: str, beside: dict[str, Any] | None = None, catalog: Catalog | None = None
) -> Manifest:
    """A manifest to begin with. `beside` is what stood beside the graph in its file. With a catalogue the limits of
    numbers are the engine's, and files are found on any node class.

    Raises InvalidManifest where panels make no sense.
    """
    draft, about = _Draft(), beside or {}
    panels = list(_panels(workflow, about.get("params")))
    if panels:
        for node_id, panel in panels:
            _add_panel(draft, workflow, node_id, panel)
    else:
        _add_usual(draft, workflow, catalog)
    title = about.get("title")
    data = {
        "title": title if isinstance(title, str) and title else name.replace("-", " ").replace("_", " "),
        "parameters": draft.parameters,
        "models": list(_models(workflow)),
    }
    try:
        return Manifest.model_validate(data)
    except ValidationError as exc:
        raise InvalidManifest(f"The panels of {name} make no sense: {exc.errors()[0]['msg']}.") from None


@dataclass
class _Draft:
    """Parameters as they are found. An input that is set already is left alone."""

    parameters: dict[str, dict[str, Any]] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)

    def add(self, wanted: str, place: Place, **more: Any) -> None:
        if str(place) in self.taken:
            return
        self.taken.add(str(place))
        self.parameters[self._free_name(wanted)] = {**more, "sets": [str(place)]}

    def _free_name(self, wanted: str) -> str:
        number, name = 1, wanted
        while name in self.parameters:
            number += 1
            name = f"{wanted}_{number}"
        return name


def _add_usual(draft: _Draft, workflow: Workflow, catalog: Catalog | None) -> None:
    for node, name, kind in _files(workflow, catalog):
        draft.add(
            _slug(node.title, kind) if _has_title(node) else kind,
            Place(node=node.id, input=name),
            title=node.title,
            type=kind,
        )
    negative = set(_feeding(workflow, "negative")) - set(_feeding(workflow, "positive"))
    for node, name in _constants(workflow, TEXTS):
        if isinstance(node.inputs[name], str):
            is_prompt = _encodes_text(node)
            usual = "negative_prompt" if node.id in negative else "prompt"
            draft.add(
                usual if is_prompt else _slug(node.title, name),
                Place(node=node.id, input=name),
                title=node.title,
                type="text",
            )
    for input_name, (parameter_name, kind, limits) in NUMBERS.items():
        for node, name in _constants(workflow, (input_name,)):
            value = node.inputs[name]
            is_size = input_name in ("width", "height")
            if type(value) in (int, float) and not (is_size and not node.class_type.startswith("Empty")):
                shown = "integer" if kind == "integer" else "number"
                title = f"{node.title}: {input_name}"
                draft.add(
                    parameter_name,
                    Place(node=node.id, input=name),
                    title=title,
                    type=shown,
                    **_around(_limits(node, name, catalog) or limits, value),
                )
    for node, name in _constants(workflow, SEED_INPUTS):
        if type(node.inputs[name]) is int:
            draft.add("seed", Place(node=node.id, input=name), title="Seed", type="seed", default=-1)


def _limits(node: Node, name: str, catalog: Catalog | None) -> dict[str, Any]:
    """The limits that the engine has for a number; empty where it is not known."""
    spec = catalog.spec(node.class_type, name) if catalog else None
    options = spec[1] if isinstance(spec, list) and len(spec) > 1 and isinstance(spec[1], dict) else {}
    return {word: options[key] for word, key in LIMITS.items() if type(options.get(key)) in (int, float)}


def _around(limits: dict[str, Any], value: float) -> dict[str, Any]:
    """The usual limits, unless the graph itself goes beyond them."""
    is_within = limits.get("minimum", value) <= value <= limits.get("maximum", value)
    return limits if is_within else {}


def _panels(workflow: Workflow, params: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every panel with the id of its node, those of groups included."""
    for panel in _listed(params):
        yield from _flat(panel, "", is_hidden=False, depth=0)
    for node_id, node in workflow.graph.items():
        meta = node.get("_meta")
        for panel in _listed(meta.get("edit") if isinstance(meta, dict) else None):
            yield from _flat(panel, node_id, is_hidden=False, depth=0)


def _flat(
    panel: dict[str, Any], node_id: str, *, is_hidden: bool, depth: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    node_id = str(panel.get("id") or node_id)
    is_hidden = is_hidden or bool(panel.get("hidden"))
    if panel.get("type") != "group":
        yield node_id, {**panel, "hidden": is_hidden}
    elif depth < DEEPEST_GROUP:
        for child in _listed(panel.get("children")):
            yield from _flat(child, node_id, is_hidden=is_hidden, depth=depth + 1)


def _add_panel(draft: _Draft, workflow: Workflow, node_id: str, panel: dict[str, Any]) -> None:
    key, node = panel.get("key"), workflow.nodes.get(node_id)
    if not isinstance(key, str) or not key or node is None:
        raise InvalidManifest(
            f'A panel for input "{str(key)[:40]}" of node "{node_id[:40]}" leads nowhere in the graph.'
        )
    value = node.inputs.get(key)
    more: dict[str, Any] = {
        "title": str(panel.get("title") or node.title),
        "hidden": panel["hidden"],
        "required": False,
    }
    if isinstance(panel.get("description"), str) and panel["description"]:
        more["description"] = panel["description"]
    options = panel.get("options")
    match panel.get("type"):
        case "image":
            more |= {"type": "image", "required": not value}
        case _ if key in SEED_INPUTS:
            more["type"] = "seed"
        case "select" if isinstance(options, list) and options:
            choices = [option for option in options if type(option) in (str, int, float)]
            more |= {"type": "choice", "choices": choices}
        case "number" | "select" if type(value) in (int, float):
            is_whole = type(value) is int and type(panel.get("step") or 1) is int
            limits = {"minimum": panel.get("min"), "maximum": panel.get("max"), "step": panel.get("step")}
            more |= {"type": "integer" if is_whole else "number"}
            more |= {
                name: limit
                for name, limit in limits.items()
                if isinstance(limit, int | float) and limit is not True
            }
        case _:
            more["type"] = "text" if panel.get("type") == "string" else "string"
    draft.add(_slug(more["title"], key), Place(node=node_id, input=key), **more)


def _models(workflow: Workflow) -> Iterator[dict[str, str]]:
    seen = set()
    for node, name in _constants(workflow, tuple(MODEL_FOLDERS)):
        file = node.inputs[name]
        if isinstance(file, str) and file not in seen:
            seen.add(file)
            yield {"folder": MODEL_FOLDERS[name], "file": file}


def _files(workflow: Workflow, catalog: Catalog | None) -> Iterator[tuple[Node, str, str]]:
    for item in catalog.media_inputs(workflow) if catalog else ():
        node = workflow.nodes[item.node_id]
        kind = "mask" if node.class_type == "LoadImageMask" else item.kind
        if kind in ("mask", "image", "video", "audio"):
            yield node, item.input_name, kind
    for node in workflow.nodes.values():
        if catalog and node.class_type in catalog:
            continue
        for classes, name, kind in FILES:
            if classes.fullmatch(node.class_type) and isinstance(node.inputs.get(name), str):
                yield node, name, kind
                break


def _constants(workflow: Workflow, names: tuple[str, ...]) -> Iterator[tuple[Node, str]]:
    for node in workflow.nodes.values():
        for name in names:
            if name in node.inputs and not is_link(node.inputs[name]):
                yield node, name


def _feeding(workflow: Workflow, input_name: str) -> Iterator[str]:
    """The text encoders that an input of this name gets its words from."""
    for node in workflow.nodes.values():
        for name, source in node.links():
            if name == input_name:
                yield from (n for n in workflow.upstream([source]) if _encodes_text(workflow.nodes[n]))


def _encodes_text(node: Node) -> bool:
    return "TextEncode" in node.class_type


def _has_title(node: Node) -> bool:
    return node.title != node.class_type


def _listed(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _slug(title: str, otherwise: str) -> str:
    """A title as a name; a title that has no letters of a name gives way to the other."""
    for text in (title, otherwise):
        slug = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:32].strip("_")
        # What is left of a title in another script would say nothing.
        if NAME.fullmatch(slug) and (text.isascii() or text is otherwise):
            return slug
    return "value"
