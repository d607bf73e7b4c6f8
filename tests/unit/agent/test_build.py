"""What the parts of the service are made from: the engine's folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from agent.build import KEPT_BY_SIMULATOR, KEPT_BY_STRANGER, engine_folders
from tests.integration.agent.service import settings_of

SIMULATOR: dict[str, Any] = {}
STRANGER = {"comfyui_url": "http://127.0.0.1:8188"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (SIMULATOR, [KEPT_BY_SIMULATOR]),
        (STRANGER, [KEPT_BY_STRANGER]),
        ({"comfyui_command": "comfyui --port {port}"}, [KEPT_BY_STRANGER]),
        (STRANGER | {"keep_files_seconds": 0}, []),
    ],
)
def test_log_says_why_the_engines_files_stay(settings: dict[str, Any], said: list[str]) -> None:
    with capture_logs() as lines:
        assert engine_folders(settings_of(**settings)) is None
    assert [line["note"] for line in lines] == said


@pytest.mark.parametrize(
    "settings", [{"comfyui_args": "--base-directory /b"}, STRANGER | {"comfyui_base_directory": "/b"}]
)
def test_nothing_is_said_of_folders_that_are_known(settings: dict[str, Any]) -> None:
    with capture_logs() as lines:
        folders = engine_folders(settings_of(**settings))
    assert folders is not None
    assert folders.temp == Path("/b/temp")
    assert lines == []


def test_folders_of_a_checkout_are_its_own(tmp_path: Path) -> None:
    folders = engine_folders(settings_of(comfyui_root=str(tmp_path)))
    assert folders is not None
    assert folders.output == tmp_path / "output"
