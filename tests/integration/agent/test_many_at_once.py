"""Nothing is mixed up, missed or left hanging: repeats, quick runs, and many at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from PIL import Image

from tests.integration.agent import graphs
from tests.integration.agent.conversation import conversation
from tests.integration.agent.pictures import color_of, look
from tests.integration.agent.service import PATIENCE_SECONDS, Agent, MakeAgent

MANY = 16


@pytest.mark.real
async def test_fully_cached_repeat_returns_its_pictures_again(agent: Agent) -> None:
    graph = graphs.chain(graphs.empty(batch=3), graphs.save("cached"))
    graph["3"] = graphs.node("PreviewImage", images=["1", 0])
    first, *others = [await agent.run(graph) for _ in range(3)]
    for other in others:
        assert other.results("2") == first.results("2")
        assert len(other.results("3")) == 3
        assert other.headers["task-id"] != first.headers["task-id"]
        assert all(entry["value"] == entry["max"] for entry in other.json.values())
        assert (await agent.task(other.headers["task-id"]))["progress"] == 1


@pytest.mark.real
async def test_run_of_less_than_a_millisecond_is_not_missed(agent: Agent) -> None:
    for _ in range(50):
        color = graphs.fresh_color()
        answer = await agent.run(graphs.chain(graphs.empty(color, (1, 1)), graphs.preview()))
        assert color_of(*answer.results("2")) == graphs.rgb(color)


async def synchronously(agent: Agent, graph: graphs.Graph) -> list[bytes]:
    return (await agent.run(graph)).results("2")


async def in_the_background(agent: Agent, graph: graphs.Graph) -> list[bytes]:
    task_id = await agent.begin(graph)
    await agent.succeeded(task_id)
    return (await agent.status(task_id)).results("2")


async def over_a_websocket(agent: Agent, graph: graphs.Graph) -> list[bytes]:
    async with conversation(agent, graph) as talk:
        return await talk.results("2")


Way = Callable[[Agent, graphs.Graph], Awaitable[list[bytes]]]
WAYS: list[Way] = [synchronously, in_the_background, over_a_websocket]


async def run_many(agent: Agent, way: Way) -> None:
    """Different colours and sizes under one file name prefix."""
    wanted = [(graphs.fresh_color(), (4 + n, 40 - n)) for n in range(MANY)]
    async with asyncio.timeout(PATIENCE_SECONDS):
        found = await asyncio.gather(*(way(agent, graphs.painted(*one, prefix="same")) for one in wanted))
    seen = [(color_of(data), look(data).size) for (data,) in found]
    assert seen == [(graphs.rgb(color), size) for color, size in wanted]


@pytest.mark.real
@pytest.mark.parametrize("way", WAYS)
async def test_sixteen_quick_workflows_at_once_each_get_their_own_pictures(agent: Agent, way: Way) -> None:
    await run_many(agent, way)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "switches",
    [
        ["--node-seconds", "SaveImage=0.05"],
        ["--node-seconds", "0.01", "--protocol", "0.3.40"],
        ["--prompt-id", "uuid-only", "--cache-none"],
    ],
    ids=["50 ms jobs", "protocol without progress_state", "later prompt ids"],
)
async def test_sixteen_workflows_at_once_on_engines_of_other_kinds(
    make_agent: MakeAgent, way: Way, switches: list[str]
) -> None:
    await run_many(await make_agent(engine=switches), way)


@pytest.mark.parametrize("switches", [["--protocol", "0.3.40"], ["--prompt-id", "uuid-only"]])
async def test_other_versions_of_the_protocol_are_understood(
    make_agent: MakeAgent, switches: list[str]
) -> None:
    agent = await make_agent(engine=[*switches, "--model", "tiny.safetensors"])
    answer = await agent.run(graphs.sampled(steps=3), "sampled")
    assert answer.ok()["5"]["value"] == 3
    assert all(entry["value"] == entry["max"] for entry in answer.json.values())
    graph = graphs.painted(prefix="cached")
    assert (await agent.run(graph)).results("2") == (await agent.run(graph)).results("2")
    (await agent.run(graphs.raising())).error(500, "NodeFailed")
    task_id = await agent.begin(graphs.stepping())
    await agent.running(task_id)
    assert (await agent.cancel(task_id)).ok()["state"] == "cancelled"


async def test_run_that_waited_behind_another_client_of_the_engine_gets_its_picture(agent: Agent) -> None:
    """ComfyUI sends execution_start long after the prompt was queued; an old agent took it for the end."""
    async with agent.engine.http.post(
        "/prompt", json={"prompt": graphs.sleeping(0.3), "client_id": "x"}
    ) as sent:
        assert sent.status == 200
    assert color_of(*(await agent.run(graphs.painted(graphs.GREEN))).results("2")) == (0, 255, 0)


async def test_previews_of_a_sampler_are_no_outputs_and_disturb_nothing(make_agent: MakeAgent) -> None:
    agent = await make_agent(engine=["--preview-method", "auto", "--model", "tiny.safetensors"])
    answer = await agent.run(graphs.sampled(steps=5))
    assert [node for node, entry in answer.ok().items() if "results" in entry] == ["7"]


async def test_large_batch_comes_back_whole(agent: Agent) -> None:
    noise = graphs.chain(
        graphs.empty(size=(256, 256), batch=24),
        graphs.node("ImageAddNoise", image=..., seed=7, strength=1.0),
        graphs.save("large"),
    )
    found = (await agent.run(noise)).results("3")
    assert len(found) == 24
    assert sum(map(len, found)) > 2**21
    assert all(isinstance(look(data), Image.Image) for data in found)
