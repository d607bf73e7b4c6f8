"""One look at the pixels of an output: is it failed, and what classifiers are to see of it. The one thing that is done
with a picture in full size, so that it is decoded once. Takes a while: use a thread."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from PIL import Image

from agent.safety.failed_images import Failure, Limits, find_failure
from agent.safety.picture import frames, hidden, shrink

#: Longest side of what classifiers are sent, in pixels. Those of the usual models see less.
VIEW_SIDE = 1024


@dataclass(frozen=True, slots=True)
class Look:
    """`failure` and how long it took to tell, in milliseconds; `views`: what is to be
    classified, made small: frames, and what is hidden behind transparency."""

    failure: Failure | None = None
    ms: float = 0.0
    views: list[Image.Image] = field(default_factory=list)


def look_at(data: bytes, limits: Limits | None, *, wants_views: bool) -> Look:
    """`limits`: of the check for failed pictures; None: without it. Raises Unreadable."""
    began = time.perf_counter()
    shown = frames(data)
    failure = None
    if limits is not None:
        # An animation that begins in the dark has not failed: all of it must have.
        failures = [find_failure(frame, limits) for frame in shown]
        failure = failures[0] if all(failures) else None
    ms = (time.perf_counter() - began) * 1000
    views = [shrink(frame, VIEW_SIDE) for frame in (*shown, *hidden(data))] if wants_views else []
    return Look(failure, round(ms, 1), views)
