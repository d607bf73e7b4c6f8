"""Where an engine's files are, from its flags; and files that are not among them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from comfyui.client import FileRef
from comfyui.folders import Folders, find_folders

BASE = Path("/c")


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ("", ("/c/output", "/c/temp", "/c/input")),
        ("--cpu --base-directory /b", ("/b/output", "/b/temp", "/b/input")),
        ("--base-directory=/b --output-directory /o", (None, "/b/temp", "/b/input")),
        ("--temp-directory /t --input-directory 'in put'", ("/c/output", "/t/temp", "/w/in put")),
        ("--base /b --base /d", ("/d/output", "/d/temp", "/d/input")),
    ],
)
def test_flags_move_folders(args: str, expected: tuple[str | None, str, str]) -> None:
    output, temp, uploads = expected
    found = find_folders(BASE, args, Path("/w"))
    assert found is not None
    assert replace(found, chosen_output=None) == Folders(output and Path(output), Path(temp), Path(uploads))


def test_outputs_in_a_folder_of_the_operators_choice_are_none_of_ours() -> None:
    folders = find_folders(BASE, "--output-directory /nas/pictures", Path("/w"))
    assert folders is not None
    assert folders.locate(FileRef("a.png", "", "output")) is None
    assert folders.locate(FileRef("a.png", "", "temp")) == Path("/c/temp/a.png")


def test_without_a_base_nothing_is_known() -> None:
    assert find_folders(None, "--cpu", Path("/w")) is None
    assert find_folders(None, "--base-directory b", Path("/w")) == Folders(
        Path("/w/b/output"), Path("/w/b/temp"), Path("/w/b/input")
    )


def test_files_are_located_inside_their_folder(tmp_path: Path) -> None:
    folders = find_folders(tmp_path, "", tmp_path)
    assert folders is not None
    (tmp_path / "output").mkdir()
    assert folders.locate(FileRef("a.png")) == tmp_path / "output/a.png"
    assert folders.locate(FileRef("a.png", "sub/er", "temp")) == tmp_path / "temp/sub/er/a.png"


@pytest.mark.parametrize(
    "file",
    [
        FileRef("a.png", "..", "output"),
        FileRef("../a.png", "", "output"),
        FileRef("/etc/passwd", "", "output"),
        FileRef("a.png", "/etc", "output"),
        FileRef("a.png", "linked", "output"),
        FileRef("a.png", "", "websocket"),
        FileRef("", "", "output"),
        FileRef("..", "", "output"),
        FileRef("a\0b", "", "output"),
    ],
)
def test_files_elsewhere_are_nobodys(tmp_path: Path, file: FileRef) -> None:
    folders = find_folders(tmp_path, "", tmp_path)
    assert folders is not None
    (tmp_path / "output").mkdir()
    (tmp_path / "output/linked").symlink_to(tmp_path.parent)
    assert folders.locate(file) is None
