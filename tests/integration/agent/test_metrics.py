"""GET /metrics of agents that really run: what happens is seen in the numbers."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.agent import graphs
from tests.integration.agent.conversation import conversation
from tests.integration.agent.receiver import Receiver
from tests.integration.agent.service import Agent, MakeAgent, eventually
from tests.object_store import Bucket
from tests.redis_server import RedisServer

#: Methods that the web server takes, and that no route of ours has.
METHODS = ("PURGE", "LOCK", "COPY", "MOVE", "MKCOL", "SEARCH")


class Scrape:
    """All samples of one scrape."""

    def __init__(self, text: str) -> None:
        self.families = list(text_string_to_metric_families(text))
        self.samples = [sample for family in self.families for sample in family.samples]

    def get(self, name: str, **labels: str) -> float:
        """The sum of the series with these labels; 0 where there is none."""
        return sum(
            sample.value
            for sample in self.samples
            if sample.name == f"comfyui_agent_{name}" and labels.items() <= sample.labels.items()
        )


async def scrape(agent: Agent) -> Scrape:
    answer = await agent.get("/metrics")
    assert answer.status == 200, answer.body
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return Scrape(answer.body.decode())


async def scraped(agent: Agent, condition: Callable[[Scrape], bool]) -> Scrape:
    """The first scrape for which it holds."""
    seen: list[Scrape] = []

    async def holds() -> bool:
        seen.append(await scrape(agent))
        return condition(seen[-1])

    await eventually(holds)
    return seen[-1]


async def test_success_failure_and_cancel_are_counted(make_agent: MakeAgent) -> None:
    agent = await make_agent()
    before = await scrape(agent)
    assert before.get("tasks_total") == 0
    assert before.get("engine_ready") == 1
    assert before.get("info", role="all") == 1
    body = (await agent.run(graphs.painted(graphs.fresh_color()), "good")).body
    (await agent.run({"1": {"class_type": "NoSuchNode", "inputs": {}}}, "bad")).error(400, "UnknownNodeClass")
    (await agent.run(b"{")).error(400, "InvalidJson")
    task_id = await agent.begin(graphs.stepping(steps=1000))
    await agent.running(task_id)
    assert (await scrape(agent)).get("tasks", state="running") == 1
    await agent.cancel(task_id)
    after = await scraped(agent, lambda seen: seen.get("tasks_total") == 3)
    assert after.get("tasks_total", state="succeeded", code="none") == 1
    assert after.get("tasks_total", state="failed", code="UnknownNodeClass") == 1
    assert after.get("tasks_total", state="cancelled", code="TaskCancelled") == 1
    assert after.get("tasks", state="running") == 0
    assert after.get("http_errors_total", code="InvalidJson") == 1
    assert after.get("http_requests_total", route="/api/run", method="POST", status="200") == 1
    assert after.get("http_response_bytes_total") >= len(body)
    assert after.get("http_request_bytes_total") > 100
    for stage in ("engine", "inputs", "queue", "run", "collect", "deliver"):
        assert after.get("task_stage_seconds_count", stage=stage) >= 1, stage
    record = await agent.task("good")
    assert after.get("outputs_total") == len(record["outputs"]) == 1
    assert after.get("output_bytes_total") == record["outputs"][0]["bytes"]
    assert after.get("task_duration_seconds_count", state="succeeded") == 1
    assert after.get("task_billed_seconds_total") >= record["billed_seconds"] > 0
    assert after.get("open_request_seconds_total") > before.get("open_request_seconds_total")
    assert after.get("device_memory_bytes", device="cpu") > after.get("device_memory_free_bytes") > 0


async def test_record_says_how_long_each_node_and_stage_took(agent: Agent) -> None:
    task_id = await agent.begin(graphs.stepping(steps=20, color=graphs.fresh_color()))
    record = await agent.succeeded(task_id)
    assert record["timings"].keys() == {"engine", "inputs", "queue", "run", "collect", "deliver"}
    assert record["node_seconds"].keys() <= record["nodes"].keys()
    assert 0.1 < max(record["node_seconds"].values()) <= record["timings"]["run"]
    assert sum(record["node_seconds"].values()) <= record["timings"]["run"]
    assert sum(record["timings"].values()) <= record["billed_seconds"] + 0.1


async def test_engine_that_is_killed_shows_as_restart_and_retry(make_agent: MakeAgent) -> None:
    agent = await make_agent(engine=[])
    task_id = await agent.begin(graphs.stepping(steps=30))
    await agent.running(task_id)
    assert agent.engine_pid is not None
    os.kill(agent.engine_pid, signal.SIGKILL)
    await scraped(agent, lambda seen: seen.get("engine_ready") == 0)
    record = await agent.succeeded(task_id)
    seen = await scrape(agent)
    assert seen.get("engine_restarts_total") == 1
    assert seen.get("engine_ready") == 1
    assert seen.get("feed_reconnects_total") >= 1
    assert seen.get("task_retries_total", code="EngineDied") == 1
    assert seen.get("tasks_total", state="succeeded") == 1
    assert record["timings"]["engine"] > 0.05, "the task waited for the new engine"
    first, second = (a["ended_at"] - a["started_at"] for a in record["attempts"])
    assert abs(record["billed_seconds"] - first - second) < 0.01


async def test_scrape_is_answered_while_the_engine_hangs(
    make_agent: MakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = await make_agent(engine=[])
    known = (await scrape(agent)).get("device_memory_bytes", device="cpu")
    assert known > 0
    monkeypatch.setattr("agent.device_memory.FRESH_SECONDS", 0)
    assert agent.engine_pid is not None
    os.kill(agent.engine_pid, signal.SIGSTOP)
    try:
        assert (await scrape(agent)).get("device_memory_bytes", device="cpu") == known
        monkeypatch.setattr("agent.device_memory.STALE_SECONDS", 0)
        assert (await scrape(agent)).get("device_memory_bytes") == 0, "it is too old to be shown"
    finally:
        os.kill(agent.engine_pid, signal.SIGCONT)
    monkeypatch.undo()
    await scraped(agent, lambda seen: seen.get("device_memory_bytes") > 0)


async def test_feed_that_is_cut_shows_as_reconnect(make_agent: MakeAgent) -> None:
    agent = await make_agent(engine=["--fault", "drop-socket@event=execution_start,times=1"])
    assert (await agent.run(graphs.painted())).status == 200
    seen = await scraped(agent, lambda seen: seen.get("feed_reconnects_total") == 1)
    assert seen.get("engine_restarts_total") == 0


async def test_redis_that_is_gone_shows_as_store_errors(
    make_agent: MakeAgent, private_redis: RedisServer
) -> None:
    agent = await make_agent(redis_url=private_redis.url, redis_timeout_seconds=1)
    (await agent.get("/api/tasks/unknown")).error(404, "TaskNotFound")
    assert (await scrape(agent)).get("store_errors_total") == 0
    private_redis.stop()
    (await agent.get("/api/tasks/unknown")).error(503, "StoreUnavailable")
    seen = await scrape(agent)
    assert seen.get("store_errors_total") >= 1
    assert seen.get("http_errors_total", code="StoreUnavailable") == 1
    private_redis.start()
    (await agent.get("/api/tasks/unknown")).error(404, "TaskNotFound")


async def test_webhooks_are_counted_by_how_they_ended(make_agent: MakeAgent) -> None:
    receiver = Receiver(answers=[204, 410])
    async with receiver.listening():
        agent = await make_agent(fetch_allow=["127.0.0.1"])
        for _ in range(2):
            body = {"prompt": graphs.painted(), "webhook": receiver.url}
            assert (await agent.run(body)).status == 200
            await scraped(agent, lambda seen: seen.get("webhooks_total") == len(receiver.messages) > 0)
        seen = await scraped(agent, lambda seen: seen.get("webhooks_total") == 2)
    assert seen.get("webhooks_total", state="delivered") == 1
    assert seen.get("webhooks_total", state="failed") == 1


async def test_uploads_to_the_object_store_are_counted(make_agent: MakeAgent, bucket: Bucket) -> None:
    agent = await make_agent(**bucket.settings(outputs="url"))
    assert (await agent.run(graphs.painted())).status == 200
    assert (await scrape(agent)).get("object_uploads_total", result="succeeded") == 1


async def test_scrapes_need_a_key_where_there_are_keys(make_agent: MakeAgent) -> None:
    agent = await make_agent(api_keys=["the-key"])
    (await agent.get("/metrics")).error(401, "Unauthorized")
    # As `authorization: {credentials: the-key}` of Prometheus sends it.
    assert (await agent.get("/metrics", headers={"Authorization": "Bearer the-key"})).status == 200


async def test_front_shows_what_it_does_itself(
    make_agent: MakeAgent, redis_server: RedisServer, redis_prefix: str
) -> None:
    shared = {"redis_url": redis_server.url, "redis_prefix": redis_prefix}
    engine = await make_agent(role="engine", **shared)
    front = await make_agent(role="front", engine_url=engine.url, **shared)
    caller = asyncio.create_task(front.run(graphs.stepping(steps=100), "forwarded"))
    await engine.running_later("forwarded")
    assert (await scrape(front)).get("tasks", state="running") == 1
    assert (await caller).status == 200
    seen = await scrape(front)
    names = {sample.name for sample in seen.samples}
    assert seen.get("info", role="front") == 1
    assert seen.get("http_requests_total", route="/api/run", status="200") == 1
    assert "comfyui_agent_function_failures_total" in names
    assert not {"comfyui_agent_engine_ready", "comfyui_agent_tasks_total"} & names
    assert (await scrape(engine)).get("tasks_total", state="succeeded") == 1


async def test_no_series_grows_with_what_callers_send(make_agent: MakeAgent) -> None:
    agent = await make_agent()

    async def visit(number: int) -> None:
        name = f"caller-{number}"
        async with conversation(agent, graphs.painted(), **{"task-id": f"talk-{number}"}) as talk:
            await talk.results("2")
        assert (await agent.run(graphs.painted(graphs.fresh_color()), name)).status == 200
        await agent.get(f"/api/tasks/{name}")
        await agent.get(f"/api/tasks/{name}/outputs/{number + 1}")
        await agent.get(f"/{name}")
        await agent.get(f"/api/workflows/{name}")
        await agent.call(METHODS[number], "/api/run")
        await agent.run({str(number): {"class_type": f"Class{number}", "inputs": {}}}, f"bad-{number}")

    await visit(0)
    await scrape(agent)
    first = await scrape(agent)
    for number in range(1, 6):
        await visit(number)
    last = await scrape(agent)

    def series(seen: Scrape) -> set[tuple[str, ...]]:
        return {(sample.name, *map(str, sorted(sample.labels.items()))) for sample in seen.samples}

    assert series(last) == series(first)
    assert not [one for one in series(last) if "caller-" in str(one) or any(m in str(one) for m in METHODS)]
