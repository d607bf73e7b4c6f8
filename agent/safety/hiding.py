"""Which of the engine's files may be passed on as they are, where pictures are reviewed or labelled before they are
shown.

A file lies in the engine's folder before anybody could review it, and its name can be guessed. So where pictures, or
labels on them, are enforced, /view shows inputs alone; where only a request asks for it, that is so while its task is
at work, and the files of what was refused stay hidden.
"""

from __future__ import annotations

from collections.abc import Iterable
from posixpath import basename, dirname, join, normpath

from multidict import MultiMapping

from agent.errors import FileHidden
from comfyui.client import FileRef

#: Refused files to remember.
REMEMBERED = 10_000

#: What names an input file and nothing else. ComfyUI reads more than names here: "x.png [output]", "blake3:...".
ELSEWHERE = ("[", "]", ":")


class HiddenFiles:
    """`is_always`: by the server's settings, whatever requests ask for."""

    def __init__(self, *, is_always: bool) -> None:
        self._is_always = is_always
        self._tasks: set[str] = set()
        self._files: dict[tuple[str, str, str], None] = {}

    def begin(self, task_id: str) -> None:
        """A task whose pictures must be reviewed is at work."""
        self._tasks.add(task_id)

    def end(self, task_id: str) -> bool:
        """It is over; whether it was one of these."""
        is_known = task_id in self._tasks
        self._tasks.discard(task_id)
        return is_known

    def add(self, files: Iterable[FileRef]) -> None:
        """These may not be shown, even if they could not be removed."""
        for file in files:
            self._files[_key(file.type, file.subfolder, file.filename)] = None
        while len(self._files) > REMEMBERED:
            del self._files[next(iter(self._files))]

    def check(self, query: MultiMapping[str]) -> None:
        """For the query of a request to /view, or the like of it. Raises FileHidden."""
        names, types = query.getall("filename", []), query.getall("type", ["output"])
        subfolders = query.getall("subfolder", [""])
        if not (self._is_always or self._tasks or self._files):
            return
        is_input = set(types) == {"input"} and not any(word in name for name in names for word in ELSEWHERE)
        if is_input:
            return
        if self._is_always or self._tasks:
            raise FileHidden
        # What cannot be read as a plain name might lead to a hidden file by another way.
        is_plain = len(types) == len(names) == 1 and len(subfolders) == 1
        if not is_plain or any(word in names[0] for word in ELSEWHERE):
            raise FileHidden
        if _key(types[0], subfolders[0], names[0]) in self._files:
            raise FileHidden


def _key(kind: str, subfolder: str, filename: str) -> tuple[str, str, str]:
    """One key for all ways to write a place."""
    path = normpath(join("/", subfolder, filename))
    return kind, dirname(path), basename(path)
