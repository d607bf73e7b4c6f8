"""Runs the groups one after the other."""

from __future__ import annotations

import importlib
import os
import resource
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import cast

from benchmarks.bench import Bench
from benchmarks.caller import AnswerWrong
from benchmarks.direct import DirectFailed
from benchmarks.figures import Figure, Report
from benchmarks.groups import REAL_GROUPS
from benchmarks.machine import describe_commit, describe_machine
from benchmarks.places import find_places
from benchmarks.setup import EngineKind

Measure = Callable[[Bench], AsyncIterator[Figure]]


async def run(groups: Sequence[str], *, is_quick: bool, tell: Callable[[Figure], None]) -> Report:
    """Measure; `tell` is called with each figure. A group that meets a wrong answer ends there, and the next begins.

    Raises ChildFailed when a server does not start.
    """
    _allow_open_files()
    places = find_places()
    machine, commit = describe_machine(places), describe_commit()
    began_at, began = datetime.now(UTC), time.monotonic()
    root = os.environ.get("COMFYUI_ROOT") or None
    figures: list[Figure] = []
    errors: list[str] = []
    async with AsyncExitStack() as stack:
        simulated = Bench(places, EngineKind(), is_quick, stack)
        real = Bench(places, EngineKind(root), is_quick, stack) if root else None
        for group in groups:
            for bench, name in ((simulated, group), (real, f"{group}, real ComfyUI")):
                if bench is None or (bench is real and group not in REAL_GROUPS):
                    continue
                measure = cast("Measure", importlib.import_module(f"benchmarks.groups.{group}").measure)
                try:
                    async for figure in measure(bench):
                        figures.append(figure.model_copy(update={"group": name}))
                        tell(figures[-1])
                except* (AnswerWrong, DirectFailed) as failed:
                    errors += [f"{name}: {error}" for error in _flat(failed)]
    return Report(
        commit=commit,
        began_at=began_at.isoformat(timespec="seconds"),
        seconds=time.monotonic() - began,
        is_quick=is_quick,
        engine="simulator and ComfyUI" if root else "simulator",
        machine=machine,
        figures=figures,
        errors=errors,
    )


def _flat(error: BaseException) -> Iterator[BaseException]:
    """The exceptions inside a group of groups."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _flat(inner)
    else:
        yield error


def _allow_open_files() -> None:
    """Hundreds of streams are open at once, here and in the agents that inherit the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
