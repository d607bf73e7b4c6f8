"""exiftool, which knows nothing of us: what it reads in a picture's bytes."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


class ExifTool:
    """One process that reads file after file, since each start of it takes half a second."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process, self._folder, self._count = process, folder, 0

    def read(self, data: bytes) -> dict[str, Any]:
        """Tags by "group:name", as they are in the file. Fails where exiftool finds an error in it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._count += 1
        path = self._folder / f"{self._count}.picture"
        path.write_bytes(data)
        options = [
            "-j",
            "-G1",
            "-s",
            "-n",
            "-a",
            "-struct",
            "-validate",
            "-warning",
            "-error",
            "-all",
            str(path),
        ]
        self._process.stdin.write("\n".join((*options, "-execute\n")))
        self._process.stdin.flush()
        lines = iter(self._process.stdout.readline, "{ready}\n")
        (found,) = json.loads("".join(lines))
        path.unlink()
        assert "ExifTool:Error" not in found, found
        return found


@contextmanager
def exif_tool(folder: Path) -> Iterator[ExifTool]:
    """Skips the test where there is no exiftool."""
    command = shutil.which("exiftool")
    if command is None:
        pytest.skip("exiftool is not installed (Debian: libimage-exiftool-perl)")
    with subprocess.Popen(
        [command, "-stay_open", "True", "-@", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        try:
            yield ExifTool(process, folder)
        finally:
            process.stdin.write("-stay_open\nFalse\n")
            process.stdin.flush()
            process.wait(20)
