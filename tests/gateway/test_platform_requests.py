"""The simulator keeps the platform's rules for requests: headers, limits, streams and full instances (sections 3 to 5)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from io import BytesIO
from typing import Any

import aiohttp
import pytest

from tests.gateway.calls import KB, MB
from tests.gateway.cloud import Platform
from tests.gateway.conftest import Deploy
from tests.gateway.function import Function
from tests.integration.reliability.fleet import until

ASYNC = {"X-Fc-Invocation-Type": "Async"}


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
