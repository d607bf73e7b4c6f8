"""Every fault does what it says, and nothing more."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from PIL import Image

from tests.integration.simulator.conftest import Connect, Start
from tests.integration.simulator.talk import name_of, sampled, simple


def error_of(entry: dict[str, Any]) -> dict[str, Any]:
    kind, data = entry["status"]["messages"][-1]
    assert kind == "execution_error"
    assert isinstance(data, dict)
    return data


async def test_die_at_node_ends_the_process_in_the_middle(start: Start, connect: Connect) -> None:
    one = await start("--fault", "die@node=2")
    talk = await connect(one)
    await talk.submit(simple())
    assert await talk.closed() == 1006
    assert await one.wait() == 1


async def test_die_at_step_lets_earlier_steps_happen(start: Start, connect: Connect) -> None:
    one = await start("--step-seconds", "0.1", "--fault", "die@node=3,step=2")
    talk = await connect(one)
    await talk.submit(sampled(steps=3))
    events = await talk.events(until="progress")
    assert events[-1]["data"]["value"] == 1
    assert await one.wait() == 1


async def test_die_once_then_work_is_counted_over_restarts(
    start: Start, connect: Connect, tmp_path: Path
) -> None:
    switches = ("--fault", "die@node=2,times=1", "--fault-state", str(tmp_path / "faults.json"))
    first = await start(*switches)
    await (await connect(first)).submit(simple())
    assert await first.wait() == 1
    entry = await (await connect(await start(*switches))).run(simple())
    assert entry["status"]["status_str"] == "success"


async def test_die_at_start_exits_before_the_port_opens(start: Start, tmp_path: Path) -> None:
    switches = ("--fault", "die@start,times=1", "--fault-state", str(tmp_path / "faults.json"))
    one = await start(*switches, wait=False)
    assert await one.wait() == 1
    assert "die@start" in one.log
    await start(*switches)


async def test_hang_stops_the_worker_but_not_http(start: Start, connect: Connect) -> None:
    talk = await connect(await start("--fault", "hang@node=2"))
    prompt_id = await talk.submit(simple())
    await talk.events(until="execution_cached")
    async with talk.session.post("/interrupt") as answer:
        assert answer.status == 200
    queue = await talk.get("/queue")
    assert [item[1] for item in queue["queue_running"]] == [prompt_id]


async def test_freeze_stops_http_too(start: Start, connect: Connect) -> None:
    talk = await connect(await start("--fault", "freeze@node=1"))
    await talk.submit(simple())
    with pytest.raises(TimeoutError):  # noqa: PT012 - the first answers may still come
        for _ in range(500):
            await talk.session.get("/queue", timeout=aiohttp.ClientTimeout(total=0.5))
            await asyncio.sleep(0.01)  # nothing tells when the freeze begins; no answer is the only sign


@pytest.mark.parametrize("place", ["event=execution_start", "message=4"])
async def test_drop_socket_cuts_without_a_close_frame(start: Start, connect: Connect, place: str) -> None:
    one = await start("--fault", f"drop-socket@{place},times=1")
    talk = await connect(one)
    prompt_id = await talk.submit(simple())
    assert await talk.closed() == 1006
    again = await connect(one)
    async with asyncio.timeout(5):
        while not await again.get(f"/history/{prompt_id}"):
            await asyncio.sleep(0.01)  # its events go to the client that was cut off


async def test_lost_event_is_never_sent(start: Start, connect: Connect) -> None:
    talk = await connect(
        await start("--fault", "lose-event=executed", "--fault", "lose-event=executing-null")
    )
    await talk.submit(simple(1))
    await talk.submit(simple(2))
    first = await talk.events(until="execution_success")
    second = await talk.events(until="execution_success")
    names = {name_of(message) for message in first + second}
    assert not names & {"executed", "executing-null"}
    assert "executing" in names


async def test_late_history_shows_after_the_last_event(start: Start, connect: Connect) -> None:
    talk = await connect(await start("--fault", "late-history=0.2"))
    prompt_id = await talk.submit(simple())
    await talk.events()
    assert await talk.get(f"/history/{prompt_id}") == {}
    async with asyncio.timeout(5):
        while not await talk.get(f"/history/{prompt_id}"):
            await asyncio.sleep(0.02)  # nothing tells that the entry is there


async def test_out_of_memory_is_reported_as_torch_does(start: Start, connect: Connect) -> None:
    talk = await connect(await start("--fault", "oom@node=1,times=1"))
    error = error_of(await talk.run(simple()))
    assert error["exception_type"] == "torch.OutOfMemoryError"
    assert "CUDA out of memory" in error["exception_message"]
    assert (await talk.run(simple()))["status"]["status_str"] == "success"


async def test_cuda_error_breaks_every_later_prompt(start: Start, connect: Connect) -> None:
    talk = await connect(await start("--fault", "cuda-error@node=1,times=1"))
    for color in (1, 2):
        assert "illegal memory access" in error_of(await talk.run(simple(color)))["exception_message"]


async def test_corrupt_output_is_no_whole_picture(start: Start, connect: Connect) -> None:
    talk = await connect(await start("--fault", "corrupt-output,times=1"))
    content = await talk.view(await talk.run(simple()), "2")
    with pytest.raises((OSError, SyntaxError)), Image.open(io.BytesIO(content)) as picture:
        picture.load()


async def test_empty_output_has_no_bytes(start: Start, connect: Connect) -> None:
    talk = await connect(await start("--fault", "empty-output"))
    assert await talk.view(await talk.run(simple()), "2") == b""


async def test_missing_output_is_named_but_gone(start: Start, connect: Connect) -> None:
    talk = await connect(await start("--fault", "missing-output"))
    entry = await talk.run(simple())
    async with talk.session.get("/view", params=entry["outputs"]["2"]["images"][0]) as answer:
        assert answer.status == 404


async def test_slow_view_answers_late(start: Start, connect: Connect) -> None:
    talk = await connect(await start("--fault", "slow-view=0.3"))
    entry = await talk.run(simple())
    began = asyncio.get_running_loop().time()
    await talk.view(entry, "2")
    assert asyncio.get_running_loop().time() - began >= 0.3


async def test_reject_all_answers_500(start: Start, connect: Connect) -> None:
    talk = await connect(await start("--fault", "reject-all,times=1"))
    async with talk.session.post("/prompt", json={"prompt": simple()}) as answer:
        assert answer.status == 500
    await talk.run(simple())


async def test_stderr_flood_is_one_long_line(start: Start, connect: Connect) -> None:
    one = await start("--fault", "stderr-flood,times=1")
    await (await connect(one)).run(simple())
    async with asyncio.timeout(5):
        while "Prompt executed" not in one.log:
            await asyncio.sleep(0.01)  # the pipe is read by another task
    assert max(map(len, one.log.split("\n"))) > 200_000


async def test_faults_can_be_set_and_read_at_run_time(start: Start, connect: Connect) -> None:
    talk = await connect(await start())
    async with talk.session.post("/simulator/faults", json={"faults": ["oom@node=1,times=1"]}) as answer:
        assert await answer.json() == {"faults": [{"fault": "oom@node=1,times=1", "happened": 0}]}
    error_of(await talk.run(simple()))
    assert await talk.get("/simulator/faults") == {"faults": [{"fault": "oom@node=1,times=1", "happened": 1}]}
    async with talk.session.post("/simulator/faults", json={"faults": ["no-such-fault"]}) as answer:
        assert answer.status == 400


async def test_bad_fault_exits_with_2_and_a_sentence(start: Start) -> None:
    one = await start("--fault", "die@nod=1", wait=False)
    assert await one.wait() == 2
    assert "die knows no nod" in one.log
