"""The settings of the review, and how a request tightens them."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from agent.errors import InvalidOptions
from agent.safety.classifiers.build import build_image_classifiers
from agent.safety.options import SafetyOptions, modes_of
from agent.safety.settings import Mode, parse_colors, parse_size
from agent.safety.thresholds import parse_thresholds, threshold_of
from agent.settings import SettingsError
from tests.integration.agent.service import settings_of

ONNX = {
    "safety_image_classifiers": ["onnx"],
    "safety_onnx_model": "/no/such/model.onnx",
    "safety_onnx_labels": ["safe", "nsfw"],
    "safety_onnx_thresholds": "nsfw=0.7",
}


@pytest.mark.parametrize(("server", "asked"), list(product(Mode, [*Mode, None])))
def test_request_can_only_tighten(server: Mode, asked: Mode | None) -> None:
    settings = settings_of(safety_failed_images=server)
    options = SafetyOptions(failed_images=asked)
    if asked is not None and asked.strength < server.strength:
        with pytest.raises(InvalidOptions, match=f'"{server.value}"'):
            modes_of(settings, options)
    else:
        assert modes_of(settings, options).failed_images is (asked or server)
    assert modes_of(settings, None).failed_images is server


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"safety_images": "warn"}, "AGENT_SAFETY_IMAGE_CLASSIFIERS"),
        ({"safety_image_classifiers": ["tarot"]}, "tarot is none of onnx, rekognition, http"),
        ({"safety_image_classifiers": ["http"]}, "AGENT_SAFETY_IMAGE_URL"),
        ({"safety_image_url": "classifier:8080"}, "http://host:port"),
        ({"safety_image_classifiers": ["onnx"]}, "AGENT_SAFETY_ONNX_MODEL, AGENT_SAFETY_ONNX_LABELS"),
        ({**ONNX, "safety_onnx_thresholds": "gore=0.5"}, "gore"),
        ({**ONNX, "safety_onnx_thresholds": "nsfw"}, "label=0.8"),
        ({**ONNX, "safety_onnx_size": "big"}, "224x256"),
        ({**ONNX, "safety_onnx_mean": "0.5"}, "three numbers"),
        ({**ONNX, "safety_onnx_std": "0.5,x,1"}, "three numbers"),
        ({"safety_rekognition_thresholds": "*=2"}, "at most 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words.replace("*", r"\*")):
        settings_of(**values)


def test_what_is_missing_on_the_machine_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError, match=r"AGENT_SAFETY_ONNX_MODEL: /no/such/model.onnx is no file"):
        build_image_classifiers(settings_of(**ONNX))
    model = tmp_path / "model.onnx"
    model.touch()
    assert len(build_image_classifiers(settings_of(**{**ONNX, "safety_onnx_model": str(model)}))) == 1
    monkeypatch.setattr("agent.safety.classifiers.build.find_spec", lambda _: None)
    for name, extra in (("onnx", r"\[onnx\]"), ("rekognition", r"\[aws\]")):
        settings = settings_of(**{**ONNX, "safety_image_classifiers": [name]})
        with pytest.raises(SettingsError, match=f"install comfyui-agent{extra}"):
            build_image_classifiers(settings)


def test_secrets_are_not_shown() -> None:
    settings = settings_of(
        safety_image_classifiers=["http"],
        safety_image_url="http://10.0.0.1/?key=hook-secret",
        safety_image_authorization="Bearer hook-secret",
    )
    assert "hook-secret" not in repr(settings)


def test_thresholds() -> None:
    found = parse_thresholds("Explicit=0.6, graphic violence=0.9,a=b=1,*=0.75")
    assert found == {"explicit": 0.6, "graphic violence": 0.9, "a=b": 1.0, "*": 0.75}
    assert threshold_of(found, ["Graphic Violence", "Violence"]) == 0.9
    assert threshold_of(found, ["Nudity", "Explicit"]) == 0.6
    assert threshold_of(found, ["Hats", ""]) == 0.75
    assert threshold_of({"nsfw": 0.5}, ["safe"]) is None
    for wrong in ("", "x", "x=0", "x=1.01", "=0.5", "x=nan", "x=0.5,y"):
        with pytest.raises(ValueError, match=r"label=0\.8|at least one"):
            parse_thresholds(wrong)


def test_sizes_and_colors() -> None:
    assert parse_size("224") == (224, 224)
    assert parse_size("224X256") == (224, 256)
    for wrong in ("0", "-1", "224x", "1x2x3", "99999", "one"):
        with pytest.raises(ValueError, match="224"):
            parse_size(wrong)
    assert parse_colors("0.5, 1,0") == (0.5, 1.0, 0.0)
