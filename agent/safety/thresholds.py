"""From where on a label of a classifier counts: `explicit=0.6,violence=0.9,*=0.8`."""

from __future__ import annotations

from collections.abc import Iterable

#: Stands for every label that is not named.
ANY = "*"


def parse_thresholds(text: str) -> dict[str, float]:
    """Label in lower case -> threshold. Raises ValueError."""
    found: dict[str, float] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        label, _, number = part.rpartition("=")
        try:
            threshold = float(number)
        except ValueError:
            threshold = -1.0
        if not label.strip() or not 0 < threshold <= 1:
            raise ValueError(
                "write it as label=0.8,other=0.6 with numbers above 0, at most 1; * is any other label"
            )
        found[label.strip().lower()] = threshold
    if not found:
        raise ValueError("name at least one label, or * for any: *=0.8")
    return found


def check_thresholds(text: str) -> str:
    """The text as it is, if it can be parsed. Raises ValueError."""
    parse_thresholds(text)
    return text


def threshold_of(thresholds: dict[str, float], names: Iterable[str]) -> float | None:
    """The threshold of the first of these names that has one, else that of any; None: the label does not count."""
    for name in names:
        if (found := thresholds.get(name.lower())) is not None:
            return found
    return thresholds.get(ANY)
