"""The tasks of a shared folder that owe an end or a message: one empty file each, whose time of change is when somebody
else must see to the task.

    due/NAME    NAME: that of the task's folder

A file says only whom to look at, and when; what is so of a task its record knows. One that leads nowhere goes away
with the next look.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from agent.tasks.directory_files import mark, names_in, opened


class Due:
    """Raises OSError. Times are the server's."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def set(self, name: str, time: float) -> None:
        path = self._folder / name
        for _ in range(2):
            with suppress(FileNotFoundError):
                os.utime(path, (time, time))
                return
            mark(path)

    def clear(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)

    def take(self, now: float, *, count: int, put_off_seconds: float) -> list[str]:
        """Up to so many names whose time has come; each is put off."""
        with opened(self._folder):  # an NFS client asks the server then
            names = sorted(names_in(self._folder))
        found: list[str] = []
        for name in names:
            with suppress(FileNotFoundError):
                if (self._folder / name).stat().st_mtime <= now:
                    self.set(name, now + put_off_seconds)
                    found.append(name)
            if len(found) == count:
                break
        return found
