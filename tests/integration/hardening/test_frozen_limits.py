"""The time for which an instance was frozen does not count towards the limits of its tasks."""

from __future__ import annotations

import json
from pathlib import Path

from agent.api.keys import RUNNER, WARM_UP
from tests.integration.agent.graphs import chain, empty, node, save
from tests.integration.agent.service import Agent, MakeAgent, eventually


def thaw(agent: Agent, seconds: float) -> None:
    """As the watch does it after a freeze of so long."""
    agent._runner.app[RUNNER].thaw(seconds)


async def test_task_limit_is_moved_on_by_the_time_of_a_freeze(make_agent: MakeAgent) -> None:
    agent = await make_agent(task_timeout_seconds=6)
    lasting = chain(empty(), node("LabSteps", image=..., steps=100, seconds=0.1), save())
    frozen = await agent.begin(lasting)
    await agent.running(frozen)
    thaw(agent, 60)
    awake = await agent.begin(lasting)  # its limit began after the freeze
    assert (await agent.finished(awake))["error"]["code"] == "TaskTimeout"
    await agent.until(frozen, lambda record: record["state"] == "succeeded", 30)


async def test_limit_of_the_warm_up_is_moved_on_too(make_agent: MakeAgent, tmp_path: Path) -> None:
    lasting = chain(empty(), node("LabSteps", image=..., steps=100, seconds=0.08), save("warm-up"))
    (tmp_path / "warm-up.json").write_text(json.dumps(lasting))
    agent = await make_agent(
        engine=[], warm_up=str(tmp_path / "warm-up.json"), task_timeout_seconds=5, wait=False
    )
    warm_up = agent._runner.app[WARM_UP]

    async def is_limited() -> bool:
        return warm_up._limit is not None

    await eventually(is_limited)
    warm_up.thaw(60)  # as the watch does it after a freeze of so long
    await agent.ready()
    assert len(list(tmp_path.rglob("output/warm-up_*.png"))) == 1
