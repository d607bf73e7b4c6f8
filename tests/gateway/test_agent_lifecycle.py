"""The agent as a container of the platform: its start, its sleep and its end (sections 1, 2, 6 and 9)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from tests.gateway.conftest import Deploy
from tests.gateway.instance import Instance, Phase
from tests.gateway.journal import What
from tests.gateway.processes import is_running
from tests.integration.agent.graphs import BLUE, GREEN, RED, painted, rgb
from tests.integration.agent.pictures import color_of
from tests.integration.reliability.fleet import instances, outcomes, slow, until
from tests.redis_server import RedisServer

PATIENCE_SECONDS = 40  # for whole processes to start on a machine that is busy with other tests


@contextlib.contextmanager
def all_to(_one: Instance, *, not_to: Instance) -> Iterator[None]:
    """The gateway chooses at random; within, it has no choice. For functions that take one request an instance."""
    not_to.taken += 1
    yield
    not_to.taken -= 1


async def test_agent_starts_in_the_documented_order_and_sleeps_until_its_first_request(
    deploy_gpu: Deploy,
) -> None:
    function, caller = await deploy_gpu("--startup-seconds", "0.5")
    instance = function.fleet.provision()
    await until(lambda: instance.phase is Phase.READY, PATIENCE_SECONDS)
    assert [(e.what, e.detail) for e in function.events(What.INITIALIZED, What.CHECKED)] == [
        (What.INITIALIZED, "200"),
        (What.CHECKED, "200"),
    ]
    # The port was open, and so the platform was content, long before the engine was.
    connected, initialized = (function.events(what)[0].at for what in (What.CONNECTED, What.INITIALIZED))
    assert initialized - connected > 0.4
    assert instance.is_frozen
    answer = await caller.run(painted(RED), "first")
    assert color_of(*answer.results("2")) == rgb(RED)
    assert len(function.fleet.instances) == 1


async def test_without_an_initializer_the_first_request_waits_for_the_engine(deploy_gpu: Deploy) -> None:
    function, caller = await deploy_gpu(has_initializer=False)
    answer = await caller.run(painted(GREEN))
    assert color_of(*answer.results("2")) == rgb(GREEN)
    assert function.delivered() == ["GET /healthz", "POST /api/run"]


async def test_no_caller_can_play_the_platforms_hooks(deploy_gpu: Deploy) -> None:
    _, caller = await deploy_gpu()
    for method, path in (("POST", "/initialize"), ("GET", "/pre-stop")):
        answer = await caller.call(method, path, headers={"x-fc-control-path": path})
        answer.error(403, "HookNotAllowed")
    (await caller.run(painted())).ok()


async def test_status_is_429_when_every_slot_is_taken_by_runs(deploy_gpu: Deploy) -> None:
    function, caller = await deploy_gpu(instance_concurrency=1)
    run = asyncio.create_task(caller.run(slow(60, color=RED), "busy"))
    await until(lambda: "POST /api/run" in function.delivered(), PATIENCE_SECONDS)
    assert (await caller.get("/api/tasks/busy")).status == 429
    assert (await caller.get("/healthz")).status == 429
    assert color_of(*(await run).results("3")) == rgb(RED)
    assert (await caller.task("busy"))["state"] == "succeeded"


async def test_instance_that_sleeps_longer_than_its_lease_serves_the_next_request(
    deploy_gpu: Deploy,
) -> None:
    function, caller = await deploy_gpu(environment={"AGENT_LEASE_SECONDS": "0.5"})
    (await caller.run(painted(), "before")).ok()
    (instance,) = function.fleet.instances
    assert instance.is_frozen
    await asyncio.sleep(1)  # the sleep: twice the lease
    answer = await caller.run(painted(BLUE), "after")
    assert color_of(*answer.results("2")) == rgb(BLUE)
    assert (await caller.task("before"))["state"] == "succeeded"
    assert len(function.fleet.instances) == 1
    assert len(function.events(What.THAWED)) >= 2


async def test_run_whose_instance_is_frozen_and_taken_over_elsewhere_leaves_the_new_owners_result(
    deploy_gpu: Deploy,
) -> None:
    """The platform closed the request of a run (StopAsyncTask) and froze the instance before the agent could notice.
    Another instance takes the task over; the first one wakes, and must respect that."""
    function, caller = await deploy_gpu(
        instance_concurrency=1, max_instances=2, environment={"AGENT_LEASE_SECONDS": "0.8"}
    )
    graph = slow(100, color=RED)
    assert (await caller.invoke(graph, "taken")).status == 202
    first, other = function.fleet.instances[0], function.fleet.provision()
    await until(lambda: other.phase is Phase.READY, PATIENCE_SECONDS)
    await caller.until_running("taken", PATIENCE_SECONDS)
    with all_to(other, not_to=first):
        await function.queue.stop("taken")
        assert first.is_frozen
        await caller.until("taken", lambda r: outcomes(r) == ["lost"], PATIENCE_SECONDS)
        answer = await caller.run(graph, "taken")
        assert color_of(*answer.results("3")) == rgb(RED)
        record = await caller.task("taken")
        assert outcomes(record) == ["lost", "succeeded"]
        assert len(set(instances(record))) == 2
    with all_to(first, not_to=other):  # it wakes with the old run in its hands
        answer = await caller.run(painted(GREEN), "next")
        assert color_of(*answer.results("2")) == rgb(GREEN)
        assert await caller.task("taken") == record
        assert color_of((await caller.output("taken", 0)).body) == rgb(RED)


async def test_task_of_an_instance_that_is_killed_finishes_in_its_redelivery(deploy_gpu: Deploy) -> None:
    function, caller = await deploy_gpu(max_instances=2, environment={"AGENT_LEASE_SECONDS": "1"})
    assert (await caller.invoke(slow(60, color=BLUE), "killed")).status == 202
    await until(lambda: "POST /api/run" in function.delivered(), PATIENCE_SECONDS)
    await caller.until_running("killed", PATIENCE_SECONDS)
    (first,) = function.fleet.instances
    await first.kill()
    task = await function.queue.ended("killed", PATIENCE_SECONDS)
    assert [(d.status, d.is_error) for d in task.deliveries] == [(0, True), (200, False)]
    record = await caller.task("killed")
    assert outcomes(record) == ["lost", "succeeded"]
    assert color_of((await caller.output("killed", 0)).body) == rgb(BLUE)


async def test_idle_instance_is_scaled_in_and_leaves_its_results_and_no_process(deploy_gpu: Deploy) -> None:
    function, caller = await deploy_gpu(idle_seconds=0.5)
    (await caller.run(painted(RED), "kept")).ok()
    (instance,) = function.fleet.instances
    pids = instance._tree.pids()
    assert len(pids) == 2, "the agent and its engine"
    await function.fleet.drained()
    await until(lambda: not any(map(is_running, pids)))
    assert [e.detail for e in function.events(What.PRE_STOP)] == ["200"]
    assert color_of((await caller.output("kept", 0)).body) == rgb(RED)
    assert len(function.fleet.instances) == 2, "another one answers"


async def test_agent_keeps_idle_connections_and_reuses_them_after_a_sleep(deploy_gpu: Deploy) -> None:
    """Section 1: a server that closes an idle connection turns a POST into a 502. How long it is kept is a setting,
    asserted in tests/integration; here the same connection serves before and after a sleep."""
    function, caller = await deploy_gpu()
    (await caller.get("/healthz")).ok()
    (instance,) = function.fleet.instances
    await until(lambda: instance.is_frozen)
    connections = set(instance._http.connector._conns)
    for _ in range(3):
        (await caller.get("/healthz")).ok()
    assert set(instance._http.connector._conns) == connections


async def test_bill_of_a_run_is_one_span_however_often_its_status_is_asked(deploy_gpu: Deploy) -> None:
    function, caller = await deploy_gpu(instance_concurrency=20)
    (await caller.get("/healthz")).ok()
    (instance,) = function.fleet.instances
    before, began = instance.billed_seconds, asyncio.get_running_loop().time()
    run = asyncio.create_task(caller.run(slow(60, color=RED), "billed"))
    await until(lambda: instance.open_requests > 0)  # a poll before it would be a span of its own
    while not run.done():
        await caller.get("/api/tasks/billed")
    spent = asyncio.get_running_loop().time() - began
    assert instance.billed_seconds - before <= spent + 2
    asleep = instance.billed_seconds
    await asyncio.sleep(1.1)  # asleep: free of charge
    assert instance.billed_seconds == asleep


async def test_short_wakes_over_a_long_sleep_are_not_taken_for_a_hung_engine(deploy_gpu: Deploy) -> None:
    """Each quick request wakes the instance for milliseconds only. A look after the engine that begins in one of them
    ends in another, too late by the clock, although nobody was slow."""
    function, caller = await deploy_gpu(environment={"AGENT_ENGINE_HANG_SECONDS": "1.2"})
    (await caller.run(painted(), "before")).ok()
    (instance,) = function.fleet.instances
    engine = instance._tree.pids()[1]
    for _ in range(20):
        (await caller.get("/healthz")).ok()
        await asyncio.sleep(0.4)  # asleep for longer than a look may take
    assert color_of(*(await caller.run(painted(RED), "after")).results("2")) == rgb(RED)
    assert instance._tree.pids()[1] == engine, "it was restarted"


async def test_abandoned_run_ends_at_scale_in(deploy_gpu: Deploy) -> None:
    """Its instance froze before the agent could notice that the caller is gone; /pre-stop is the next that it hears."""
    function, caller = await deploy_gpu(idle_seconds=0.5)
    assert (await caller.invoke(slow(1000, 0.05), "abandoned")).status == 202
    await caller.until_running("abandoned", PATIENCE_SECONDS)
    await function.queue.stop("abandoned")
    await function.fleet.drained()
    assert [e.detail for e in function.events(What.PRE_STOP)] == ["200"]
    assert (await caller.task("abandoned"))["state"] == "cancelled"


async def test_instance_whose_redis_was_restarted_while_it_slept_works_on(
    deploy_gpu: Deploy, private_redis: RedisServer
) -> None:
    function, caller = await deploy_gpu(environment={"REDIS_URL": private_redis.url})
    (await caller.run(painted(GREEN), "before")).ok()
    (instance,) = function.fleet.instances
    await until(lambda: instance.is_frozen)
    await asyncio.to_thread(private_redis.stop)
    await asyncio.to_thread(private_redis.start)
    answer = await caller.invoke(painted(BLUE), "after")
    assert answer.status == 202
    task = await function.queue.ended("after", PATIENCE_SECONDS)
    assert [(d.status, d.is_error) for d in task.deliveries] == [(200, False)], "at the first try"
    for task_id, color in (("before", GREEN), ("after", BLUE)):
        assert color_of((await caller.output(task_id, 0)).body) == rgb(color)
