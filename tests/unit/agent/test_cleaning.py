"""What is removed, and what only looks as if it might be."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from agent.cleaning import KEPT_PROMPTS, Cleaner
from comfyui.client import FileRef
from comfyui.folders import find_folders
from tests.integration.agent.service import eventually


class NoUploads:
    def idle_uploads(self) -> dict[str, float]:
        return {}

    def forget_upload(self, name: str) -> None:
        raise AssertionError(name)


@pytest.fixture
def cleaner(tmp_path: Path) -> Cleaner:
    (tmp_path / "output").mkdir()
    return Cleaner(find_folders(tmp_path, "", tmp_path), NoUploads(), 0.01)


def made(cleaner: Cleaner, folder: Path, name: str) -> Path:
    """A file that a prompt has made."""
    path = folder / "output" / name
    path.write_bytes(b"content")
    cleaner.note([FileRef(name)])
    return path


async def test_file_that_somebody_wrote_again_after_it_was_named_stays(
    cleaner: Cleaner, tmp_path: Path
) -> None:
    rewritten = made(cleaner, tmp_path, "fixed.png")
    os.utime(rewritten, (time.time() + 60, time.time() + 60))
    old = made(cleaner, tmp_path, "old.png")
    for number in range(KEPT_PROMPTS):
        made(cleaner, tmp_path, f"x_{number}_.png")

    async def is_gone() -> bool:
        return not old.exists()

    await eventually(is_gone)
    await cleaner.stop()
    assert rewritten.read_bytes() == b"content"
    assert cleaner.has_removed([FileRef("old.png")])
    assert not cleaner.has_removed([FileRef("fixed.png")])
    old.write_bytes(b"made again")
    assert not cleaner.has_removed([FileRef("old.png")])


async def test_file_that_was_there_before_us_stays_although_a_prompt_shows_it(
    cleaner: Cleaner, tmp_path: Path
) -> None:
    theirs = made(cleaner, tmp_path, "holiday.png")
    os.utime(theirs, (time.time() - 3600, time.time() - 3600))
    ours = made(cleaner, tmp_path, "ours.png")
    for number in range(KEPT_PROMPTS):
        made(cleaner, tmp_path, f"x_{number}_.png")

    async def is_gone() -> bool:
        return not ours.exists()

    await eventually(is_gone)
    await cleaner.stop()
    assert theirs.read_bytes() == b"content"


async def test_empty_file_goes_when_the_series_goes_on(cleaner: Cleaner, tmp_path: Path) -> None:
    first = made(cleaner, tmp_path, "x_00001_.png")
    for number in range(KEPT_PROMPTS):
        made(cleaner, tmp_path, f"y_{number}_.png")

    async def is_empty() -> bool:
        return first.stat().st_size == 0

    await eventually(is_empty)
    made(cleaner, tmp_path, "x_00002_.png")
    for number in range(KEPT_PROMPTS):
        made(cleaner, tmp_path, f"z_{number}_.png")

    async def is_gone() -> bool:
        return not first.exists()

    await eventually(is_gone)
    await cleaner.stop()
    assert cleaner.has_removed([FileRef("x_00001_.png")])


async def test_without_folders_nothing_is_done() -> None:
    cleaner = Cleaner(None, NoUploads(), 0)
    cleaner.note([FileRef("x.png")])
    cleaner.schedule()
    assert not cleaner.has_removed([FileRef("x.png")])
    await cleaner.stop()


async def test_discarded_file_is_gone_at_once_whoever_chose_the_folder(tmp_path: Path) -> None:
    chosen = tmp_path / "chosen"
    (chosen / "sub").mkdir(parents=True)
    folders = find_folders(tmp_path, f"--output-directory {chosen}", tmp_path)
    cleaner = Cleaner(folders, NoUploads(), 0)  # nothing is removed in the course of time
    names = ["sub/x_00001_.png", "sub/x_00002_.png", "plain.png"]
    for name in names:
        (chosen / name).write_bytes(b"content")
        os.utime(chosen / name, (1, 1))  # made long before
    files = [FileRef(*reversed(name.rpartition("/")[::2])) for name in names]
    away = FileRef("../elsewhere.png")
    (tmp_path / "elsewhere.png").write_bytes(b"content")
    assert await cleaner.discard([*files, away, FileRef("missing.png")]) == [away]
    assert not (chosen / names[0]).exists()
    assert (chosen / names[1]).read_bytes() == b"", "the highest number is not free again"
    assert not (chosen / names[2]).exists()
    assert (tmp_path / "elsewhere.png").exists()
    assert await Cleaner(None, NoUploads(), 1).discard(files) == files
    await cleaner.stop()
