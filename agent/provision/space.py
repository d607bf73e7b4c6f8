"""Free disk: a download that cannot fit is refused before it fills the disk for everybody."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from agent.provision.errors import ProvisionError


class Space:
    """What is free on the disk of one folder, less what this process' downloads have still to write."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._reserved: dict[int, int] = {}

    def reserve(self, owner: object, wanted: int) -> None:
        """Note that `owner` will write `wanted` more bytes. Raises ProvisionError when they do not fit."""
        others = sum(count for key, count in self._reserved.items() if key != id(owner))
        free = shutil.disk_usage(self._folder).free - others
        if wanted > free:
            raise ProvisionError(
                f"{to_text(wanted)} are needed and {to_text(max(free, 0))} are free on {os.fspath(self._folder)}: "
                "make room, or set disk_budget and mark models as evictable"
            )
        self._reserved[id(owner)] = wanted

    def note(self, owner: object, left: int) -> None:
        """Note how much of it `owner` has still to write."""
        self._reserved[id(owner)] = left

    def release(self, owner: object) -> None:
        """`owner` writes no more."""
        self._reserved.pop(id(owner), None)


def to_text(count: int) -> str:
    """`6.5 GB`: the way disks and download pages count."""
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
