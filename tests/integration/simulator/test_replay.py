"""The simulator answers and reports as the recorded ComfyUI did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.simulator.replay import Player
from tests.integration.simulator.scenarios import ALL, Scenario


def lines(value: object) -> list[str]:
    """One line a message, so that a difference is readable."""
    return [json.dumps(one, sort_keys=True) for one in (value if isinstance(value, list) else [value])]


@pytest.mark.parametrize("scenario", ALL, ids=str)
async def test_replay_gives_what_the_recording_shows(scenario: Scenario, tmp_path: Path) -> None:
    player = Player(scenario, tmp_path)
    await player.play()
    for where, recorded, actual in player.compare():
        assert lines(actual) == lines(recorded), where
