"""Misbehaviour on request: what `--fault SPEC` and POST /simulator/faults understand.

A spec is `NAME`, `NAME=VALUE` or `NAME@KEY=VALUE[,KEY=VALUE...]`; `times=K` bounds how often it happens. With
`--fault-state FILE` that count survives the process, so that "dies once, then works" can be played over a restart.
"""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path

NODE, EVENT, SECONDS, PLAIN = "node", "event", "seconds", "plain"

KINDS: dict[str, tuple[str, frozenset[str]]] = {
    "die": (NODE, frozenset({"node", "step"})),  #: the process exits in the middle of the node, or @start
    "hang": (NODE, frozenset({"node"})),  #: the worker stops for ever, HTTP goes on
    "freeze": (NODE, frozenset({"node"})),  #: the whole process stops answering
    "oom": (NODE, frozenset({"node"})),  #: the node raises torch.OutOfMemoryError
    "cuda-error": (NODE, frozenset({"node"})),  #: the node raises, and so does every later prompt
    "drop-socket": (
        EVENT,
        frozenset({"message", "event"}),
    ),  #: cuts the WebSocket that the N-th message, or one of this type, is for; no close frame
    "lose-event": (PLAIN, frozenset({"event"})),  #: events of this type are never sent
    "late-history": (SECONDS, frozenset({"seconds"})),  #: the history entry shows this much later
    "slow-view": (SECONDS, frozenset({"seconds"})),  #: /view answers this much later
    "corrupt-output": (PLAIN, frozenset()),  #: SaveImage writes a truncated file
    "empty-output": (PLAIN, frozenset()),  #: SaveImage writes 0 bytes
    "missing-output": (PLAIN, frozenset()),  #: the saved file is gone at once
    "reject-all": (PLAIN, frozenset()),  #: POST /prompt answers 500
    "stderr-flood": (PLAIN, frozenset()),  #: each prompt prints a very long line without a newline
}
VALUE_KEY = {"lose-event": "event", "late-history": "seconds", "slow-view": "seconds"}

_PAIR = re.compile(r"([a-z]+)=([^,=]+)")


class FaultSpecError(ValueError):
    """The fault cannot be understood. See comfyui/simulator/faults.py for the kinds and their keys."""


@dataclass(frozen=True)
class Fault:
    """One fault as it was asked for."""

    spec: str
    kind: str
    at: dict[str, str] = field(default_factory=dict)
    times: int | None = None

    @property
    def seconds(self) -> float:
        return float(self.at["seconds"])


def parse_fault(spec: str) -> Fault:
    """Read one spec; raises FaultSpecError with a sentence that names what is wrong."""
    kind, at, sign = _split(spec)
    if kind not in KINDS:
        raise FaultSpecError(f"unknown fault {kind!r} in {spec!r}; known are {', '.join(KINDS)}")
    times = at.pop("times", None)
    if times is not None and not (times.isdigit() and int(times) > 0):
        raise FaultSpecError(f"times must be a whole number above 0 in {spec!r}")
    _check_keys(spec, kind, at, sign)
    return Fault(spec, kind, at, None if times is None else int(times))


def _split(spec: str) -> tuple[str, dict[str, str], str]:
    match = re.fullmatch(r"([a-z-]+)(?:([@=,])(.+))?", spec)
    if not match:
        raise FaultSpecError(f"{spec!r} is not NAME, NAME=VALUE or NAME@KEY=VALUE")
    kind, sign, rest = match[1], match[2] or "", match[3] or ""
    if sign == "=":
        rest = f"{VALUE_KEY.get(kind, 'value')}={rest}"
    if (kind, sign, rest.split(",")[0]) == ("die", "@", "start"):
        rest = f"start=yes{rest.removeprefix('start')}"
    at: dict[str, str] = {}
    for part in filter(None, rest.split(",")):
        pair = _PAIR.fullmatch(part)
        if not pair:
            raise FaultSpecError(f"{part!r} in {spec!r} is not KEY=VALUE")
        at[pair[1]] = pair[2]
    return kind, at, sign


def _check_keys(spec: str, kind: str, at: dict[str, str], sign: str) -> None:
    shape, allowed = KINDS[kind]
    if kind == "die" and set(at) == {"start"}:
        return
    if unknown := set(at) - allowed:
        raise FaultSpecError(f"{kind} knows no {', '.join(sorted(unknown))} in {spec!r}")
    if shape == NODE and "node" not in at:
        raise FaultSpecError(f"{kind} needs @node=ID in {spec!r}")
    if shape == EVENT and len(at) != 1:
        raise FaultSpecError(f"{kind} needs either @message=N or @event=TYPE in {spec!r}")
    if kind in VALUE_KEY and (sign == "" or VALUE_KEY[kind] not in at):
        raise FaultSpecError(f"{kind} needs a value, as {kind}=VALUE, in {spec!r}")
    for key in {"step", "message"} & set(at):
        if not at[key].isdigit():
            raise FaultSpecError(f"{key} must be a whole number in {spec!r}")
    if "seconds" in at and not re.fullmatch(r"\d+(\.\d+)?", at["seconds"]):
        raise FaultSpecError(f"{kind} needs a number of seconds in {spec!r}")


class Faults:
    """The faults that are set, and how often each has happened. Safe to use from any thread."""

    def __init__(self, faults: tuple[Fault, ...] = (), state: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._faults = faults
        self._state = state
        self._happened: dict[str, int] = json.loads(state.read_text()) if state and state.exists() else {}

    def replace(self, faults: tuple[Fault, ...]) -> None:
        """Set these faults instead; counting starts anew."""
        with self._lock:
            self._faults, self._happened = faults, {}
            self._store()

    def describe(self) -> list[dict[str, object]]:
        with self._lock:
            return [
                {"fault": fault.spec, "happened": self._happened.get(fault.spec, 0)} for fault in self._faults
            ]

    def find(self, kind: str, **at: str) -> Fault | None:
        """The first fault of this kind whose place agrees and that has not happened often enough; not counted."""
        with self._lock:
            for fault in self._faults:
                if fault.kind == kind and fault.at == at and not self._spent(fault):
                    return fault
            return None

    def of_kind(self, kind: str) -> Fault | None:
        """The first unspent fault of this kind, wherever it happens; not counted."""
        with self._lock:
            return next(
                (fault for fault in self._faults if fault.kind == kind and not self._spent(fault)), None
            )

    def take(self, kind: str, **at: str) -> Fault | None:
        """As `find` (`of_kind` without a place), and count it; the count is on disk before this returns."""
        fault = self.find(kind, **at) if at else self.of_kind(kind)
        if fault:
            with self._lock:
                self._happened[fault.spec] = self._happened.get(fault.spec, 0) + 1
                self._store()
        return fault

    def _spent(self, fault: Fault) -> bool:
        return fault.times is not None and self._happened.get(fault.spec, 0) >= fault.times

    def _store(self) -> None:
        if self._state:
            self._state.write_text(json.dumps(self._happened))
