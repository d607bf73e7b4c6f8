"""The simulator keeps the platform's rules for instances: start, sleep, choice, end and bill (sections 1, 2, 6, 9)."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import psutil
import pytest

from tests.gateway.cloud import Platform
from tests.gateway.conftest import Deploy
from tests.gateway.instance import Phase
from tests.gateway.journal import What
from tests.gateway.processes import is_running
from tests.integration.reliability.fleet import until

START = [What.STARTED, What.CONNECTED]
HOOK = [What.DELIVERED, What.ENDED]
ASYNC = {"X-Fc-Invocation-Type": "Async"}


async def test_instance_starts_in_the_documented_order(deploy_echo: Deploy) -> None:
    function, caller = await deploy_echo()
    assert function.fleet.instances == [], "nothing runs before the first request"
    answer = await caller.get("/hello")
    assert answer.ok()["initialized"] == [200]
    (instance,) = function.fleet.instances
    begin = [*START, What.DELIVERED, What.ENDED, What.INITIALIZED, What.DELIVERED, What.ENDED, What.CHECKED]
    found = function.journal.whats(instance.id)
    assert found == [*begin, What.FROZEN, What.READY, What.THAWED, *HOOK, What.FROZEN]
    assert function.delivered() == ["POST /initialize", "GET /healthz", "GET /hello"]


async def test_instance_without_hooks_and_health_check_gets_only_the_request(deploy_echo: Deploy) -> None:
    function, caller = await deploy_echo(has_initializer=False, health_path=None)
    (await caller.get("/hello")).ok()
    assert function.delivered() == ["GET /hello"]


async def test_instance_whose_first_health_check_fails_is_discarded(deploy_echo: Deploy) -> None:
    function, caller = await deploy_echo(environment={"HEALTH": "503"})
    assert (await caller.get("/hello")).status == 502
    (instance,) = function.fleet.instances
    assert instance.phase is Phase.DEAD
    assert function.events(What.DISCARDED)
    assert "GET /hello" not in function.delivered()


async def test_instance_that_nobody_listens_in_is_discarded(deploy_echo: Deploy) -> None:
    function, caller = await deploy_echo(command=("/bin/false",))
    assert (await caller.get("/hello")).status == 502
    assert "nobody listens" in function.events(What.DISCARDED)[0].detail


async def test_initializer_that_fails_with_500_ends_the_instance_and_its_caller_gets_200(
    deploy_echo: Deploy,
) -> None:
    function, caller = await deploy_echo(environment={"INITIALIZE": "500"})
    answer = await caller.get("/hello")
    assert (answer.status, answer.headers["X-Fc-Error-Type"]) == (200, "InitializationError")
    assert [instance.phase for instance in function.fleet.instances] == [Phase.DEAD]


async def test_initializer_that_fails_with_404_is_tried_again_with_the_next_request(
    deploy_echo: Deploy,
) -> None:
    function, caller = await deploy_echo(environment={"INITIALIZE": "404"})
    answer = await caller.get("/hello")
    assert (answer.status, answer.headers["X-Fc-Error-Type"]) == (200, "InitializationError")
    assert (await caller.get("/hello")).ok()["initialized"] == [404, 200]
    assert len(function.fleet.instances) == 1


async def test_health_is_checked_again_while_a_request_is_open(deploy_echo: Deploy) -> None:
    function, caller = await deploy_echo(health_period_seconds=0.05)
    waiting = asyncio.create_task(caller.get("/slow?seconds=30"))
    await until(lambda: len(function.events(What.CHECKED)) > 3)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_idle_instance_is_destroyed_after_its_pre_stop_hook(deploy_echo: Deploy) -> None:
    function, caller = await deploy_echo(idle_seconds=0.2)
    (await caller.get("/hello")).ok()
    (instance,) = function.fleet.instances
    await function.fleet.drained()
    end = [What.FROZEN, What.THAWED, *HOOK, What.PRE_STOP, What.KILLED]
    await until(lambda: function.journal.whats(instance.id)[-len(end) :] == end)
    assert function.delivered()[-1] == "GET /pre-stop"
    await until(lambda: not is_running(instance._tree.pid))


async def test_new_instance_starts_only_when_all_are_full(deploy_echo: Deploy) -> None:
    function, caller = await deploy_echo(instance_concurrency=3, max_instances=5)
    busy = [asyncio.create_task(caller.get("/slow?seconds=30")) for _ in range(7)]
    await until(lambda: function.delivered().count("GET /slow?seconds=30") == 7, 30)
    assert sorted(instance.taken for instance in function.fleet.alive) == [1, 3, 3]
    for one in busy:
        one.cancel()
    await asyncio.gather(*busy, return_exceptions=True)


async def test_instances_with_room_are_chosen_at_random(deploy_echo: Deploy) -> None:
    _, caller = await deploy_echo(max_instances=2)
    both = await asyncio.gather(*(caller.get("/slow?seconds=0.5") for _ in range(2)))
    first, second = (answer.ok()["instance"] for answer in both)
    assert first != second
    chosen = [(await caller.get("/x")).ok()["instance"] for _ in range(20)]
    assert {first, second} == set(chosen)


async def test_instance_is_frozen_whenever_no_request_is_open(deploy_echo: Deploy) -> None:
    function, caller = await deploy_echo()
    instance = function.fleet.provision()
    await until(lambda: instance.phase is Phase.READY, 30)
    assert instance.is_frozen, "also between start and first request"
    pid = instance._tree.pid
    await until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    (await caller.get("/hello")).ok()
    await until(lambda: instance.is_frozen and psutil.Process(pid).status() == psutil.STATUS_STOPPED)


async def test_killed_instance_breaks_what_is_open(deploy_echo: Deploy) -> None:
    function, caller = await deploy_echo()
    waiting = asyncio.create_task(caller.get("/slow?seconds=30"))
    await until(lambda: "began" in function.log_text, 30)
    await function.fleet.instances[0].kill()
    answer = await waiting
    assert (answer.status, answer.json["Message"]) == (
        502,
        "Process exited unexpectedly before completing request",
    )


async def test_bill_runs_from_the_first_open_request_to_the_last_one_closed(deploy_echo: Deploy) -> None:
    function, caller = await deploy_echo(instance_concurrency=5)
    (await caller.get("/hello")).ok()
    (instance,) = function.fleet.instances
    before = instance.billed_seconds
    assert before >= 2, "the start, and the request: each rounded up"
    began = asyncio.get_running_loop().time()
    await asyncio.gather(*(caller.get("/slow?seconds=1.2") for _ in range(5)))
    spent = asyncio.get_running_loop().time() - began
    assert 2 <= instance.billed_seconds - before <= spent + 1, "together, not five times"


async def test_nothing_is_left_after_the_end(tmp_path: Any) -> None:
    from tests.gateway.caller import Caller, echo  # noqa: PLC0415 - this test has a platform of its own

    async with Platform(tmp_path) as platform:
        function = await platform.deploy(echo(instance_concurrency=2))
        async with Caller(function) as caller:
            waiting = asyncio.create_task(caller.get("/slow?seconds=60"))
            await until(lambda: "began" in function.log_text, 30)
            await caller.call("POST", "/slow?seconds=60", headers=ASYNC)
            pid = function.fleet.instances[0]._tree.pid
            await platform.__aexit__()
            assert await asyncio.gather(waiting, return_exceptions=True)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
