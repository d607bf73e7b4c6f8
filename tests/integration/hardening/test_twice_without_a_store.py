"""Deliveries of one task while no store can tell whether another instance has it."""

from __future__ import annotations

import asyncio

from tests.integration.agent import graphs
from tests.integration.agent.pictures import color_of
from tests.integration.agent.service import MakeAgent
from tests.integration.hardening.conftest import board_of
from tests.redis_server import RedisServer


async def test_named_task_never_runs_while_the_store_is_away_and_once_when_it_is_back(
    make_agent: MakeAgent, fleet: dict[str, object], private_redis: RedisServer
) -> None:
    agent = await make_agent(**fleet)
    await asyncio.to_thread(private_redis.stop)
    color = graphs.fresh_color()
    async with agent.engine.asked(0):
        for answer in await asyncio.gather(*(agent.run(graphs.painted(color), "twice") for _ in range(3))):
            assert answer.error(503, "StoreUnavailable")["transient"]
            assert int(answer.headers["Retry-After"]) > 0
    assert board_of(agent).live == {}
    await asyncio.to_thread(private_redis.start)
    async with agent.engine.asked(1):
        answers = await asyncio.gather(*(agent.run(graphs.painted(color), "twice") for _ in range(3)))
    assert [color_of(*answer.results("2")) for answer in answers] == [graphs.rgb(color)] * 3
