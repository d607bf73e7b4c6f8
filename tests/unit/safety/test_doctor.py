"""What the doctor says of the review."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.doctor.finding import Level
from agent.doctor.safety import check_review
from tests.integration.agent.service import settings_of
from tests.labelled.models import write_color_reader


def onnx(path: Path, **changes: Any) -> dict[str, Any]:
    return {
        "safety_images": "enforce",
        "safety_image_classifiers": ["onnx"],
        "safety_onnx_model": str(path),
        "safety_onnx_labels": ["r", "g", "b"],
        "safety_onnx_thresholds": "r=0.7",
        "comfyui_args": f"--base-directory {path.parent}",
        **changes,
    }


async def said(**settings: Any) -> list[tuple[Level, str]]:
    return [(finding.level, finding.text) for finding in await check_review(settings_of(**settings))]


async def test_nothing_is_asked_for() -> None:
    assert await said() == [(Level.OK, "Pictures are not reviewed here.")]


async def test_model_that_can_be_used(tmp_path: Path) -> None:
    write_color_reader(tmp_path / "model.onnx")
    assert await said(**onnx(tmp_path / "model.onnx")) == [
        (Level.OK, "Pictures can be reviewed by failed-image, onnx.")
    ]


@pytest.mark.parametrize(
    ("content", "changes", "words"),
    [
        (None, {}, "is no file"),
        (b"no model", {}, "cannot be loaded"),
        (b"", {"safety_onnx_labels": ["r", "g"]}, "3 numbers for 2 labels"),
    ],
)
async def test_model_that_cannot(
    tmp_path: Path, content: bytes | None, changes: dict[str, Any], words: str
) -> None:
    path = tmp_path / "model.onnx"
    if content == b"":
        write_color_reader(path)
    elif content is not None:
        path.write_bytes(content)
    ((level, text),) = await said(**onnx(path, **changes))
    assert level is Level.PROBLEM
    assert words in text


async def test_extra_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.safety.classifiers.build.find_spec", lambda _: None)
    ((level, text),) = await said(**onnx(tmp_path))
    assert (level, "comfyui-agent[onnx]" in text) == (Level.PROBLEM, True)


async def test_files_that_cannot_be_removed(tmp_path: Path) -> None:
    write_color_reader(tmp_path / "model.onnx")
    ((level, text),) = await said(**onnx(tmp_path / "model.onnx", comfyui_args=""))
    assert (level, "stay there" in text) == (Level.ADVICE, True)
