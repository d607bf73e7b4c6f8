"""A platform delivers at least once; the engine runs once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tests.integration.agent.graphs import BLUE, GREEN, RED, fresh_color, raising, rgb
from tests.integration.agent.pictures import color_of
from tests.integration.reliability.conftest import MakeAgent
from tests.integration.reliability.fleet import AgentProcess, outcomes, slow

Pair = tuple[AgentProcess, AgentProcess]


def runs(agents: Pair, prefix: str) -> int:
    """How often the engines ran workflows that save under this name."""
    return sum(agent.executed_saves(prefix) for agent in agents)


@contextlib.asynccontextmanager
async def no_run(*agents: AgentProcess) -> AsyncIterator[None]:
    """Within, no engine is asked for anything."""
    async with contextlib.AsyncExitStack() as stack:
        for agent in agents:
            await stack.enter_async_context(agent.engine.asked(0))
        yield


async def test_ten_deliveries_in_parallel_to_two_instances_run_once(pair: Pair) -> None:
    graph = slow(20, color=RED, prefix="ten")
    answers = await asyncio.gather(*(pair[n % 2].run(graph, "ten") for n in range(10)))
    assert {color_of(a.results("3")[0]) for a in answers} == {rgb(RED)}
    assert len({a.body for a in answers}) == 1
    assert outcomes(await pair[0].task("ten")) == ["succeeded"]
    await asyncio.gather(*(agent.freed() for agent in pair))
    assert runs(pair, "ten") == 1


async def test_later_deliveries_return_the_stored_result(pair: Pair) -> None:
    graph = slow(3, color=GREEN)
    first = await pair[0].run(graph, "again")
    async with no_run(*pair):
        for agent in pair:
            assert (await agent.run(graph, "again")).body == first.body
            assert (await agent.submit(graph, "again")).status == 202


async def test_many_tasks_each_delivered_to_both_instances_at_once_run_once_each(pair: Pair) -> None:
    colors = {f"both-{n}": fresh_color() for n in range(20)}
    calls = [
        agent.run(slow(2, color=color, prefix="both"), name)
        for name, color in colors.items()
        for agent in pair
    ]
    for answer in await asyncio.gather(*calls):
        assert color_of(answer.results("3")[0]) == rgb(colors[answer.headers["task-id"]])
    await asyncio.gather(*(agent.freed() for agent in pair))
    assert runs(pair, "both") == 20


async def test_delivery_after_a_fault_of_the_workflow_returns_the_failure_without_the_engine(
    pair: Pair,
) -> None:
    graph = raising("on purpose")
    first = (await pair[0].run(graph, "raised")).error(500, "NodeFailed")
    async with no_run(*pair):
        assert (await pair[1].run(graph, "raised")).error(500, "NodeFailed") == first


async def test_delivery_after_a_fault_of_the_machine_runs_again(pair: Pair) -> None:
    await pair[0].engine.fault("reject-all")
    graph = slow(3, color=BLUE)
    (await pair[0].run(graph, "transient")).error(502, "EngineMisbehaved")
    answer = await pair[1].run(graph, "transient")
    assert color_of(answer.results("3")[0]) == rgb(BLUE)
    assert outcomes(await pair[0].task("transient")) == ["failed", "succeeded"]


async def test_same_id_with_another_workflow_is_refused_everywhere(pair: Pair) -> None:
    await pair[0].begin(slow(20), "mine")
    for agent in pair:
        (await agent.run(slow(3), "mine")).error(409, "TaskConflict")
    await pair[0].succeeded("mine")
    for agent in pair:
        (await agent.run(slow(3), "mine")).error(409, "TaskConflict")


async def test_result_of_an_instance_that_is_gone_is_served_by_the_others(
    make_agent: MakeAgent, pair: Pair
) -> None:
    second, _ = pair
    first = await make_agent(**second.fleet)
    graph = slow(3, color=GREEN)
    answer = await first.run(graph, "inherited")
    await first.kill()
    async with no_run(second):
        assert (await second.run(graph, "inherited")).body == answer.body
        assert (await second.status("inherited")).body == answer.body
