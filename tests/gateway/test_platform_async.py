"""The simulator keeps the platform's rules for asynchronous invocations (section 4)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.gateway.cloud import Deployed
from tests.gateway.conftest import Deploy
from tests.gateway.function import AsyncConfig
from tests.gateway.tasks import TaskState
from tests.integration.reliability.fleet import until

ASYNC = {"X-Fc-Invocation-Type": "Async"}


async def ended(function: Deployed, caller: Any, path: str, **headers: str) -> Any:
    answer = await caller.call("POST", path, headers={**ASYNC, **headers})
    assert answer.status == 202, answer.body
    return await function.queue.ended(answer.headers["X-Fc-Async-Task-Id"])


async def test_asynchronous_caller_gets_202_before_any_instance_exists(deploy_echo: Deploy) -> None:
    function, caller = await deploy_echo()
    answer = await caller.call("POST", "/x?y=1", data=b"body", headers=ASYNC)
    assert (answer.status, answer.body) == (202, b"")
    assert function.delivered() == []
    task = await function.queue.ended(answer.headers["X-Fc-Async-Task-Id"])
    assert task.state is TaskState.SUCCEEDED
    assert function.delivered()[-1] == "POST /x?y=1"


@pytest.mark.parametrize("shown", [True, False])
async def test_type_of_the_invocation_may_or_may_not_reach_the_container(
    deploy_echo: Deploy, shown: bool
) -> None:
    function, caller = await deploy_echo(asynchronous=AsyncConfig(shows_type=shown))
    task = await ended(function, caller, "/x")
    assert ("X-Fc-Invocation-Type" in task.call.headers) is shown


async def test_function_error_is_retried_and_then_given_up(deploy_echo: Deploy) -> None:
    function, caller = await deploy_echo(asynchronous=AsyncConfig(max_retries=2, retry_seconds=0.01))
    task = await ended(function, caller, "/status?code=200&fc=404")
    assert task.state is TaskState.FAILED
    assert [(d.status, d.is_error) for d in task.deliveries] == [(200, True)] * 3


async def test_http_error_without_the_header_is_a_success(deploy_echo: Deploy) -> None:
    function, caller = await deploy_echo()
    assert (await ended(function, caller, "/status?code=500")).state is TaskState.SUCCEEDED


async def test_http_error_may_also_count(deploy_echo: Deploy) -> None:
    config = AsyncConfig(max_retries=0, counts_5xx=True)
    function, caller = await deploy_echo(asynchronous=config)
    assert (await ended(function, caller, "/status?code=500")).state is TaskState.FAILED


async def test_process_exit_and_timeout_are_retried_too(deploy_echo: Deploy) -> None:
    config = AsyncConfig(max_retries=1, retry_seconds=0.01)
    function, caller = await deploy_echo(asynchronous=config)
    left = await ended(function, caller, "/exit")
    assert [d.detail for d in left.deliveries] == ["Process exited unexpectedly"] * 2
    assert len(function.fleet.instances) == 2
    function.fleet.function = replace(function.function, timeout_seconds=0.5)
    slow = await ended(function, caller, "/slow?seconds=30")
    assert [d.detail for d in slow.deliveries] == ["timed out"] * 2


async def test_used_id_is_refused_in_task_mode_alone(deploy_echo: Deploy) -> None:
    name = {"X-Fc-Async-Task-Id": "t-1"}
    function, caller = await deploy_echo()
    await ended(function, caller, "/x", **name)
    assert (await caller.call("POST", "/x", headers={**ASYNC, **name})).status == 409
    other, caller = await deploy_echo(name="other", asynchronous=AsyncConfig(task_mode=False))
    await ended(other, caller, "/x", **name)
    await ended(other, caller, "/x", **name)
    assert other.delivered().count("POST /x") == 2


@pytest.mark.parametrize("wrong", ["1-begins-with-a-digit", "x" * 129, "a.b"])
async def test_task_id_must_fit_the_platform(deploy_echo: Deploy, wrong: str) -> None:
    _, caller = await deploy_echo()
    answer = await caller.call("POST", "/x", headers={**ASYNC, "X-Fc-Async-Task-Id": wrong})
    assert answer.status == 400


async def test_every_second_invocation_is_delivered_twice(deploy_echo: Deploy) -> None:
    function, caller = await deploy_echo(asynchronous=AsyncConfig(duplicate_every=2))
    tasks = [await ended(function, caller, "/x") for _ in range(4)]
    assert [len(task.deliveries) for task in tasks] == [1, 2, 1, 2]


async def test_invocation_that_waits_too_long_expires(deploy_echo: Deploy) -> None:
    config = AsyncConfig(max_age_seconds=0.1, retry_seconds=0.2)
    function, caller = await deploy_echo(asynchronous=config)
    assert (await ended(function, caller, "/status?code=200&fc=404")).state is TaskState.EXPIRED


async def test_stopped_task_has_its_connection_closed_and_is_not_retried(deploy_echo: Deploy) -> None:
    function, caller = await deploy_echo(instance_concurrency=2)
    answer = await caller.call("POST", "/slow?seconds=30", headers=ASYNC)
    task_id = answer.headers["X-Fc-Async-Task-Id"]
    await until(lambda: "began" in function.log_text, 30)
    await function.queue.stop(task_id)
    assert function.queue.tasks[task_id].state is TaskState.STOPPED
    (await caller.get("/hello")).ok()
    await until(lambda: "closed by the platform" in function.log_text)
