"""The disk budget: which models must go, and which cannot come. Pure; nothing is deleted here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Held:
    """A model that lies on the disk. Tasks use it and runs want it; the times are in seconds since the epoch."""

    path: str
    bytes: int
    last_used: float
    evictable: bool
    last_wanted: float = 0


@dataclass(frozen=True, slots=True)
class Missing:
    """A model that is wanted and not there; `was_evicted` says that an earlier run deleted it for the budget."""

    path: str
    bytes: int
    evictable: bool
    was_evicted: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run does for the budget's sake, in this order."""

    evict: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()


def plan_for(budget: int | None, held: Sequence[Held], missing: Sequence[Missing]) -> Plan:
    """Make room for what is new by deleting what is evictable and was used longest ago.

    A model that was evicted comes back only into free room. Otherwise two models that do not fit together would
    take turns at every run.
    """
    if budget is None:
        return Plan()
    used = sum(model.bytes for model in held)
    # A run wants all of its manifest at once, so that says little: it counts where the uses are equally old. Among what
    # is equal in both the last of the manifest goes first: sorted() keeps the order, so turn it round.
    candidates = sorted(
        (model for model in reversed(held) if model.evictable),
        key=lambda model: (model.last_used, model.last_wanted),
    )
    evict: list[str] = []
    leave_out: list[str] = []

    def make_room(wanted: int) -> bool:
        nonlocal used
        if used + wanted - sum(model.bytes for model in candidates) > budget:
            return False
        while used + wanted > budget:
            oldest = candidates.pop(0)
            used -= oldest.bytes
            evict.append(oldest.path)
        return True

    make_room(0)  # the budget may have become smaller
    for model in sorted(missing, key=lambda model: (model.evictable, model.was_evicted)):
        may_evict = not (model.evictable and model.was_evicted)
        if used + model.bytes <= budget or (may_evict and make_room(model.bytes)):
            used += model.bytes
        else:
            leave_out.append(model.path)
    return Plan(tuple(evict), tuple(leave_out))
