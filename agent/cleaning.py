"""Removes the engine's files of tasks that are over, so that the disk of an instance that runs for long stays flat.

What a file is called matters to the engine beyond its task. Its cache may name a finished picture again, and its save
nodes count on from the highest number in the folder: a number that is free again would be given to another picture,
which the cache would then show as the old one. So the files of the latest prompts stay, and of each series the highest
number is kept as an empty file. When the cache names a file that is gone all the same, the executor has it made again.
"""

from __future__ import annotations

import asyncio
import math
import re
import stat
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import structlog

from comfyui.client import FileRef
from comfyui.folders import Folders

log = structlog.get_logger(__name__)

#: So many of the latest prompts that made files keep them however long ago that was. ComfyUI's classic cache names
#: files of the very last one alone; a repeated workflow then costs nothing.
KEPT_PROMPTS = 4

#: Removed files and empty ones to remember.
REMEMBERED = 10_000
EMPTY_FILES = 1000

#: A file that was written after a prompt had named it is another one. File systems round times.
ROUNDING_SECONDS = 2

#: `SaveImage` and its like: prefix, number, and what follows.
NUMBERED = re.compile(r"(?P<series>.*)_(?P<number>\d+)_?(\.\w+)?", re.DOTALL)


class Uploads(Protocol):
    """The input files that the agent has put into the engine's folder."""

    def idle_uploads(self) -> dict[str, float]:
        """Names of those that no task uses, with the time (monotonic) since when."""

    def forget_upload(self, name: str) -> None:
        """It is gone: upload it again when it is needed."""


