"""The simulator keeps the rules that it was written from, section by section, with a container that only echoes."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from io import BytesIO
from typing import Any

import aiohttp
import psutil
import pytest

from tests.gateway.calls import KB, MB
from tests.gateway.cloud import Deployed, Platform
from tests.gateway.conftest import Deploy
from tests.gateway.function import AsyncConfig, Function
from tests.gateway.instance import Phase
from tests.gateway.journal import What
from tests.gateway.processes import is_running
from tests.gateway.tasks import TaskState
from tests.integration.reliability.fleet import until

START = [What.STARTED, What.CONNECTED]
HOOK = [What.DELIVERED, What.ENDED]
ASYNC = {"X-Fc-Invocation-Type": "Async"}


# --- Sections 1 and 2: start and hooks -----------------------------------------------------------------------------


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


# --- Section 3: headers and environment ----------------------------------------------------------------------------


async def test_headers_are_filtered_and_added_on_the_way_in(deploy_echo: Deploy, platform: Platform) -> None:
    function, caller = await deploy_echo()
    sent = {
        "X-Fc-Trace-Id": "passes",
        "X-Fc-Control-Path": "/pre-stop",
        "X-Fc-Access-Key-Id": "mine",
        "Keep-Alive": "timeout=5",
        "task-id": "passes",
        "Authorization": "Bearer passes",
    }
    got = (await caller.get("/a%20b?c=%26", headers=sent)).ok()
    assert got["path"] == "/a%20b?c=%26"
    headers = got["headers"]
    assert (headers["x-fc-trace-id"], headers["task-id"], headers["authorization"]) == (
        "passes",
        "passes",
        "Bearer passes",
    )
    assert headers["x-fc-control-path"] == "/http-invoke"
    assert headers["x-fc-function-name"] == "echo"
    assert headers["x-fc-account-id"] == platform.account.id
    assert headers["x-fc-request-id"]
    assert headers["host"] == function.url.removeprefix("http://")
    assert "keep-alive" not in got["names"]
    assert got["names"].count("x-fc-access-key-id") == 1


async def test_headers_are_filtered_on_the_way_out(deploy_echo: Deploy) -> None:
    _, caller = await deploy_echo()
    answer = await caller.get("/hello")
    assert answer.headers["X-Own"] == "passes"
    assert "X-Fc-Made-Up" not in answer.headers
    assert "Keep-Alive" not in answer.headers
    assert answer.headers["Content-Disposition"] == "attachment"
    assert answer.headers["X-Fc-Request-Id"]


@pytest.mark.parametrize(
    ("path", "headers"),
    [("/x", {"X-Long": "x" * 8 * KB}), ("/" + "x" * 4 * KB, {}), ("/x?" + "y" * 4 * KB, {})],
)
async def test_request_with_long_headers_or_path_reaches_no_instance(
    deploy_echo: Deploy, path: str, headers: dict[str, str]
) -> None:
    function, caller = await deploy_echo()
    assert (await caller.get(path, headers=headers)).status == 400
    assert function.fleet.instances == []


async def test_response_headers_over_8_kb_are_a_bad_response(deploy_echo: Deploy) -> None:
    _, caller = await deploy_echo()
    assert (await caller.get("/headers?bytes=7000")).status == 200
    answer = await caller.get("/headers?bytes=8192")
    assert (answer.status, answer.json["Code"]) == (502, "BadResponse")


def test_function_with_a_reserved_variable_cannot_be_deployed() -> None:
    with pytest.raises(ValueError, match="FC_OURS"):
        Function("wrong", ("true",), {"FC_OURS": "1"})


# --- Sections 4 and 5: limits ----------------------------------------------------------------------------------------


async def test_synchronous_body_passes_up_to_32_mb(deploy_echo: Deploy) -> None:
    function, caller = await deploy_echo()
    assert (await caller.call("POST", "/x", data=BytesIO(bytes(32 * MB)))).ok()["bytes"] == 32 * MB
    answer = await caller.call("POST", "/x", data=BytesIO(bytes(32 * MB + 1)))
    assert (answer.status, answer.json["Code"]) == (413, "EntityTooLarge")
    assert function.delivered().count("POST /x") == 1


async def test_body_of_unknown_length_is_cut_at_32_mb(deploy_echo: Deploy) -> None:
    _, caller = await deploy_echo()

    async def endless() -> Any:
        for _ in range(40):
            yield bytes(MB)

    try:
        answer = await caller.call("POST", "/x", data=endless())
        assert answer.status == 413
    except aiohttp.ClientConnectionError:
        pass  # the refusal was quicker than the body


async def test_answer_over_32_mb_is_a_bad_response(deploy_echo: Deploy) -> None:
    _, caller = await deploy_echo()
    assert len((await caller.get(f"/large?bytes={32 * MB}")).body) == 32 * MB
    answer = await caller.get(f"/large?bytes={32 * MB + 1}")
    assert (answer.status, answer.json["Code"]) == (502, "BadResponse")


async def test_asynchronous_body_passes_up_to_128_kb(deploy_echo: Deploy) -> None:
    function, caller = await deploy_echo()
    answer = await caller.call("POST", "/x", data=bytes(128 * KB), headers=ASYNC)
    assert answer.status == 202
    answer = await caller.call("POST", "/x", data=bytes(128 * KB + 1), headers=ASYNC)
    assert (answer.status, answer.json["Code"]) == (400, "EntityTooLarge")
    assert len(function.queue.tasks) == 1


async def test_function_that_takes_too_long_is_cut_off(deploy_echo: Deploy) -> None:
    function, caller = await deploy_echo(timeout_seconds=1)
    assert (await caller.get("/slow?seconds=30")).status == 504
    # The instance froze with the connection half closed, and finds that out when it is thawed.
    assert "closed" not in function.log_text
    function.fleet.function = replace(function.function, timeout_seconds=60)
    (await caller.get("/hello")).ok()
    await until(lambda: "closed by the platform" in function.log_text)


# --- Section 4: asynchronous invocation -----------------------------------------------------------------------------


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


# --- Section 5: streams ----------------------------------------------------------------------------------------------


async def test_events_stream_through(deploy_echo: Deploy) -> None:
    _, caller = await deploy_echo()
    async with caller.http.get("/ticks") as response:
        parts = [chunk async for chunk in response.content.iter_any()]
    assert b"".join(parts) == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
    assert len(parts) > 1, "it was held back until its end"


async def test_websocket_passes_both_ways_and_counts_as_one_request(deploy_echo: Deploy) -> None:
    function, caller = await deploy_echo()
    async with caller.http.ws_connect("/socket") as socket:
        await socket.send_str("text")
        assert await socket.receive_str() == "TEXT"
        await socket.send_bytes(b"abc")
        assert await socket.receive_bytes() == b"cba"
        assert (await caller.get("/hello")).status == 429
    await until(lambda: function.fleet.instances[0].is_frozen)


async def test_websocket_ends_with_1006_when_the_time_is_over(deploy_echo: Deploy) -> None:
    _, caller = await deploy_echo(timeout_seconds=0.5)
    async with caller.http.ws_connect("/socket") as socket:
        message = await socket.receive()
        assert message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
        assert socket.close_code == 1006


async def test_caller_who_hangs_up_ends_his_request_in_the_container(deploy_echo: Deploy) -> None:
    function, caller = await deploy_echo(instance_concurrency=2)
    waiting = asyncio.create_task(caller.get("/slow?seconds=30"))
    await until(lambda: "began" in function.log_text, 30)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await until(lambda: function.fleet.instances[0].is_frozen)
    (await caller.get("/hello")).ok()
    await until(lambda: "closed by the platform" in function.log_text)


async def test_with_all_slots_taken_even_health_gets_429(deploy_echo: Deploy) -> None:
    function, caller = await deploy_echo(instance_concurrency=2, max_instances=2)
    busy = [asyncio.create_task(caller.get("/slow?seconds=30")) for _ in range(4)]
    await until(lambda: function.delivered().count("GET /slow?seconds=30") == 4, 30)
    answer = await caller.get("/healthz")
    assert (answer.status, answer.json["Code"]) == (429, "ResourceExhausted")
    assert len(function.fleet.alive) == 2
    # An asynchronous call waits for its turn instead.
    assert (await caller.call("POST", "/x", headers=ASYNC)).status == 202
    for one in busy:
        one.cancel()
    await asyncio.gather(*busy, return_exceptions=True)
    await until(lambda: "POST /x" in function.delivered())


# --- Sections 6 and 9: lifecycle and money ---------------------------------------------------------------------------


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
