"""What every group is given: where to run, how long, and on which engine."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.places import Places
from benchmarks.setup import EngineKind


@dataclass(frozen=True)
class Bench:
    """`quick` only tries whether everything works: its figures mean nothing."""

    places: Places
    kind: EngineKind
    is_quick: bool = False

    def samples(self, wanted: int) -> int:
        return 2 if self.is_quick else wanted
