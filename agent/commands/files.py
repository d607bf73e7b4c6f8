"""Outputs as files of the caller. Nothing that is there is overwritten, and no server chooses where something goes."""

from __future__ import annotations

import os
import re
from pathlib import Path

from agent.commands.remote import Stop

EXTENSION = re.compile(r"\.[A-Za-z0-9]{1,8}")


def make_folder(name: str) -> Path:
    """Raises Stop where no file can be put there."""
    folder = Path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise Stop(f"The folder {name} cannot be made: {exc.strerror}.") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise Stop(f"The folder {name} is not writable; name another with --out.")
    return folder


def write_output(folder: Path, task_id: str, index: int, filename: str, data: bytes) -> Path:
    """Write one output; returns where it lies. Its name is made of the task's id, its number and, of the name that the
    server gave it, the extension alone. Raises Stop."""
    suffix = Path(filename).suffix
    extension = suffix.lower() if EXTENSION.fullmatch(suffix) else ""
    stem = f"{task_id.replace(':', '-')}-{index}"
    for attempt in range(1, 10_000):
        path = folder / f"{stem}{'' if attempt == 1 else f'-{attempt}'}{extension}"
        try:
            with path.open("xb") as file:
                file.write(data)
        except FileExistsError:
            continue
        except OSError as exc:
            raise Stop(f"{path} cannot be written: {exc.strerror}.", 1) from None
        return path
    raise Stop(f"{folder} has too many files called {stem}; name another with --out.")
