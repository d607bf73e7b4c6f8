"""A front function before a GPU function, both on the platform: what a browser's requests come to."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest
from PIL import Image

from tests.gateway.caller import count_prompts
from tests.gateway.calls import KB, LARGEST_ASYNC_BODY
from tests.gateway.conftest import Deploy
from tests.gateway.function import AsyncConfig
from tests.gateway.journal import What
from tests.gateway.tasks import TaskState
from tests.integration.agent import graphs
from tests.integration.agent.graphs import BLUE, GREEN, RED, painted, rgb
from tests.integration.agent.pictures import b64, color_of, encode, look, unb64
from tests.integration.reliability.fleet import outcomes, slow, until

PATIENCE_SECONDS = 40

GPU_ROUTES = {"POST /api/run", "POST /initialize", "GET /healthz", "GET /pre-stop"}


def noise() -> Image.Image:
    """A picture that no format makes smaller: as PNG and base64 some 250 KB."""
    return Image.frombytes("RGB", (256, 256), random.Random(1).randbytes(256 * 256 * 3))


async def test_polls_and_streams_wake_no_gpu(deploy_gpu: Deploy, deploy_front: Deploy) -> None:
    gpu, _ = await deploy_gpu()
    _, caller = await deploy_front(gpu)
    (await caller.get("/api/tasks")).ok()
    (await caller.get("/api/tasks/nobody")).error(404, "TaskNotFound")
    assert gpu.fleet.instances == [], "reading starts none"
    assert (await caller.hand_in(slow(50, color=RED), "watched")).status == 202
    async with caller.http.get("/api/tasks/watched/events") as stream:
        events = await stream.read()
    assert events.count(b"data: ") > 1
    assert b'"state":"succeeded"' in events
    (instance,) = gpu.fleet.instances
    await until(lambda: instance.is_frozen)
    thawed = len(gpu.events(What.THAWED))
    for path in ("/api/tasks/watched", "/api/status?id=watched", "/api/tasks", "/api/queue", "/readyz"):
        (await caller.get(path)).ok()
    assert color_of((await caller.output("watched", 0)).body) == rgb(RED)
    assert len(gpu.events(What.THAWED)) == thawed
    assert set(gpu.delivered()) <= GPU_ROUTES


async def test_picture_beyond_the_limit_of_asynchronous_bodies_arrives_byte_for_byte(
    deploy_gpu: Deploy, deploy_front: Deploy
) -> None:
    gpu, _ = await deploy_gpu()
    _, caller = await deploy_front(gpu)
    graph = graphs.loaded(b64(encode(noise())))
    assert len(json.dumps(graph)) > LARGEST_ASYNC_BODY
    assert (await caller.hand_in(graph, "large")).status == 202
    (task,) = gpu.queue.tasks.values()
    assert len(task.body) < 4 * KB
    assert (await gpu.queue.ended(task.call.task_id, PATIENCE_SECONDS)).state is TaskState.SUCCEEDED
    assert look((await caller.output("large", 0)).body).convert("RGB").tobytes() == noise().tobytes()


async def test_synchronous_run_and_websocket_go_through_to_the_gpu(
    deploy_gpu: Deploy, deploy_front: Deploy
) -> None:
    gpu, _ = await deploy_gpu()
    _, caller = await deploy_front(gpu)
    answer = await caller.run(painted(GREEN), "waited")
    assert color_of(*answer.results("2")) == rgb(GREEN)
    async with caller.http.ws_connect("/api/run/ws", headers={"task-id": "socket"}) as socket:
        await socket.send_json(slow(10, color=BLUE))
        messages = [json.loads(message.data) async for message in socket]
    assert messages[-1]["type"] == "result"
    assert color_of(unb64(messages[-1]["data"]["3"]["results"][0])) == rgb(BLUE)
    assert set(gpu.delivered()) <= GPU_ROUTES


@pytest.mark.parametrize("shown", [True, False], ids=["type shown", "type hidden"])
async def test_front_that_is_itself_invoked_asynchronously_still_gets_the_task_done(
    deploy_gpu: Deploy, deploy_front: Deploy, shown: bool
) -> None:
    gpu, _ = await deploy_gpu()
    front, caller = await deploy_front(gpu, asynchronous=AsyncConfig(shows_type=shown))
    assert (await caller.invoke(painted(BLUE), "twofold")).status == 202
    assert (await front.queue.ended("twofold", PATIENCE_SECONDS)).state is TaskState.SUCCEEDED
    await caller.until("twofold", lambda r: r["state"] == "succeeded", PATIENCE_SECONDS)
    assert color_of((await caller.output("twofold", 0)).body) == rgb(BLUE)


async def test_refusal_of_the_engine_is_readable_at_the_front(
    deploy_gpu: Deploy, deploy_front: Deploy
) -> None:
    gpu, _ = await deploy_gpu()
    _, caller = await deploy_front(gpu)
    (await caller.hand_in(b"{", "not-json")).error(400, "InvalidJson")
    assert gpu.queue.tasks == {}, "the front saw that itself"
    assert (await caller.hand_in(painted() | {"3": graphs.node("NoSuchNode")}, "unknown")).status == 202
    record = await caller.until("unknown", lambda r: r["state"] == "failed", PATIENCE_SECONDS)
    assert record["error"]["code"] == "UnknownNodeClass"


async def test_front_tells_its_caller_when_every_gpu_is_taken_and_goes_on_answering(
    deploy_gpu: Deploy, deploy_front: Deploy
) -> None:
    gpu, _ = await deploy_gpu(instance_concurrency=1)
    _, caller = await deploy_front(gpu)
    run = asyncio.create_task(caller.run(slow(150, color=RED), "busy"))
    await caller.until_running("busy", PATIENCE_SECONDS)
    (await caller.run(painted(), "refused")).error(429, "EngineBusy")
    assert (await caller.task("busy"))["state"] == "running"
    assert (await caller.hand_in(painted(GREEN), "patient")).status == 202
    assert color_of(*(await run).results("3")) == rgb(RED)
    await caller.until("patient", lambda r: r["state"] == "succeeded", PATIENCE_SECONDS)


async def test_run_whose_instance_is_killed_is_sent_again_by_the_front(
    deploy_gpu: Deploy, deploy_front: Deploy
) -> None:
    gpu, _ = await deploy_gpu(max_instances=2)
    _, caller = await deploy_front(gpu)
    run = asyncio.create_task(caller.run(slow(100, color=BLUE), "lost"))
    await caller.until_running("lost", PATIENCE_SECONDS)
    await gpu.fleet.instances[0].kill()
    assert color_of(*(await run).results("3")) == rgb(BLUE)
    assert outcomes(await caller.task("lost")) == ["lost", "succeeded"]


async def test_caller_who_hangs_up_at_the_front_frees_the_gpu(
    deploy_gpu: Deploy, deploy_front: Deploy
) -> None:
    gpu, _ = await deploy_gpu()
    _, caller = await deploy_front(gpu)
    run = asyncio.create_task(caller.run(slow(1000, 0.05), "hung-up"))
    await caller.until_running("hung-up", PATIENCE_SECONDS)
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    assert color_of(*(await caller.run(painted(RED), "next")).results("2")) == rgb(RED)
    await caller.until("hung-up", lambda r: r["state"] == "cancelled", PATIENCE_SECONDS)


async def test_cancel_at_the_front_ends_the_run_on_the_gpu(deploy_gpu: Deploy, deploy_front: Deploy) -> None:
    gpu, _ = await deploy_gpu()
    _, caller = await deploy_front(gpu)
    assert (await caller.hand_in(slow(1000, 0.05), "cancelled")).status == 202
    await caller.until_running("cancelled", PATIENCE_SECONDS)
    assert (await caller.cancel("cancelled")).status == 200
    await caller.until("cancelled", lambda r: r["state"] == "cancelled", PATIENCE_SECONDS)
    (task,) = gpu.queue.tasks.values()
    await gpu.queue.ended(task.call.task_id, PATIENCE_SECONDS)
    assert len(task.deliveries) == 1, "it is not delivered again"


async def test_front_that_is_scaled_in_leaves_its_tasks_to_the_next_one(
    deploy_gpu: Deploy, deploy_front: Deploy
) -> None:
    gpu, _ = await deploy_gpu()
    front, caller = await deploy_front(gpu)
    assert (await caller.hand_in(slow(50, color=GREEN), "left")).status == 202
    await front.fleet.instances[0].kill()
    await caller.until("left", lambda r: r["state"] == "succeeded", PATIENCE_SECONDS)
    assert color_of((await caller.output("left", 0)).body) == rgb(GREEN)
    assert len(front.fleet.instances) == 2


async def test_key_of_the_gpu_function_stays_at_the_front(deploy_gpu: Deploy, deploy_front: Deploy) -> None:
    gpu, direct = await deploy_gpu(environment={"AGENT_API_KEYS": "key-of-the-gpu"})
    keys: dict[str, Any] = {"AGENT_API_KEYS": "key-of-the-browser", "AGENT_ENGINE_API_KEY": "key-of-the-gpu"}
    front, caller = await deploy_front(gpu, environment=keys)
    headers = {"X-Api-Key": "key-of-the-browser"}
    (await direct.run(painted(), headers=headers)).error(401, "Unauthorized")
    answer = await caller.run(painted(RED), "keyed", headers=headers)
    assert color_of(*answer.results("2")) == rgb(RED)
    assert "key-of" not in front.log_text + gpu.log_text + str(answer.headers)


async def test_task_that_is_cancelled_while_the_platform_holds_it_never_reaches_the_engine(
    deploy_gpu: Deploy, deploy_front: Deploy
) -> None:
    gpu, _ = await deploy_gpu(instance_concurrency=1)
    _, caller = await deploy_front(gpu)
    run = asyncio.create_task(caller.run(slow(150, color=RED), "busy"))
    await caller.until_running("busy", PATIENCE_SECONDS)
    assert (await caller.hand_in(painted(), "held")).status == 202
    assert (await caller.cancel("held")).ok()["state"] == "cancelled"
    assert color_of(*(await run).results("3")) == rgb(RED)
    (task,) = gpu.queue.tasks.values()
    await gpu.queue.ended(task.call.task_id, PATIENCE_SECONDS)
    assert [(d.status, d.is_error) for d in task.deliveries] == [(410, False)]
    assert (await caller.task("held"))["state"] == "cancelled"
    assert await count_prompts(gpu) == 1