class Cleaner:
    """Knows which files prompts of ours have named, and removes them `keep_seconds` after they were last named.

    With 0 it removes what is to be discarded alone; without `folders`, nothing. `note` and `has_removed` are called on
    the event loop; nothing is awaited in them.
    """

    def __init__(self, folders: Folders | None, uploads: Uploads, keep_seconds: float) -> None:
        self._folders, self._uploads, self._keep_seconds = folders, uploads, keep_seconds
        self._began = time.time()
        self._named: dict[Path, tuple[float, float]] = {}  # oldest first: when by both clocks
        self._latest: deque[set[Path]] = deque(maxlen=KEPT_PROMPTS)
        self._removed: dict[Path, None] = {}
        self._emptied: dict[Path, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self._is_tidy = folders is not None and keep_seconds > 0

    async def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._sweeping is not None:
            await asyncio.gather(self._sweeping, return_exceptions=True)

    def note(self, files: Iterable[FileRef]) -> None:
        """A prompt is over and has named these files: their time begins anew."""
        if self._folders is None or not self._is_tidy:
            return
        now = (time.monotonic(), time.time())
        found = {path for file in files if file.type != "input" and (path := self._folders.locate(file))}
        for path in found:
            self._named.pop(path, None)
            self._named[path] = now
        if found:
            self._latest.append(found)
        self._schedule()

    def has_removed(self, files: Iterable[FileRef]) -> bool:
        """Whether one of these files was removed here and has not been made again since."""
        folders = self._folders
        if folders is None or not self._removed:
            return False
        return any(
            path in self._removed and not _has_content(path)
            for file in files
            if (path := folders.locate(file))
        )

    def schedule(self) -> None:
        """Have the next sweep take place when something is due. Called too when inputs have become idle."""
        if self._is_tidy:
            self._schedule()

    async def discard(self, files: Iterable[FileRef]) -> list[FileRef]:
        """Remove these now, whatever is kept otherwise: they may not be seen. The highest number of a series stays as
        an empty file. Returns those that could not be removed; nothing is left to do for one that is gone."""
        wanted = list(files)
        if self._folders is None:
            return wanted
        paths = {file: self._folders.locate(file, also_chosen=True) for file in wanted}
        found = {path for path in paths.values() if path is not None}
        unlinked, emptied = await asyncio.to_thread(
            _remove_all, dict.fromkeys(found, math.inf), (), -math.inf
        )
        for path in found:
            self._named.pop(path, None)
        for path in (*unlinked, *emptied):
            self._removed[path] = None
        self._emptied |= dict.fromkeys(emptied)
        gone = {path for path in found if not _has_content(path)}
        return [file for file, path in paths.items() if path not in gone]

    def _schedule(self) -> None:
        if self._timer is not None or (self._sweeping is not None and not self._sweeping.done()):
            return
        times = [when for path, (when, _) in self._named.items() if not self._is_latest(path)]
        times += self._uploads.idle_uploads().values()
        if times:
            delay = max(0.0, min(times) + self._keep_seconds - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._sweeping = asyncio.create_task(self._sweep(), name="cleaning")
        self._sweeping.add_done_callback(lambda _: self._schedule())

    async def _sweep(self) -> None:
        limit = time.monotonic() - self._keep_seconds
        inputs = [name for name, since in self._uploads.idle_uploads().items() if since <= limit]
        # Here and now: as soon as this waited for something, a task might take one of them.
        for name in inputs:
            self._remove_input(name)
        due = {
            path: wall
            for path, (when, wall) in self._named.items()
            if when <= limit and not self._is_latest(path)
        }
        for path in due:
            del self._named[path]
        unlinked, emptied = await asyncio.to_thread(_remove_all, due, tuple(self._emptied), self._began)
        for path in (*unlinked, *emptied):
            self._removed[path] = None
        self._emptied = dict.fromkeys([p for p in self._emptied if p not in unlinked] + emptied)
        while len(self._emptied) > EMPTY_FILES:
            oldest = next(iter(self._emptied))
            del self._emptied[oldest]
            with suppress(OSError):
                oldest.unlink()
        while len(self._removed) > REMEMBERED:
            del self._removed[next(iter(self._removed))]
        if due or inputs:
            log.debug("files.cleaned", outputs=len(due), inputs=len(inputs))

    def _remove_input(self, name: str) -> None:
        self._uploads.forget_upload(name)
        subfolder, _, filename = name.rpartition("/")
        path = self._folders.locate(FileRef(filename, subfolder, "input")) if self._folders else None
        if path is not None:
            with suppress(OSError):
                path.unlink()

    def _is_latest(self, path: Path) -> bool:
        return any(path in files for files in self._latest)


def _remove_all(
    due: dict[Path, float], emptied: tuple[Path, ...], began: float
) -> tuple[list[Path], list[Path]]:
    """Remove files, given when they were last named, and empty ones of earlier that are no longer the highest of their
    series. What was there before we `began` was made for somebody else, though a prompt may show it. Returns what is
    gone and what is empty now. Looks at each folder once."""
    highest: dict[tuple[Path, str], int] = {}
    for folder in {path.parent for path in (*due, *emptied)}:
        with suppress(OSError):
            for name in (entry.name for entry in folder.iterdir()):
                if match := NUMBERED.fullmatch(name):
                    series = (folder, match["series"])
                    highest[series] = max(highest.get(series, 0), int(match["number"]))

    def is_highest(path: Path) -> bool:
        match = NUMBERED.fullmatch(path.name)
        return match is not None and int(match["number"]) >= highest.get((path.parent, match["series"]), 0)

    unlinked, now_empty = [], []
    for path, named_at in due.items():
        with suppress(OSError):  # it is gone, or not ours to remove
            found = path.lstat()
            is_ours = began - ROUNDING_SECONDS <= found.st_mtime <= named_at + ROUNDING_SECONDS
            if not stat.S_ISREG(found.st_mode) or not is_ours:
                continue
            if is_highest(path):
                path.write_bytes(b"")
                now_empty.append(path)
            else:
                path.unlink()
                unlinked.append(path)
    for path in emptied:
        if path not in due and not is_highest(path):
            with suppress(OSError):
                if path.lstat().st_size == 0:
                    path.unlink()
            unlinked.append(path)
    return unlinked, now_empty


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False
