"""A freeze shows in the clocks, and its time does not count."""

from __future__ import annotations

import pytest

from agent.freeze import LONGEST_PAUSE_SECONDS, TICK_SECONDS, FreezeWatch


@pytest.mark.parametrize("clock", ["monotonic", "wall"])
def test_both_clocks_tell_of_a_freeze(clock: str) -> None:
    now = {"monotonic": 0.0, "wall": 0.0}
    heard: list[float] = []
    watch = FreezeWatch(lambda: now["monotonic"], lambda: now["wall"])
    watch.on_thaw(heard.append)
    for name in now:
        now[name] += TICK_SECONDS + LONGEST_PAUSE_SECONDS
    watch.check()
    assert heard == []
    now[clock] += 100
    watch.check()
    watch.check()
    assert heard == [100 if clock == "monotonic" else 0]


def test_a_listener_that_fails_does_not_keep_the_others_from_hearing_of_it() -> None:
    now = [0.0]
    heard: list[float] = []
    watch = FreezeWatch(lambda: now[0], lambda: now[0])
    watch.on_thaw(lambda _: 1 / 0)
    watch.on_thaw(heard.append)
    now[0] = 10
    watch.check()
    assert heard == [10]
