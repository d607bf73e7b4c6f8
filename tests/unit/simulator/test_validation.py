"""Validation beyond what the recordings show."""

from __future__ import annotations

import pytest

from comfyui.simulator.folders import Folders
from comfyui.simulator.validation import validate
from tests.unit.simulator.rasters import CLASSES


@pytest.fixture
def judge(tmp_path):
    folders = Folders(tmp_path)
    return lambda prompt, targets=None: validate(prompt, targets, CLASSES, folders)


def sampler(**changes):
    """PrimitiveInt (1) is shown by PreviewAny (2)."""
    return {
        "1": {"class_type": "PrimitiveInt", "inputs": {"value": 1} | changes},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }


def test_a_sound_prompt_names_its_outputs(judge):
    verdict = judge(sampler())
    assert (verdict.outputs, verdict.error, verdict.node_errors) == (["2"], None, {})


@pytest.mark.parametrize(
    ("given", "kept"), [("12", 12), (8.9, 8), (True, 1), ({"__value__": "3"}, 3), (2**63 - 1, 2**63 - 1)]
)
def test_constants_are_converted_in_place(judge, given, kept):
    prompt = sampler(value=given)
    assert judge(prompt).error is None
    assert prompt["1"]["inputs"]["value"] == kept


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (None, "invalid_input_type"),
        ("x", "invalid_input_type"),
        (2**63, "value_bigger_than_max"),
        (-(2**63), "value_smaller_than_min"),
        ([1, 2, 3], "bad_linked_input"),
    ],
)
def test_bad_constants_are_named(judge, given, kind):
    verdict = judge(sampler(value=given))
    assert [error["type"] for error in verdict.node_errors["1"]["errors"]] == [kind]
    assert verdict.node_errors["1"]["dependent_outputs"] == ["2"]
    assert verdict.error["type"] == "prompt_outputs_failed_validation"


def test_long_lists_are_not_spelled_out(judge):
    inputs = {"sampler_name": "nope", "scheduler": "normal", "seed": 0, "steps": 1, "cfg": 1, "denoise": 1}
    latent = {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}}
    links = {"model": ["4", 0], "positive": ["6", 0], "negative": ["6", 0], "latent_image": ["5", 0]}
    name = "v1-5-pruned-emaonly.safetensors"
    verdict = judge(
        {
            "3": {"class_type": "KSampler", "inputs": inputs | links},
            "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": name}},
            "5": latent,
            "6": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["4", 1], "text": "x"}},
            "9": {"class_type": "SaveLatent", "inputs": {"samples": ["3", 0], "filename_prefix": "x"}},
        }
    )
    (error,) = verdict.node_errors["3"]["errors"]
    assert error["details"].endswith("not in (list of length 42)")
    assert error["extra_info"]["input_config"] is None


def test_a_cycle_is_refused_without_a_word(judge):
    invert = {"class_type": "ImageInvert", "inputs": {"image": ["2", 0]}}
    back = {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}}
    verdict = judge(
        {"1": invert, "2": back, "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}
    )
    assert (verdict.error["details"], verdict.node_errors) == ("", {})


def test_targets_leave_other_outputs_out(judge):
    prompt = sampler() | {"3": {"class_type": "PreviewAny", "inputs": {"source": "x"}}}
    assert judge(prompt, ["3"]).outputs == ["3"]
    assert judge(prompt, ["1"]).error["type"] == "prompt_no_outputs"


@pytest.mark.parametrize("prompt", [None, {"1": 5}])
def test_what_is_no_prompt_at_all_raises(judge, prompt):
    with pytest.raises(TypeError):
        judge(prompt)


def test_a_text_may_fill_a_link_of_any_type(judge):
    assert judge({"1": {"class_type": "PreviewAny", "inputs": {"source": "x"}}}).error is None
