"""The end of an instance: every part of it stops."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.inventory import Inventory
from tests.integration.agent.service import Agent, engine_of, settings_of


async def test_part_that_fails_to_stop_does_not_keep_the_others_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: Inventory) -> None:
        raise ValueError("no end")

    monkeypatch.setattr(Inventory, "stop", fail)
    agent = Agent(settings_of(**engine_of(tmp_path)))
    await agent.__aenter__()
    await agent.ready()
    pid = agent.engine_pid
    with pytest.raises(ValueError, match="no end"):
        await agent.__aexit__()
    assert pid is not None
    assert not Path(f"/proc/{pid}").exists()
