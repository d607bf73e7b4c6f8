"""Event streams and WebSockets of the agent through the trigger (section 5)."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import aiohttp

from tests.gateway.conftest import Deploy
from tests.integration.agent.graphs import BLUE, RED, painted, rgb
from tests.integration.agent.pictures import color_of, unb64
from tests.integration.reliability.fleet import slow, until

PATIENCE_SECONDS = 40


async def test_events_of_a_task_arrive_while_it_runs_and_end_with_it(deploy_gpu: Deploy) -> None:
    _, caller = await deploy_gpu()
    assert (await caller.invoke(slow(60, color=RED), "followed")).status == 202
    await caller.until_running("followed", PATIENCE_SECONDS)
    async with caller.http.get("/api/tasks/followed/events") as response:
        assert response.content_type == "text/event-stream"
        lines = [line async for line in response.content if line.startswith(b"data: ")]
    states = [json.loads(line.removeprefix(b"data: "))["state"] for line in lines]
    assert states[0] == "running"
    assert states.count("running") > 1, "the stream was held back"
    assert states[-1] == "succeeded"


async def test_run_over_a_websocket_gets_progress_and_result(deploy_gpu: Deploy) -> None:
    function, caller = await deploy_gpu()
    async with caller.http.ws_connect("/api/run/ws", headers={"task-id": "socket"}) as socket:
        await socket.send_json(slow(20, color=BLUE))
        messages = [json.loads(message.data) async for message in socket]
    assert {message["type"] for message in messages[:-1]} == {"progress"}
    assert messages[-1]["type"] == "result"
    assert color_of(unb64(messages[-1]["data"]["3"]["results"][0])) == rgb(BLUE)
    await until(lambda: function.fleet.instances[0].is_frozen)


async def test_websocket_that_the_platform_cuts_is_resumed_by_task_id(deploy_gpu: Deploy) -> None:
    """Section 5: on timeout the client sees 1006, and comes again with the same id."""
    function, caller = await deploy_gpu(timeout_seconds=4, environment={"AGENT_TASK_TIMEOUT_SECONDS": "60"})
    graph = slow(1000, 0.02, color=RED)
    async with caller.http.ws_connect("/api/run/ws", headers={"task-id": "cut"}) as socket:
        await socket.send_json(graph)
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for _ in socket:
                pass  # progress
    assert socket.close_code == aiohttp.WSCloseCode.ABNORMAL_CLOSURE
    await until(lambda: function.fleet.instances[0].is_frozen)
    function.fleet.function = replace(function.function, timeout_seconds=60)
    # The agent learns of it when it wakes: nobody waits for the run any more, and the engine is free for others.
    assert color_of(*(await caller.run(painted(BLUE), "next")).results("2")) == rgb(BLUE)
    record = await caller.until("cut", lambda r: r["state"] == "cancelled")
    assert record["error"]["transient"], "sent again, it would run again"
