"""How well what was found agrees with what is known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

#: The row over all categories: was something found where there is something?
ANYTHING = "anything"


@dataclass(frozen=True, slots=True)
class Score:
    """`known`: how many are of this category; `found`: how many were called so; `right`: how many of these are."""

    category: str
    known: int
    found: int
    right: int

    @property
    def precision(self) -> float | None:
        """Share of what was found that is right; None where nothing was found."""
        return self.right / self.found if self.found else None

    @property
    def recall(self) -> float | None:
        """Share of what is known that was found; None where there is nothing to find."""
        return self.right / self.known if self.known else None


def scores(pairs: Iterable[tuple[str, str]]) -> list[Score]:
    """For (known, found), each a category or empty: a score for each category, and first one for anything at all."""
    listed = list(pairs)
    whole = Score(
        ANYTHING,
        sum(bool(known) for known, _ in listed),
        sum(bool(found) for _, found in listed),
        sum(bool(known and found) for known, found in listed),
    )
    categories = sorted({category for pair in listed for category in pair if category})
    return [
        whole,
        *(
            Score(
                category,
                sum(known == category for known, _ in listed),
                sum(found == category for _, found in listed),
                sum(known == found == category for known, found in listed),
            )
            for category in categories
        ),
    ]


def as_table(listed: Iterable[Score]) -> list[str]:
    """Lines for a terminal."""

    def percent(share: float | None) -> str:
        return "-" if share is None else f"{share:.1%}"

    head = f"{'category':<24} {'known':>6} {'found':>6} {'right':>6} {'precision':>10} {'recall':>8}"
    return [
        head,
        *(
            f"{s.category[:24]:<24} {s.known:>6} {s.found:>6} {s.right:>6} "
            f"{percent(s.precision):>10} {percent(s.recall):>8}"
            for s in listed
        ),
    ]
