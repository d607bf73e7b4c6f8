"""An instance that dies or freezes: its tasks show it within one lease, and run elsewhere when delivered again."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.agent.graphs import BLUE, GREEN, RED, rgb
from tests.integration.agent.pictures import color_of
from tests.integration.agent.service import PATIENCE_SECONDS
from tests.integration.reliability.conftest import MakeAgent
from tests.integration.reliability.fleet import (
    GRACE_SECONDS,
    LEASE_SECONDS,
    AgentProcess,
    instances,
    is_alive,
    outcomes,
    slow,
    until,
)

Pair = tuple[AgentProcess, AgentProcess]

SHOWN_SECONDS = LEASE_SECONDS + GRACE_SECONDS


async def test_task_of_a_killed_instance_shows_as_failed_within_one_lease_and_runs_when_sent_again(
    make_agent: MakeAgent, pair: Pair
) -> None:
    second, _ = pair
    first = await make_agent(**second.fleet)
    graph = slow(500, color=RED)
    await first.begin(graph, "lost-1")
    await first.running("lost-1")
    engine = first.engine_pid
    await first.kill()

    record = await second.until("lost-1", lambda r: r["state"] == "failed", SHOWN_SECONDS)
    assert record["error"]["code"] == "InstanceLost"
    assert outcomes(record) == ["lost"]
    (await second.status("lost-1")).error(503, "InstanceLost")
    for query in ({}, {"state": "failed"}, {"state": "running"}):
        listed = (await second.get("/api/tasks", params=query)).ok()["tasks"]
        expected = [] if query.get("state") == "running" else ["failed"]
        assert [r["state"] for r in listed if r["id"] == "lost-1"] == expected, "the list says otherwise"
    assert engine is not None
    await until(lambda: not is_alive(engine))

    # The same workflow again: it is the same task, in its second attempt.
    second_run = asyncio.create_task(second.run(graph, "lost-1"))
    record = await second.running("lost-1")
    assert outcomes(record) == ["lost", None]
    assert len(set(instances(record))) == 2
    await second.cancel("lost-1")
    (await second_run).error(410, "TaskCancelled")


async def test_task_of_a_killed_instance_waits_for_its_redelivery_behind_a_gateway(
    make_agent: MakeAgent,
) -> None:
    first, second = await asyncio.gather(
        make_agent(AGENT_INVOCATION="gateway"), make_agent(AGENT_INVOCATION="gateway")
    )
    graph = slow(50, color=GREEN)
    delivery = asyncio.create_task(first.run(graph, "lost-2"))
    await first.running("lost-2")
    await first.kill()
    with pytest.raises(Exception):  # noqa: B017 - whichever way the connection breaks
        await delivery

    record = await second.until("lost-2", lambda r: outcomes(r) == ["lost"], SHOWN_SECONDS)
    assert record["state"] == "queued"
    answer = await second.run(graph, "lost-2")
    assert color_of(answer.results("3")[0]) == rgb(GREEN)
    record = await second.task("lost-2")
    assert outcomes(record) == ["lost", "succeeded"]
    assert [attempt["number"] for attempt in record["attempts"]] == [1, 2]


async def test_redelivery_that_waits_for_a_killed_instance_takes_over_by_itself(
    make_agent: MakeAgent, pair: Pair
) -> None:
    second, _ = pair
    first = await make_agent(**second.fleet)
    graph = slow(60, color=BLUE)
    await first.begin(graph, "lost-3")
    await first.running("lost-3")
    joined = asyncio.create_task(second.run(graph, "lost-3"))
    await second.running("lost-3")
    await first.kill()
    answer = await asyncio.wait_for(joined, PATIENCE_SECONDS)
    assert color_of(answer.results("3")[0]) == rgb(BLUE)
    assert outcomes(await second.task("lost-3")) == ["lost", "succeeded"]


async def test_task_that_lost_all_its_instances_fails_for_good(make_agent: MakeAgent) -> None:
    """Also as seen by an instance that would try more often itself: what counts is the limit of the one that died."""
    limits = {"AGENT_MAX_ATTEMPTS": 1, "AGENT_INVOCATION": "gateway"}
    first, second, looker = await asyncio.gather(
        make_agent(**limits), make_agent(**limits), make_agent(**limits | {"AGENT_MAX_ATTEMPTS": 9})
    )
    graph = slow(500)
    delivery = asyncio.create_task(first.run(graph, "lost-4"))
    await first.running("lost-4")
    await first.kill()
    await asyncio.gather(delivery, return_exceptions=True)
    for agent in (second, looker):
        record = await agent.until("lost-4", lambda r: r["state"] == "failed", SHOWN_SECONDS)
        assert record["error"]["code"] == "InstanceLost"
    (await second.run(graph, "lost-4")).error(503, "InstanceLost")
    assert second.executed == 0


async def test_task_with_attempts_left_waits_whatever_the_limit_of_those_who_look(
    make_agent: MakeAgent,
) -> None:
    first, looker = await asyncio.gather(
        make_agent(AGENT_INVOCATION="gateway", AGENT_MAX_ATTEMPTS=2),
        make_agent(AGENT_INVOCATION="gateway", AGENT_MAX_ATTEMPTS=1),
    )
    delivery = asyncio.create_task(first.run(slow(500), "lost-5"))
    await first.running("lost-5")
    await first.kill()
    await asyncio.gather(delivery, return_exceptions=True)
    record = await looker.until("lost-5", lambda r: outcomes(r) == ["lost"], SHOWN_SECONDS)
    assert record["state"] == "queued"


async def test_instance_that_wakes_after_its_lease_gives_way_to_the_new_owner(
    make_agent: MakeAgent, pair: Pair
) -> None:
    second, _ = pair
    first = await make_agent(**second.fleet)
    graph = slow(120, color=RED)
    caller = asyncio.create_task(first.run(graph, "frozen-1"))
    record = await first.running("frozen-1")
    first.pause()
    await second.until("frozen-1", lambda r: r["state"] == "failed", SHOWN_SECONDS)

    # The new owner's engine has not seen this workflow: it takes its time, and the first one wakes meanwhile.
    taken = asyncio.create_task(second.run(graph, "frozen-1"))
    await second.until("frozen-1", lambda r: r["state"] == "running" and len(r["attempts"]) == 2)
    first.resume()
    await until(lambda: first.logged("task.taken_over"))
    await first.freed()

    answers = [await taken, await caller]
    final = await second.task("frozen-1")
    assert outcomes(final) == ["lost", "succeeded"]
    assert final["attempts"][0]["instance"] == record["attempts"][0]["instance"]
    assert [color_of(a.results("3")[0]) for a in answers] == [rgb(RED)] * 2
    assert answers[0].body == answers[1].body, "both callers get the new owner's result"
    assert await first.task("frozen-1") == final


async def test_instance_that_wakes_after_the_new_owner_has_finished_overwrites_nothing(
    make_agent: MakeAgent, pair: Pair
) -> None:
    second, _ = pair
    first = await make_agent(**second.fleet)
    graph = slow(30, color=GREEN)
    caller = asyncio.create_task(first.run(graph, "frozen-2"))
    await first.running("frozen-2")
    # Only the agent freezes: its engine finishes, so that the agent wakes to a result that it could write.
    first.pause()
    await second.until("frozen-2", lambda r: r["state"] == "failed", SHOWN_SECONDS)
    answer = await second.run(graph, "frozen-2")
    final = await second.task("frozen-2")
    output = await second.output("frozen-2", 0)
    first.resume()
    late = await asyncio.wait_for(caller, PATIENCE_SECONDS)
    await first.freed()
    assert late.body == answer.body, "the first caller gets the new owner's result"
    assert await first.task("frozen-2") == await second.task("frozen-2") == final
    assert (await first.output("frozen-2", 0)).body == output.body
