"""What is said at the start of folders that are not there."""

from __future__ import annotations

from pathlib import Path

from structlog.testing import capture_logs

from agent.settings import Settings
from agent.start_check import warn_of_folders


def test_each_folder_that_cannot_be_used_is_one_warning(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = Settings(store_dir=str(tmp_path / "none"), workflows_dir=str(tmp_path / "file"))
    with capture_logs() as said:
        warn_of_folders(settings).join(20)
    assert [line["event"] for line in said] == ["store.unavailable", "workflows.unavailable"]
    assert "AGENT_STORE_DIR is not there" in said[0]["note"]
    assert "AGENT_WORKFLOWS_DIR is no folder" in said[1]["note"]


def test_folders_that_are_there_are_not_spoken_of(tmp_path: Path) -> None:
    with capture_logs() as said:
        warn_of_folders(Settings(store_dir=str(tmp_path), workflows_dir=str(tmp_path))).join(20)
    assert said == []
