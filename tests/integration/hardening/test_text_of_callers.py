"""Text of a caller, and names that are no text, are data: they neither restart the engine nor break its answers."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from pathlib import Path

import pytest

from tests.integration.agent import graphs
from tests.integration.agent.graphs import Graph
from tests.integration.agent.pictures import color_of
from tests.integration.agent.service import Agent, MakeAgent

#: A node that raises is over within milliseconds; a run that is looked up again and again is not.
AT_ONCE_SECONDS = 2

CALLERS_WORDS = {
    "another exception type": graphs.painted(prefix="/CUDA error: device-side assert/x"),
    "middle of a RuntimeError": graphs.raising("You wrote: CUDA error: device-side assert"),
}


async def restarts(agent: Agent) -> int:
    count: int = (await agent.get("/readyz")).ok()["engine"]["restarts"]
    return count


@pytest.mark.parametrize("graph", CALLERS_WORDS.values(), ids=CALLERS_WORDS)
async def test_words_of_a_caller_that_look_like_a_gpu_error_do_not_restart_the_engine(
    agent: Agent, graph: Graph
) -> None:
    async with agent.engine.asked(1):
        answer = await agent.run(graph)
    assert "CUDA error:" in answer.error(500, "NodeFailed")["exception_message"]
    assert len((await agent.task(answer.headers["task-id"]))["attempts"]) == 1
    assert await restarts(agent) == 0


async def test_gpu_error_that_comes_back_after_a_restart_is_not_tried_a_third_time(
    make_agent: MakeAgent,
) -> None:
    agent = await make_agent(engine=["--fault", "cuda-error@node=1"], max_attempts=5)
    (await agent.run(graphs.painted(), "gpu")).error(500, "GpuBroken")
    assert len((await agent.task("gpu"))["attempts"]) == 2
    await agent.ready()
    assert await restarts(agent) == 2, "one for the second attempt, one for whoever comes next"


async def test_file_whose_name_is_not_utf8_breaks_neither_the_node_list_nor_runs(
    make_agent: MakeAgent, tmp_path: Path
) -> None:
    folder = tmp_path / "engine1" / "input"
    folder.mkdir(parents=True)
    (folder / os.fsdecode(b"caf\xe9.png")).write_bytes(b"")
    agent = await make_agent(engine=[])
    assert "caf\\udce9.png" in str(await agent.engine.get("/object_info")), "the file does not show"
    assert color_of(*(await agent.run(graphs.painted(graphs.RED))).results("2")) == (255, 0, 0)
    (await agent.run(graphs.loaded("caf?.png"))).error(400, "InvalidInput")


async def test_node_that_raises_with_such_a_name_has_failed_at_once(
    make_agent: MakeAgent, tmp_path: Path
) -> None:
    """The engine's own folder has the name, and the message of SaveImage names the folder."""
    simulator = shlex.join([sys.executable, "-m", "comfyui.simulator", "--port", "{port}"])
    script = f'exec {simulator} --base-directory "{tmp_path}/$(printf "caf\\351")"'
    agent = await make_agent(comfyui_command=shlex.join(["sh", "-c", script]))
    async with asyncio.timeout(AT_ONCE_SECONDS):
        answer = await agent.run(graphs.painted(prefix="/elsewhere/x"))
    assert "caf\ufffd" in answer.error(500, "NodeFailed")["exception_message"]
    assert len((await agent.task(answer.headers["task-id"]))["attempts"]) == 1
