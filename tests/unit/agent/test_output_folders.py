"""Outputs read from the engine's own folders, where these are really its own."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from agent.errors import OutputTooLarge
from agent.outputs import folder as module
from agent.outputs.folder import OutputFolders
from comfyui.client import Client, FileRef
from comfyui.folders import Folders

SENT = b"sent by the engine"
CAT = FileRef("cat_00001_.png", "pets")


class Engine(Client):
    """Keeps its output files in `folder`, and says what it was asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__("http://127.0.0.1:1")
        self.folder, self.sent, self.looked_for = folder, list[FileRef](), list[FileRef]()

    async def fetch_file(self, file: FileRef, reserve: Callable[[int], None] = lambda _: None) -> bytes:
        reserve(len(SENT))
        self.sent.append(file)
        return SENT

    async def has_file(self, file: FileRef) -> bool:
        self.looked_for.append(file)
        return file.type == "output" and (self.folder / file.subfolder / file.filename).is_file()


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    found = Folders(output=tmp_path / "output", temp=tmp_path / "temp", input=tmp_path / "input")
    (tmp_path / "output" / "pets").mkdir(parents=True)
    found.temp.mkdir()
    (tmp_path / "output" / "pets" / CAT.filename).write_bytes(b"a cat")
    return found


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(tmp_path / "output")


@pytest.fixture
async def files(engine: Engine, folders: Folders) -> AsyncIterator[OutputFolders]:
    opened = OutputFolders(engine, folders)
    yield opened
    opened.close()


def any_size(_: int) -> None:
    pass


async def test_a_file_is_read_where_the_engine_keeps_it(
    files: OutputFolders, engine: Engine, tmp_path: Path
) -> None:
    large = os.urandom(3_000_000)
    (tmp_path / "output" / "large.png").write_bytes(large)
    reserved: list[int] = []

    assert await files.fetch_file(CAT, reserved.append) == b"a cat"
    assert await files.fetch_file(FileRef("large.png"), reserved.append) == large
    assert reserved == [5, 3_000_000]
    assert engine.sent == []
    assert len(engine.looked_for) == 1, "one proof is enough"
    left = {path.name for path in (tmp_path / "output").iterdir()}
    assert left == {"pets", "large.png"}


async def test_an_engine_that_keeps_its_files_elsewhere_sends_them(
    engine: Engine, folders: Folders, files: OutputFolders, tmp_path: Path
) -> None:
    """It runs in another container, say, and a file of an earlier one lies here under the same name."""
    engine.folder = tmp_path / "elsewhere"
    assert await files.fetch_file(CAT, any_size) == SENT
    assert await files.fetch_file(CAT, any_size) == SENT
    assert len(engine.looked_for) == 1
    assert [path.name for path in (tmp_path / "output").iterdir()] == ["pets"]

    engine.folder = tmp_path / "output"
    files.doubt()
    assert await files.fetch_file(CAT, any_size) == b"a cat"


async def test_each_type_is_proven_by_itself(files: OutputFolders, folders: Folders) -> None:
    (folders.temp / "cat.png").write_bytes(b"a stray cat")
    assert await files.fetch_file(CAT, any_size) == b"a cat"
    assert await files.fetch_file(FileRef("cat.png", "", "temp"), any_size) == SENT


@pytest.mark.parametrize(
    "file",
    [
        FileRef("gone.png"),
        FileRef("link.png"),
        FileRef("pipe.png"),
        FileRef("pets"),
        FileRef("secret.png", "..", "output"),
        FileRef("../secret.png"),
        FileRef("pets/cat_00001_.png"),  # ComfyUI cuts the folder off
        FileRef("cat.png [temp]"),  # and takes this for another file
        FileRef("cat.png", "", "models"),
    ],
)
async def test_what_is_no_plain_file_of_the_folder_is_left_to_the_engine(
    files: OutputFolders, engine: Engine, tmp_path: Path, file: FileRef
) -> None:
    output = tmp_path / "output"
    (tmp_path / "secret.png").write_bytes(b"secret")
    (output / "link.png").symlink_to(tmp_path / "secret.png")
    os.mkfifo(output / "pipe.png")
    (output / "cat.png [temp]").write_bytes(b"another cat")

    assert await files.fetch_file(file, any_size) == SENT
    assert engine.sent == [file]


async def test_a_folder_that_cannot_be_written_proves_nothing(
    files: OutputFolders, engine: Engine, folders: Folders
) -> None:
    folders.temp.rmdir()
    assert await files.fetch_file(FileRef("cat.png", "", "temp"), any_size) == SENT
    assert engine.looked_for == []


@pytest.mark.parametrize("is_known", [True, False])
async def test_a_folder_of_the_operators_is_left_alone(
    engine: Engine, tmp_path: Path, is_known: bool
) -> None:
    (tmp_path / "output" / "pets").mkdir(parents=True)
    (tmp_path / "output" / "pets" / CAT.filename).write_bytes(b"a cat")
    chosen = Folders(
        output=None, temp=tmp_path, input=tmp_path, chosen_output=tmp_path / "output" if is_known else None
    )
    files = OutputFolders(engine, chosen if is_known else None)
    assert await files.fetch_file(CAT, any_size) == SENT
    assert engine.looked_for == []
    files.close()


async def test_a_disk_that_does_not_answer_is_given_up(
    files: OutputFolders, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await files.fetch_file(CAT, any_size) == b"a cat"
    answers = threading.Event()
    monkeypatch.setattr(module, "_read", lambda *_: answers.wait())
    monkeypatch.setattr(module, "DISK_SECONDS", 0.05)
    try:
        assert await files.fetch_file(CAT, any_size) == SENT
        monkeypatch.undo()
        assert await files.fetch_file(CAT, any_size) == SENT, "it is not asked again"
    finally:
        answers.set()


async def test_there_must_be_room_for_a_file(files: OutputFolders, engine: Engine) -> None:
    def refuse(size: int) -> None:
        raise OutputTooLarge(f"{size} bytes")

    with pytest.raises(OutputTooLarge, match="5 bytes"):
        await files.fetch_file(CAT, refuse)
    assert engine.sent == []
