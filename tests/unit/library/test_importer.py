"""First manifests, from panels and from bare graphs."""

from __future__ import annotations

from typing import Any

import pytest

from agent.errors import InvalidManifest
from agent.library.importer import first_manifest
from agent.library.manifest import Kind
from comfyui.catalog import Catalog
from comfyui.workflow import Workflow
from tests.unit.library.shelf import GRAPH, object_info


def imported(graph: dict[str, Any], **beside: Any) -> dict[str, Any]:
    manifest = first_manifest(Workflow.parse(graph), "made-up", beside)
    return manifest.parameters


def edited(*panels: Any, node: str = "3") -> dict[str, Any]:
    return {**GRAPH, node: {**GRAPH[node], "_meta": {"title": "Sampler", "edit": list(panels)}}}


def test_usual_inputs_of_a_bare_graph_become_parameters() -> None:
    found = imported(GRAPH)
    assert {name: (p.type, p.sets) for name, p in found.items()} == {
        "prompt": (Kind.TEXT, ["6.text"]),
        "negative_prompt": (Kind.TEXT, ["7.text"]),
        "width": (Kind.INTEGER, ["5.width"]),
        "height": (Kind.INTEGER, ["5.height"]),
        "steps": (Kind.INTEGER, ["3.steps"]),
        "cfg": (Kind.NUMBER, ["3.cfg"]),
        "denoise": (Kind.NUMBER, ["3.denoise"]),
        "seed": (Kind.SEED, ["3.seed"]),
    }
    assert found["seed"].default == -1
    manifest = first_manifest(Workflow.parse(GRAPH), "made-up")
    assert manifest.title == "made up"
    assert [(m.folder, m.file) for m in manifest.models] == [
        ("checkpoints", "v1-5-pruned-emaonly.safetensors")
    ]


def test_files_get_the_names_of_their_nodes() -> None:
    graph = GRAPH | {
        "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}, "_meta": {"title": "Her Photo!"}},
        "2": {"class_type": "LoadImage", "inputs": {"image": "a.png"}, "_meta": {"title": "照片"}},
        "10": {"class_type": "LoadImage", "inputs": {"image": "a.png"}},
        "11": {"class_type": "LoadImageMask", "inputs": {"image": "a.png", "channel": "red"}},
    }
    files = {name: (p.type.value, p.sets[0]) for name, p in imported(graph).items() if p.type.is_file}
    assert files == {
        "her_photo": ("image", "1.image"),
        "image": ("image", "2.image"),
        "image_2": ("image", "10.image"),
        "mask": ("mask", "11.image"),
    }


def test_with_a_catalogue_files_of_any_class_and_the_engines_limits_are_found() -> None:
    info = object_info() | {
        "OwnLoader": {
            "input": {"required": {"file": [["a.mp4"], {"video_upload": True}]}},
            "output": ["IMAGE"],
        }
    }
    graph = GRAPH | {"1": {"class_type": "OwnLoader", "inputs": {"file": "a.mp4"}}}
    found = first_manifest(Workflow.parse(graph), "x", None, Catalog(info)).parameters
    assert (found["video"].type, found["video"].sets) == (Kind.VIDEO, ["1.file"])
    assert (found["cfg"].minimum, found["cfg"].maximum, found["cfg"].step) == (0, 100, 0.1)
    assert (found["width"].minimum, found["width"].step) == (16, 8)


def test_linked_inputs_are_left_alone() -> None:
    graph = {
        **GRAPH,
        "3": {**GRAPH["3"], "inputs": {**GRAPH["3"]["inputs"], "seed": ["5", 0], "steps": ["5", 0]}},
    }
    assert not {"seed", "steps"} & imported(graph).keys()


def test_panels_of_the_nodes_decide_alone() -> None:
    found = imported(
        edited(
            {"type": "number", "key": "steps", "title": "步数", "min": 1, "max": 50, "step": 1},
            {
                "type": "number",
                "key": "cfg",
                "title": "CFG",
                "min": 0,
                "max": 20,
                "step": 0.5,
                "description": "How close",
            },
            {"type": "number", "key": "seed", "title": "Seed", "hidden": True},
            {"type": "select", "key": "sampler_name", "title": "Sampler", "options": ["euler", "heun"]},
            {"type": "string", "id": "6", "key": "text", "title": "Prompt"},
        )
    )
    shown = {name: p.model_dump(exclude_defaults=True) for name, p in found.items()}
    common = {"required": False}
    assert shown == {
        "steps": {
            **common,
            "title": "步数",
            "type": "integer",
            "sets": ["3.steps"],
            "minimum": 1,
            "maximum": 50,
            "step": 1,
        },
        "cfg": {
            **common,
            "title": "CFG",
            "description": "How close",
            "type": "number",
            "sets": ["3.cfg"],
            "minimum": 0,
            "maximum": 20,
            "step": 0.5,
        },
        "seed": {**common, "title": "Seed", "type": "seed", "sets": ["3.seed"], "hidden": True},
        "sampler": {
            **common,
            "title": "Sampler",
            "type": "choice",
            "sets": ["3.sampler_name"],
            "choices": ["euler", "heun"],
        },
        "prompt": {**common, "title": "Prompt", "type": "text", "sets": ["6.text"]},
    }


def test_params_beside_the_graph_are_the_same_panels_and_groups_are_opened() -> None:
    graph = GRAPH | {"1": {"class_type": "LoadImage", "inputs": {"image": ""}}}
    params = [
        {
            "type": "group",
            "title": "Photos",
            "hidden": True,
            "children": [
                {"type": "image", "id": "1", "key": "image", "title": "Left", "options": "LoadImage"}
            ],
        },
        {"type": "number", "id": "3", "key": "steps", "title": "Steps"},
    ]
    found = imported(graph, params=params, title="情侣照")
    assert (found["left"].type, found["left"].hidden, found["left"].required) == (Kind.IMAGE, True, True)
    assert not found["steps"].hidden
    assert first_manifest(Workflow.parse(graph), "x", {"params": params, "title": "情侣照"}).title == "情侣照"


@pytest.mark.parametrize(
    "panel",
    [
        {"type": "number", "key": "steps", "id": "99"},
        {"type": "number"},
        {"type": "number", "key": 5},
        {"type": "number", "key": "steps", "min": 9, "max": 1},
    ],
)
def test_panel_that_makes_no_sense_is_named(panel: dict[str, Any]) -> None:
    with pytest.raises(InvalidManifest):
        imported(edited(panel))


@pytest.mark.parametrize("edit", [True, "steps", {"a": 1}, [1, None, "x"], [], None])
def test_edit_that_is_no_list_of_panels_says_nothing(edit: Any) -> None:
    graph = {**GRAPH, "3": {**GRAPH["3"], "_meta": {"edit": edit}}}
    assert "prompt" in imported(graph)
