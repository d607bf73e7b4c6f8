"""Asynchronous runs through the platform, whose 202 comes before the agent sees anything (section 4)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.gateway.caller import Caller, count_prompts
from tests.gateway.calls import KB
from tests.gateway.cloud import Deployed
from tests.gateway.conftest import Deploy
from tests.gateway.function import AsyncConfig
from tests.gateway.journal import What
from tests.gateway.tasks import TaskState
from tests.integration.agent import graphs
from tests.integration.agent.graphs import BLUE, GREEN, RED, painted, rgb
from tests.integration.agent.pictures import color_of
from tests.integration.reliability.fleet import outcomes, slow

PATIENCE_SECONDS = 40


async def invoked(function: Deployed, caller: Caller, body: Any, task_id: str, **headers: str) -> Any:
    """The platform's task, once no more deliveries will come."""
    answer = await caller.invoke(body, task_id, **headers)
    assert (answer.status, answer.body) == (202, b"")
    assert answer.headers["X-Fc-Async-Task-Id"] == task_id
    return await function.queue.ended(task_id, PATIENCE_SECONDS)


@pytest.mark.parametrize("shown", [True, False], ids=["type shown", "type hidden"])
async def test_asynchronous_run_is_done_inside_its_delivery_and_polled_afterwards(
    deploy_gpu: Deploy, shown: bool
) -> None:
    function, caller = await deploy_gpu(asynchronous=AsyncConfig(shows_type=shown))
    task = await invoked(function, caller, slow(20, color=RED), "polled")
    assert task.state is TaskState.SUCCEEDED
    assert [delivery.status for delivery in task.deliveries] == [200], "not the agent's own 202"
    assert (await caller.task("polled"))["state"] == "succeeded"
    assert color_of((await caller.output("polled", 0)).body) == rgb(RED)


async def test_platforms_task_id_alone_names_the_task(deploy_gpu: Deploy) -> None:
    function, caller = await deploy_gpu()
    answer = await caller.submit(painted(GREEN), **{"X-Fc-Async-Task-Id": "t-platform"})
    assert answer.status == 202
    await function.queue.ended("t-platform", PATIENCE_SECONDS)
    assert color_of((await caller.output("t-platform", 0)).body) == rgb(GREEN)


async def test_refusals_that_reach_no_caller_are_readable_under_their_ids(deploy_gpu: Deploy) -> None:
    function, caller = await deploy_gpu()
    refused: dict[str, tuple[Any, int, str]] = {
        "bad-json": (b"{", 400, "InvalidJson"),
        "unknown-class": (painted() | {"3": graphs.node("NoSuchNode")}, 400, "UnknownNodeClass"),
        "missing-input": (
            graphs.chain(graphs.node("SaveImage", filename_prefix="x")),
            400,
            "WorkflowRejected",
        ),
    }
    for task_id, (body, status, code) in refused.items():
        task = await invoked(function, caller, body, task_id)
        assert [(d.status, d.is_error) for d in task.deliveries] == [(status, False)], "it is not retried"
        (await caller.status(task_id)).error(status, code)
        assert (await caller.task(task_id))["error"]["code"] == code


async def test_delivery_that_comes_twice_runs_one_prompt(deploy_gpu: Deploy) -> None:
    function, caller = await deploy_gpu(
        max_instances=2, instance_concurrency=1, asynchronous=AsyncConfig(duplicate_every=1)
    )
    # The first duplicate comes beside its original, on another instance; the second one after its end.
    for number, color in enumerate((RED, BLUE)):
        task = await invoked(function, caller, slow(30, color=color), f"twice-{number}")
        assert [(d.status, d.is_error) for d in task.deliveries] == [(200, False)] * 2
        assert outcomes(await caller.task(f"twice-{number}")) == ["succeeded"]
        assert color_of((await caller.output(f"twice-{number}", 0)).body) == rgb(color)
    assert len(function.fleet.instances) == 2
    assert await count_prompts(function) == 2


async def test_used_id_never_reaches_the_agent_in_task_mode(deploy_gpu: Deploy) -> None:
    function, caller = await deploy_gpu()
    await invoked(function, caller, painted(), "used")
    assert (await caller.invoke(painted(), "used")).status == 409
    assert function.delivered().count("POST /api/run") == 1


