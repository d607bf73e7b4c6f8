"""The tasks of a shared folder in the order of their creation: one empty file each, named by its place.

    index/BUCKET/PLACE    PLACE: creation time, then the name of the task's folder; BUCKET: how PLACE begins

No task has a folder without having an entry, so that what expires is found. An entry may lead nowhere, or to a task
that has another place by now; whoever reads it checks that.
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path

from agent.tasks.directory_files import make_folder, mark, names_in

BUCKET = 10  # characters of a place: 1000 seconds
TIME = 20  # characters of its time

_NOT_PLAIN = re.compile(r"[^a-z0-9_-]")
_PLACE = re.compile(r"[0-9.]{20}-([a-z0-9_-]{1,40}\.[0-9a-f]{32})")


def name_of(task_id: str) -> str:
    """The file name for an id, whatever its characters and length: a hint for people, and a digest.

    Two ids have two names also where case does not count, and no name leads out of its folder.
    """
    hint = _NOT_PLAIN.sub("_", task_id[:40].lower()) or "_"
    return f"{hint}.{hashlib.sha256(task_id.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


def place_of(created_at: float, name: str) -> str:
    """Sorts as text by creation time."""
    return f"{created_at:0{TIME}.6f}-{name}"


def name_at(place: str) -> str:
    return place[TIME + 1 :]


def time_at(place: str) -> float:
    return float(place[:TIME])


class Index:
    """Raises OSError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, place: str) -> bool:
        """False when it was there already."""
        path = self.path(place)
        try:
            return mark(path)
        except FileNotFoundError:  # the first one of its bucket
            make_folder(path.parent)
            return mark(path)

    def remove(self, place: str) -> None:
        path = self.path(place)
        path.unlink(missing_ok=True)
        with suppress(OSError):  # others are in it
            path.parent.rmdir()

    def newest(self, before: str | None, count: int) -> list[str]:
        """Up to so many places, newest first; those before another one if it is given."""
        found: list[str] = []
        for bucket in sorted(self._buckets(), reverse=True):
            if before is None or bucket <= before[:BUCKET]:
                places = self._places(bucket)
                found += sorted((p for p in places if before is None or p < before), reverse=True)
            if len(found) >= count:
                break
        return found[:count]

    def oldest(self, after: str, count: int) -> list[str]:
        """Up to so many places after another one, oldest first."""
        found: list[str] = []
        for bucket in sorted(self._buckets()):
            if bucket >= after[:BUCKET]:
                found += sorted(place for place in self._places(bucket) if place > after)
            if len(found) >= count:
                break
        return found[:count]

    def path(self, place: str) -> Path:
        return self._folder / place[:BUCKET] / place

    def _buckets(self) -> list[str]:
        return os.listdir(self._folder)  # noqa: PTH208 - names are all that is wanted

    def _places(self, bucket: str) -> list[str]:
        """Those in a bucket; other names are no business of ours."""
        return [p for p in names_in(self._folder / bucket) if p.startswith(bucket) and _PLACE.fullmatch(p)]
