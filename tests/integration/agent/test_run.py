"""POST /api/run, synchronously: what a caller sends and what comes back."""

from __future__ import annotations

import time

import pytest

from tests.integration.agent import graphs
from tests.integration.agent.pictures import color_of, look
from tests.integration.agent.service import Agent

pytestmark = pytest.mark.real


async def test_bare_workflow_returns_its_picture(agent: Agent) -> None:
    answer = await agent.run(graphs.painted(graphs.RED, (12, 7)))
    (data,) = answer.results("2")
    assert color_of(data) == (255, 0, 0)
    assert look(data).size == (12, 7)


async def test_envelope_returns_the_same_as_the_bare_workflow(agent: Agent) -> None:
    answer = await agent.run(
        {"prompt": graphs.painted(graphs.GREEN), "client_id": "theirs", "extra_data": {}}
    )
    assert color_of(*answer.results("2")) == (0, 255, 0)


async def test_node_that_is_called_prompt_is_not_taken_for_an_envelope(agent: Agent) -> None:
    graph = {"prompt": graphs.empty(graphs.BLUE), "2": graphs.save(images=["prompt", 0])}
    assert color_of(*(await agent.run(graph)).results("2")) == (0, 0, 255)


async def test_progress_map_has_exactly_the_documented_shape(agent: Agent) -> None:
    before = int(time.time())
    progress = (await agent.run(graphs.painted(prefix="shape"))).ok()
    assert list(progress) == ["1", "2"]
    assert progress["1"].keys() == {"max", "value", "start", "last_updated", "images"}
    assert progress["1"]["images"] == []
    assert progress["2"].keys() == {"max", "value", "start", "last_updated", "images", "results"}
    (image,) = progress["2"]["images"]
    assert image.keys() == {"filename", "subfolder", "type"}
    assert image["filename"].startswith("shape_")
    assert (image["subfolder"], image["type"]) == ("", "output")
    for entry in progress.values():
        assert [type(entry[k]) for k in ("max", "value", "start", "last_updated")] == [int] * 4
        assert entry["value"] == entry["max"] == 1
        assert before <= entry["start"] <= entry["last_updated"] <= time.time()


async def test_node_that_no_output_needs_has_an_entry_too(agent: Agent) -> None:
    graph = graphs.painted() | {"idle": graphs.empty()}
    assert (await agent.run(graph)).ok()["idle"]["images"] == []


async def test_task_id_of_the_caller_is_echoed(agent: Agent) -> None:
    answer = await agent.run(graphs.painted(), "my_task.1:a-b")
    assert (answer.status, answer.headers["task-id"]) == (200, "my_task.1:a-b")
    assert (await agent.task("my_task.1:a-b"))["state"] == "succeeded"


async def test_task_without_id_gets_one_of_ours_that_begins_with_a_letter(agent: Agent) -> None:
    ids = {(await agent.run(graphs.painted())).headers["task-id"] for _ in range(5)}
    assert len(ids) == 5
    assert all(task_id[0].isalpha() for task_id in ids)


async def test_several_output_nodes_each_return_their_pictures_in_order(agent: Agent) -> None:
    graph = {
        "1": graphs.empty(graphs.RED),
        "2": graphs.empty(graphs.BLUE),
        "3": graphs.save("two", images=["1", 0]),
        "4": graphs.node("ImageBatch", image1=["2", 0], image2=["1", 0]),
        "5": graphs.node("PreviewImage", images=["4", 0]),
    }
    answer = await agent.run(graph, "several")
    assert [color_of(data) for data in answer.results("3")] == [(255, 0, 0)]
    assert [color_of(data) for data in answer.results("5")] == [(0, 0, 255), (255, 0, 0)]
    outputs = (await agent.task(answer.headers["task-id"]))["outputs"]
    assert [(o["index"], o["node_id"]) for o in outputs] == [(0, "3"), (1, "5"), (2, "5")]


async def test_sampler_runs_and_its_entry_counts_the_steps(agent: Agent) -> None:
    answer = await agent.run(graphs.sampled(steps=3))
    sampler = answer.ok()["5"]
    assert (sampler["value"], sampler["max"]) == (3, 3)
    assert look(*answer.results("7")).size == (64, 64)
