"""What a benchmark found: figures with their targets, and the report that is kept to compare with others."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict


class Sense(StrEnum):
    """On which side of its target a figure is good."""

    AT_MOST = "at most"
    AT_LEAST = "at least"


class Target(BaseModel):
    """What a figure should be. `similar`: the best of four similar agents, measured in the same way."""

    model_config = ConfigDict(frozen=True)

    limit: float | None = None  #: None: the figure is only stated
    sense: Sense = Sense.AT_MOST
    similar: float | None = None


class Figure(BaseModel):
    """One measured value. Where it compares, `direct` and `agent` are the medians behind it, in `unit_of_both`."""

    model_config = ConfigDict(frozen=True)

    group: str
    name: str
    value: float
    unit: str
    low: float | None = None  #: first quartile of the samples behind the value
    high: float | None = None  #: third quartile
    samples: int = 1
    direct: float | None = None
    agent: float | None = None
    unit_of_both: str = "ms"
    target: Target = Target()

    @property
    def is_met(self) -> bool | None:
        """Whether the target is met; None where there is none. What is shown decides: 1.104 meets 1.10."""
        if self.target.limit is None:
            return None
        shown = float(f"{self.value:.{digits(self.target.limit)}f}")
        if self.target.sense is Sense.AT_MOST:
            return shown <= self.target.limit
        return shown >= self.target.limit


class Machine(BaseModel):
    """Where it was measured."""

    model_config = ConfigDict(frozen=True)

    cpu: str
    cores: int
    memory_gib: float
    system: str
    python: str
    load: float  #: average of the last minute before the run: others were working if it is not near 0
    places: str


class Report(BaseModel):
    """One run."""

    model_config = ConfigDict(frozen=True)

    commit: str
    began_at: str
    seconds: float
    is_quick: bool
    engine: str
    machine: Machine
    figures: list[Figure]
    errors: list[str]  #: answers that were wrong or did not come

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises ValueError for a file that holds no report, and OSError."""
        return cls.model_validate_json(path.read_bytes())

    def save(self, path: Path) -> None:
        path.write_text(self.model_dump_json(indent=1) + "\n")


def digits(number: float) -> int:
    """Decimals in which a value of this size is shown."""
    return 2 if abs(number) < 3 else 1 if abs(number) < 100 else 0


def quartiles(samples: Sequence[float]) -> tuple[float, float]:
    """The values between which the middle half of the samples lies."""
    if len(samples) < 2:
        return samples[0], samples[0]
    first, _, third = statistics.quantiles(samples, n=4, method="inclusive")
    return first, third


def percentile(samples: Sequence[float], percent: int) -> float:
    """The value that so many percent of the samples do not exceed."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
