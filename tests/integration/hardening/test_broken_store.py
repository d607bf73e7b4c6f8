"""A store that fails in a way nobody thought of costs at most the task that met it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.integration.agent import graphs
from tests.integration.agent.pictures import color_of
from tests.integration.agent.service import MakeAgent
from tests.integration.hardening.conftest import LEASE_SECONDS, board_of

#: The lease of the broken attempt runs out before the task is tried again.
ANSWER_SECONDS = 20 * LEASE_SECONDS


async def breaks(*_: object) -> Any:
    raise RuntimeError("nobody thought of this")


async def test_unexpected_error_while_a_task_is_settled_leaves_no_task_and_no_caller_behind(
    make_agent: MakeAgent, fleet: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = await make_agent(**fleet, max_attempts=2)
    board = board_of(agent)
    with monkeypatch.context() as broken:
        broken.setattr(board.store, "write", breaks)
        async with asyncio.timeout(ANSWER_SECONDS):
            (await agent.run(graphs.painted(), "unsettled")).error(503, "InstanceLost")
        assert board.live == {}
    answer = await agent.run(graphs.painted(graphs.RED))
    assert color_of(*answer.results("2")) == (255, 0, 0)


async def test_heartbeat_goes_on_after_an_unexpected_error(
    make_agent: MakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = await make_agent(lease_seconds=LEASE_SECONDS)
    store = board_of(agent).store
    extend, beats, goes_on = store.extend, 0, asyncio.Event()

    async def breaks_once(*arguments: Any) -> bool:
        nonlocal beats
        beats += 1
        if beats == 1:
            await breaks()
        goes_on.set()
        return await extend(*arguments)

    monkeypatch.setattr(store, "extend", breaks_once)
    run = asyncio.create_task(agent.run(graphs.stepping(steps=100, color=graphs.BLUE)))
    async with asyncio.timeout(10 * LEASE_SECONDS):
        await goes_on.wait()
    assert color_of(*(await run).results("3")) == (0, 0, 255)
