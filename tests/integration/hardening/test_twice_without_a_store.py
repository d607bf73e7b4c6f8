"""Two deliveries of one task that no store can tell apart."""

from __future__ import annotations

import asyncio

from tests.integration.agent import graphs
from tests.integration.agent.conftest import MakeAgent
from tests.integration.agent.pictures import color_of
from tests.integration.hardening.conftest import board_of
from tests.redis_server import RedisServer


async def test_two_deliveries_at_once_share_one_run_while_the_store_is_away(
    make_agent: MakeAgent, fleet: dict[str, object], private_redis: RedisServer
) -> None:
    agent = await make_agent(**fleet)
    await asyncio.to_thread(private_redis.stop)
    color = graphs.fresh_color()
    async with agent.engine.asked(1):
        answers = await asyncio.gather(*(agent.run(graphs.painted(color), "twice") for _ in range(3)))
    assert [color_of(*answer.results("2")) for answer in answers] == [graphs.rgb(color)] * 3
    assert board_of(agent).live == {}
    (await agent.get("/api/queue")).ok()
