"""Removes from a shared folder what has expired, a few files at a time."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from agent.tasks.directory_files import Files, ServerClock, names_in
from agent.tasks.directory_index import time_at
from agent.tasks.directory_tasks import Tasks

#: How many tasks, and how many files of each other kind, one run looks at.
AT_ONCE = 200

#: A file in the making, or a request to cancel, that is older than this was left behind by the dead.
LEFT_SECONDS = 3600


class Sweep:
    """Goes round: each run goes on where the last one ended. All instances may sweep at once. Raises OSError."""

    def __init__(
        self,
        files: Files,
        clock: ServerClock,
        tasks: Tasks,
        record_ttl_seconds: float,
        output_ttl_seconds: float,
    ) -> None:
        self._files, self._clock, self._tasks = files, clock, tasks
        self._record_ttl, self._output_ttl = record_ttl_seconds, output_ttl_seconds
        self._last_place = ""
        self._last_names: dict[Path, str] = {}

    def run(self) -> None:
        now = self._clock.now()
        self._sweep_tasks(now - min(self._record_ttl, self._output_ttl))
        self._sweep_folder(self._files.parked, now - self._record_ttl)
        self._sweep_folder(self._files.temporary, now - LEFT_SECONDS)
        for owner in self._next(self._files.cancels):
            self._sweep_folder(self._files.cancels / owner, now - LEFT_SECONDS)
            with suppress(OSError):  # its owner may be at work, or there are requests in it
                if (self._files.cancels / owner).stat().st_mtime < now - LEFT_SECONDS:
                    (self._files.cancels / owner).rmdir()

    def _sweep_tasks(self, before: float) -> None:
        """Look at the oldest tasks; one that was created after this time cannot have expired yet."""
        places = self._tasks.index.oldest(self._last_place, AT_ONCE)
        self._last_place = places[-1] if len(places) == AT_ONCE else ""
        for place in places:
            if time_at(place) > before:
                self._last_place = ""
                return
            with suppress(PermissionError):  # of another user: not ours to remove
                self._tasks.sweep(place, output_ttl_seconds=self._output_ttl)

    def _sweep_folder(self, folder: Path, before: float) -> None:
        for name in self._next(folder):
            self._files.remove_older(folder / name, before)

    def _next(self, folder: Path) -> list[str]:
        names = sorted(name for name in names_in(folder) if name > self._last_names.get(folder, ""))
        chosen = names[:AT_ONCE]
        if len(names) > AT_ONCE:
            self._last_names[folder] = chosen[-1]
        else:
            self._last_names.pop(folder, None)
        return chosen
