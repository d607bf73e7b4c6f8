"""The JSON Schema of a workflow's parameters."""

from __future__ import annotations

import jsonschema_rs
import pytest

from agent.library.library import Library, NamedWorkflow
from agent.library.schema import schema_of
from comfyui.catalog import Catalog
from tests.unit.library.shelf import GRAPH, named, object_info


@pytest.mark.parametrize("workflow", Library().all(), ids=lambda named: named.name)
def test_every_shipped_schema_is_valid_and_takes_its_own_defaults(workflow: NamedWorkflow) -> None:
    schema = schema_of(workflow)
    jsonschema_rs.meta.validate(schema)
    defaults = {name: found["default"] for name, found in schema["properties"].items() if "default" in found}
    missing = dict.fromkeys(schema["required"], "cat.png")
    jsonschema_rs.Draft202012Validator(schema).validate(defaults | missing)


def test_whole_schema_of_a_parameter() -> None:
    parameter = {
        "title": {"en": "Steps", "zh": "步数", "ja": "ステップ"},
        "description": "How many",
        "type": "integer",
        "sets": "3.steps",
        "minimum": 1,
        "maximum": 50,
        "step": 1,
        "hidden": True,
    }
    schema = schema_of(named({"steps": parameter}))
    assert schema == {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Made up",
        "type": "object",
        "properties": {
            "steps": {
                "title": "Steps",
                "description": "How many",
                "type": "integer",
                "default": 20,
                "minimum": 1,
                "maximum": 50,
                "x-type": "integer",
                "x-order": 0,
                "x-titles": {"en": "Steps", "zh": "步数", "ja": "ステップ"},
                "x-step": 1,
                "x-hidden": True,
            }
        },
        "required": [],
        "additionalProperties": False,
    }


def test_choices_masks_and_files_say_what_a_form_needs() -> None:
    loaders = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}},
        "2": {"class_type": "LoadImageMask", "inputs": {"image": "b.png", "channel": "red"}},
    }
    found = schema_of(
        named(
            {
                "sampler": {
                    "type": "choice",
                    "sets": "3.sampler_name",
                    "choices": {"euler": "Euler", "heun": {"en": "Heun", "zh": "Heun 法"}},
                },
                "photo": {"type": "image", "sets": "1.image"},
                "mask": {"type": "mask", "sets": "2.image", "mask_of": "photo"},
                "model": {"type": "model", "sets": "4.ckpt_name"},
                "title": {"type": "string", "sets": "9.filename_prefix", "multiline": True},
            },
            {**GRAPH, **loaders},
        ),
        Catalog(object_info()),
    )
    properties = found["properties"]
    assert found["required"] == ["photo", "mask"]
    assert properties["sampler"]["enum"] == ["euler", "heun"]
    assert properties["sampler"]["x-choices-titles"]["heun"] == {"en": "Heun", "zh": "Heun 法"}
    assert properties["mask"]["x-mask-of"] == "photo"
    assert "default" not in properties["photo"]
    assert (
        properties["model"]["x-files"]
        == object_info()["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0]
    )
    assert properties["title"]["x-multiline"] is True
