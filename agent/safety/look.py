"""One look at the pixels of an output: is it failed, and what classifiers are to see of it. The one thing that is done
with a picture in full size, so that it is decoded once. Takes a while: use a thread."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from PIL import Image

from agent.safety.failed_images import Failure, Limits, find_failure
from agent.safety.picture import frames, shrink

#: Longest side of what classifiers are sent, in pixels. Those of the usual models see less.
VIEW_SIDE = 1024


@dataclass(frozen=True, slots=True)
class Look:
    """`failure` and how long it took to tell, in milliseconds; `views`: what is to be
    classified, made small: frames, and what is hidden behind transparency."""

    failure: Failure | None = None
    ms: float = 0.0
    views: list[Image.Image] = field(default_factory=list)


def look_at(data: bytes, limits: Limits | None, *, wants_views: bool, most_pixels: int | None = None) -> Look:
    """`limits`: of the check for failed pictures; None: without it. `most_pixels`: of a picture that is decoded. Raises
    Unreadable."""
    ms, failures, views = 0.0, [], []
    began = time.perf_counter()
    for frame, under in frames(data, most_pixels):  # one at a time is in memory in full size
        if limits is not None:
            failures.append(find_failure(frame, limits))
        ms += (time.perf_counter() - began) * 1000
        if wants_views:
            views += [shrink(view, VIEW_SIDE) for view in (frame, under) if view is not None]
        began = time.perf_counter()
    # An animation that begins in the dark has not failed: all of it must have.
    failure = failures[0] if failures and all(failures) else None
    return Look(failure, round(ms, 1), views)