async def test_used_id_returns_the_stored_result_without_task_mode(deploy_gpu: Deploy) -> None:
    function, caller = await deploy_gpu(asynchronous=AsyncConfig(task_mode=False))
    graph = painted(GREEN)
    for _ in range(2):
        await invoked(function, caller, graph, "again")
    assert await count_prompts(function) == 1
    assert (await caller.task("again"))["state"] == "succeeded"


async def test_transient_failure_is_delivered_again_and_succeeds(deploy_gpu: Deploy) -> None:
    """Out of memory twice: the agent frees memory and tries once itself, then asks the platform for another delivery."""
    function, caller = await deploy_gpu(
        "--fault", "oom@node=1,times=2", asynchronous=AsyncConfig(retry_seconds=0.01)
    )
    task = await invoked(function, caller, painted(BLUE), "transient")
    assert task.state is TaskState.SUCCEEDED
    assert [(d.status, d.is_error) for d in task.deliveries] == [(500, True), (200, False)]
    record = await caller.task("transient")
    assert outcomes(record) == ["failed", "failed", "succeeded"]
    assert color_of((await caller.output("transient", 0)).body) == rgb(BLUE)


async def test_failure_that_is_no_longer_transient_ends_the_deliveries(deploy_gpu: Deploy) -> None:
    function, caller = await deploy_gpu(
        "--fault",
        "oom@node=1",
        asynchronous=AsyncConfig(retry_seconds=0.01, max_retries=8),
        environment={"AGENT_MAX_ATTEMPTS": "3"},
    )
    task = await invoked(function, caller, painted(), "hopeless")
    assert [(d.status, d.is_error) for d in task.deliveries] == [(500, True), (500, False)]
    (await caller.status("hopeless")).error(500, "OutOfMemory")


async def test_permanent_failure_is_stored_and_a_later_delivery_leaves_the_gpu_alone(
    deploy_gpu: Deploy,
) -> None:
    function, caller = await deploy_gpu()
    task = await invoked(function, caller, graphs.raising("no such luck"), "permanent")
    assert [(d.status, d.is_error) for d in task.deliveries] == [(500, False)]
    again = await function.queue.deliver_again("permanent")
    assert (again.status, again.is_error) == (500, False)
    (await caller.status("permanent")).error(500, "NodeFailed")
    assert await count_prompts(function) == 1


async def test_permanent_failure_is_not_repeated_by_a_platform_that_takes_every_5xx_for_an_error(
    deploy_gpu: Deploy,
) -> None:
    """Whether it does is not documented, so the agent says `x-fc-status: 200`."""
    function, caller = await deploy_gpu(asynchronous=AsyncConfig(counts_5xx=True, retry_seconds=0.01))
    task = await invoked(function, caller, graphs.raising(), "counted")
    assert [(d.status, d.is_error) for d in task.deliveries] == [(500, False)]
    assert await count_prompts(function) == 1


async def test_stopped_task_ends_as_cancelled_and_the_engine_is_free_for_the_next(deploy_gpu: Deploy) -> None:
    """StopAsyncTask closes the connection and tells nothing; the instance freezes at that moment. With the next
    request the agent wakes, sees the closed connection and interrupts the engine."""
    function, caller = await deploy_gpu()
    assert (await caller.invoke(slow(1000, 0.05), "stopped")).status == 202
    await caller.until_running("stopped", PATIENCE_SECONDS)
    await function.queue.stop("stopped")
    answer = await caller.run(painted(GREEN), "next")
    assert color_of(*answer.results("2")) == rgb(GREEN)
    record = await caller.until("stopped", lambda r: r["state"] == "cancelled")
    assert record["error"]["code"] == "CallerGone"


async def test_synchronous_caller_who_hangs_up_frees_the_engine_too(deploy_gpu: Deploy) -> None:
    function, caller = await deploy_gpu()
    run = asyncio.create_task(caller.run(slow(1000, 0.05), "hung-up"))
    await caller.until_running("hung-up", PATIENCE_SECONDS)
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    assert color_of(*(await caller.run(painted(RED), "next")).results("2")) == rgb(RED)
    await caller.until("hung-up", lambda r: r["state"] == "cancelled")
    assert len(function.events(What.STARTED)) == 1


async def test_asynchronous_body_over_128_kb_is_refused_by_the_platform(deploy_gpu: Deploy) -> None:
    function, caller = await deploy_gpu()
    graph = painted() | {"9": graphs.node("LoadImage", image="A" * 128 * KB)}
    answer = await caller.invoke(graph, "large")
    assert (answer.status, answer.json["Code"]) == (400, "EntityTooLarge")
    assert function.fleet.instances == []
