"""What is refused: early, shortly, with the name of what is wrong, and without a word to the engine."""

from __future__ import annotations

import asyncio
import io
import time
from typing import Any

import pytest

from tests.integration.agent import graphs
from tests.integration.agent.service import PATIENCE_SECONDS, Agent, MakeAgent

#: Generous: parsing shares the interpreter with this test too. Without a bound it takes several seconds.
HEALTH_SECONDS = 1

LONG = "x" * 10_000

SHORT_BYTES = 2000


async def test_one_node_more_than_the_limit_is_refused(make_agent: MakeAgent) -> None:
    agent = await make_agent(max_nodes=2)
    async with agent.engine.asked(1):
        assert (await agent.run(graphs.painted())).status == 200
        assert (await agent.run(graphs.raising())).error(413, "WorkflowTooLarge")["limit"] == 2


async def test_body_of_very_many_nodes_is_refused_while_health_answers(agent: Agent) -> None:
    nodes = ",".join(f'"{number}":{{}}' for number in range(700_000))
    body = io.BytesIO(f'{{"prompt":{{{nodes}}}}}'.encode())
    posted = asyncio.create_task(agent.call("POST", "/api/run", data=body))
    slowest = 0.0
    while not posted.done():
        started = time.monotonic()
        assert (await agent.get("/healthz")).status == 200
        slowest = max(slowest, time.monotonic() - started)
        await asyncio.sleep(0.01)  # between two looks
    (await posted).error(413, "WorkflowTooLarge")
    assert slowest < HEALTH_SECONDS


TOO_LONG: dict[str, Any] = {
    "class": {"1": graphs.node(LONG)},
    "id": {LONG: graphs.node("EmptyImage")},
    "id of what is no node": {LONG: 1},
}


@pytest.mark.parametrize("graph", TOO_LONG.values(), ids=TOO_LONG)
async def test_name_of_ten_thousand_characters_is_refused_with_a_short_answer(
    agent: Agent, graph: dict[str, Any]
) -> None:
    answer = await agent.run(graph)
    answer.error(400, "InvalidWorkflow")
    assert len(answer.body) < SHORT_BYTES


@pytest.mark.parametrize("prefix", ["a..b", "a\nb", "a\x00b"])
async def test_name_that_could_not_be_fetched_is_refused_before_the_work(agent: Agent, prefix: str) -> None:
    async with agent.engine.asked(0):
        answer = await agent.run(graphs.painted(prefix=prefix))
    error = answer.error(400, "InvalidInput")
    assert (error["node_id"], error["input"]) == ("2", "filename_prefix")


@pytest.mark.parametrize("limit", ["0000000015000000", "9" * 5000, "0" * 5000])
async def test_number_of_many_digits_is_no_limit_of_a_page(agent: Agent, limit: str) -> None:
    answer = await agent.get("/api/tasks", params={"limit": limit})
    assert answer.error(400, "InvalidQuery")["parameter"] == "limit"
    assert len(answer.body) < SHORT_BYTES


async def test_failed_run_without_an_id_is_answered_with_the_id_of_its_record(agent: Agent) -> None:
    answer = await agent.run(graphs.raising())
    answer.error(500, "NodeFailed")
    record = await agent.task(answer.headers["task-id"])
    assert (record["state"], record["error"]["code"]) == ("failed", "NodeFailed")


async def test_instance_that_was_told_to_stop_is_not_ready_and_says_when_to_come_again(
    make_agent: MakeAgent,
) -> None:
    agent = await make_agent()
    assert (await agent.get("/pre-stop")).status == 200
    for refused in (await agent.get("/readyz"), await agent.run(graphs.painted())):
        refused.error(503, "ShuttingDown")
        assert int(refused.headers["Retry-After"]) > 0
    assert (await agent.get("/healthz")).status == 200


async def test_full_queue_and_missing_store_say_when_to_come_again(make_agent: MakeAgent) -> None:
    agent = await make_agent(queue_size=0, concurrency=1, redis_url="redis://127.0.0.1:1/0")
    without_store = await agent.submit(graphs.painted())
    without_store.error(503, "StoreUnavailable")
    holder = asyncio.create_task(agent.run(graphs.stepping()))

    async def refused() -> Any:
        answer = await agent.submit(graphs.painted())
        return answer.status == 429 and answer

    full = await asyncio.wait_for(_until(refused), PATIENCE_SECONDS)
    for answer in (without_store, full):
        assert int(answer.headers["Retry-After"]) > 0
    holder.cancel()
    await asyncio.gather(holder, return_exceptions=True)


async def _until(look: Any) -> Any:
    while not (found := await look()):
        await asyncio.sleep(0.01)  # nothing tells that the task has its place
    return found


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_body_that_is_not_what_its_encoding_says_is_the_callers_fault(
    agent: Agent, encoding: str
) -> None:
    # The connection cannot be used again: nobody knows where such a body ends.
    headers = {"Content-Encoding": encoding, "Connection": "close"}
    answer = await agent.call("POST", "/api/run", data=b"notgzip", headers=headers)
    answer.error(400, "InvalidRequest")
    assert (await agent.run(graphs.painted())).status == 200
