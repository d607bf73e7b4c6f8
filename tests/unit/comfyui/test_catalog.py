"""What a run reads from GET /object_info, against the recording of a real one."""

from __future__ import annotations

from typing import Any

import pytest

from comfyui.catalog import Catalog, MediaInput
from comfyui.workflow import Workflow
from tests.unit.comfyui.recordings import object_info


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog(object_info())


def workflow(*nodes: tuple[str, dict[str, Any]]) -> Workflow:
    return Workflow(
        {str(i): {"class_type": kind, "inputs": inputs} for i, (kind, inputs) in enumerate(nodes, 1)}
    )


def made(class_type: str = "Custom", **inputs: Any) -> Catalog:
    """A catalogue of one class with these required inputs."""
    return Catalog({class_type: {"input": {"required": inputs}}})


def test_media_inputs_are_those_that_the_engine_marks(catalog: Catalog) -> None:
    found = catalog.media_inputs(
        workflow(
            ("LoadImage", {"image": "a.png"}),
            ("LoadImageMask", {"image": "b.png", "channel": "alpha"}),
            ("LoadVideo", {"file": "c.mp4"}),
            ("LoadImageOutput", {"image": "d.png [output]"}),
            ("KSampler", {"seed": 1, "steps": 2}),
            ("SaveImage", {"images": ["1", 0], "filename_prefix": "e.png"}),
        )
    )
    assert [(m.node_id, m.input_name, m.kind, m.value) for m in found] == [
        ("1", "image", "image", "a.png"),
        ("2", "image", "image", "b.png"),
        ("3", "file", "video", "c.mp4"),
        ("4", "image", "image", "d.png [output]"),
    ]


def test_known_names_come_from_the_old_and_from_the_v3_form() -> None:
    spec: dict[str, Any] = {
        "Old": {"input": {"required": {"image": [["a.png", "b.png"], {"image_upload": True}]}}},
        "V3": {"input": {"required": {"file": ["COMBO", {"options": ["c.mp4"], "video_upload": True}]}}},
        "Remote": {"input": {"optional": {"image": ["COMBO", {"image_upload": True, "remote": {}}]}}},
        "Null": {"input": {"optional": {"image": ["COMBO", {"image_upload": True, "options": None}]}}},
        "Odd": {"input": {"optional": {"image": [["a", 1, None], {"image_upload": True}]}}},
    }
    known = {"Old": "b.png", "V3": "c.mp4", "Odd": "a"}
    values = [
        ("Old", "b.png"),
        ("V3", "c.mp4"),
        ("Remote", "x"),
        ("Null", "x"),
        ("Odd", "a"),
        ("Old", "c.mp4"),
    ]
    nodes = workflow(*((name, {"image": value, "file": value}) for name, value in values))
    assert [m.is_known for m in Catalog(spec).media_inputs(nodes)] == [
        known.get(name) == value for name, value in values
    ]


@pytest.mark.parametrize(
    ("flag", "kind"),
    [
        ("image_upload", "image"),
        ("animated_image_upload", "image"),
        ("video_upload", "video"),
        ("audio_upload", "audio"),
        ("file_upload", "file"),
    ],
)
def test_each_upload_flag_means_a_kind_of_file(flag: str, kind: str) -> None:
    (found,) = made(x=[["a"], {flag: True}]).media_inputs(workflow(("Custom", {"x": "v"})))
    assert found == MediaInput("1", "x", kind, "v", is_known=False)


@pytest.mark.parametrize("value", [["1", 0], ["9", 1], []])
def test_a_linked_media_input_is_no_file(catalog: Catalog, value: Any) -> None:
    assert list(catalog.media_inputs(workflow(("LoadImage", {"image": value})))) == []


def test_a_media_input_that_is_left_out_is_the_engines_to_refuse(catalog: Catalog) -> None:
    assert list(catalog.media_inputs(workflow(("LoadImage", {})))) == []


@pytest.mark.parametrize("value", [None, 5, {"a": 1}, "", True])
def test_a_media_input_of_any_constant_is_reported(catalog: Catalog, value: Any) -> None:
    (found,) = catalog.media_inputs(workflow(("LoadImage", {"image": value})))
    assert found.value == value


@pytest.mark.parametrize("flag", [False, 0, None])
def test_a_flag_that_is_off_marks_nothing(flag: Any) -> None:
    assert list(made(x=[["a"], {"image_upload": flag}]).media_inputs(workflow(("Custom", {"x": "v"})))) == []


def test_unknown_nodes_are_listed_by_id(catalog: Catalog) -> None:
    assert catalog.unknown_nodes(workflow(("KSampler", {}), ("Nope", {}), ("NopeToo", {}))) == ["2", "3"]
    assert "KSampler" in catalog
    assert "Nope" not in catalog


def test_output_nodes_are_those_the_engine_executes_for_their_own_sake(catalog: Catalog) -> None:
    kinds = [
        "EmptyImage",
        "SaveImage",
        "PreviewImage",
        "KSampler",
        "SaveImageWebsocket",
        "PreviewAny",
        "Unknown",
    ]
    assert catalog.output_nodes(workflow(*((kind, {}) for kind in kinds))) == ["2", "3", "5", "6"]


@pytest.mark.parametrize(
    ("class_type", "name", "expected"),
    [
        ("KSampler", "seed", (0, 2**64 - 1)),
        ("KSampler", "steps", (1, 10000)),
        ("KSampler", "cfg", None),
        ("KSampler", "sampler_name", None),
        ("KSampler", "model", None),
        ("KSampler", "nope", None),
        ("Nope", "seed", None),
    ],
)
def test_number_ranges_are_those_of_whole_numbers(
    catalog: Catalog, class_type: str, name: str, expected: Any
) -> None:
    assert catalog.number_range(class_type, name) == expected


@pytest.mark.parametrize(
    "spec",
    [
        ["FLOAT", {"min": 0, "max": 1}],
        ["INT"],
        ["INT", {}],
        ["INT", {"min": 0}],
        ["INT", {"min": 0, "max": 1e9}],
        [],
        "INT",
        None,
    ],
)
def test_an_input_without_whole_bounds_has_no_range(spec: Any) -> None:
    assert made(x=spec).number_range("Custom", "x") is None


@pytest.mark.parametrize("description", [{}, {"input": None}, {"input": {}}, {"input": {"required": None}}])
def test_a_class_that_describes_no_inputs_is_no_problem(description: Any) -> None:
    catalog = Catalog({"Custom": description})
    nodes = workflow(("Custom", {"x": 1}))
    assert list(catalog.media_inputs(nodes)) == []
    assert catalog.output_nodes(nodes) == []
    assert catalog.number_range("Custom", "x") is None
