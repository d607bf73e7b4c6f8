"""Outputs of every kind come back complete, in order, and as the engine has them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.agent import graphs
from tests.integration.agent.pictures import color_of, look
from tests.integration.agent.service import Agent, Answer, MakeAgent

COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


def three_frames() -> graphs.Graph:
    """Node "frames" is a batch of red, green and blue."""
    graph: graphs.Graph = {
        name: graphs.empty(color)
        for name, color in (("r", graphs.RED), ("g", graphs.GREEN), ("b", graphs.BLUE))
    }
    graph["rg"] = graphs.node("ImageBatch", image1=["r", 0], image2=["g", 0])
    graph["frames"] = graphs.node("ImageBatch", image1=["rg", 0], image2=["b", 0])
    return graph


def with_output(class_type: str, **inputs: Any) -> graphs.Graph:
    return three_frames() | {"out": graphs.node(class_type, images=["frames", 0], **inputs)}


async def check_bytes(agent: Agent, answer: Answer, node: str = "out") -> list[bytes]:
    """What came inline is what the engine has, and what /outputs/N gives; the pictures."""
    found = answer.results(node)
    images = answer.json[node]["images"]
    assert len(images) == len(found)
    assert [await agent.engine.view(i["filename"], i["subfolder"], i["type"]) for i in images] == found
    record = await agent.task(answer.headers["task-id"])
    outputs = [o for o in record["outputs"] if o["node_id"] == node]
    assert [o["filename"] for o in outputs] == [i["filename"] for i in images]
    assert [o["bytes"] for o in outputs] == [len(data) for data in found]
    for output, data in zip(outputs, found, strict=True):
        got = await agent.get(output["url"])
        assert (got.status, got.body) == (200, data)
        assert got.headers["Content-Type"] == output["media_type"]
    return found


@pytest.mark.real
async def test_batch_comes_back_in_order(agent: Agent) -> None:
    answer = await agent.run(with_output("SaveImage", filename_prefix="batch"))
    assert [color_of(data) for data in await check_bytes(agent, answer)] == COLORS


@pytest.mark.real
async def test_preview_image_is_an_output(agent: Agent) -> None:
    answer = await agent.run(with_output("PreviewImage"))
    assert [color_of(data) for data in await check_bytes(agent, answer)] == COLORS
    assert answer.json["out"]["images"][0]["type"] == "temp"


@pytest.mark.real
@pytest.mark.parametrize(
    ("class_type", "inputs", "media_type"),
    [
        (
            "SaveAnimatedWEBP",
            {"fps": 6.0, "lossless": True, "quality": 80, "method": "default"},
            "image/webp",
        ),
        ("SaveAnimatedPNG", {"fps": 6.0, "compress_level": 4}, "image/png"),
    ],
)
async def test_animation_is_one_file_with_all_frames(
    agent: Agent, class_type: str, inputs: dict[str, Any], media_type: str
) -> None:
    answer = await agent.run(with_output(class_type, filename_prefix="moving", **inputs))
    (data,) = await check_bytes(agent, answer)
    assert getattr(look(data), "n_frames", 1) == 3
    assert (await agent.task(answer.headers["task-id"]))["outputs"][0]["media_type"] == media_type


@pytest.mark.real
async def test_video_is_an_output(agent: Agent) -> None:
    answer = await agent.run(
        with_output("SaveWEBM", filename_prefix="video/w", codec="vp9", fps=8.0, crf=32.0)
    )
    (data,) = await check_bytes(agent, answer)
    assert data.startswith(bytes.fromhex("1a45dfa3"))
    output = (await agent.task(answer.headers["task-id"]))["outputs"][0]
    assert (output["media_type"], output["subfolder"]) == ("video/webm", "video")


@pytest.mark.real
async def test_text_is_an_output(agent: Agent) -> None:
    graph = graphs.chain(
        graphs.node("PrimitiveString", value="Grüße <b> 你好"), graphs.node("PreviewAny", source=...)
    )
    progress = (await agent.run(graph)).ok()
    assert progress["2"]["text"] == ["Grüße <b> 你好"]
    assert "results" not in progress["2"]


@pytest.mark.real
async def test_pictures_that_exist_only_on_the_websocket_are_outputs(agent: Agent) -> None:
    answer = await agent.run(with_output("SaveImageWebsocket"))
    assert [color_of(data) for data in answer.results("out")] == COLORS
    got = await agent.output(answer.headers["task-id"], 1)
    assert (color_of(got.body), got.headers["Content-Type"]) == (COLORS[1], "image/png")


@pytest.mark.real
async def test_odd_ui_of_a_custom_node_passes_through(agent: Agent) -> None:
    await agent.run(graphs.painted(prefix="warm"))
    # LabOutput names a file that it never writes; without it the rest could not be shown.
    graph = graphs.chain(graphs.empty(), graphs.node("LabOutput", image=...))
    answer = await agent.run(graph)
    error = answer.error(500, "OutputMissing")
    assert (error["node_id"], error["filename"]) == ("2", "x.gif")


PREFIXES = ["with space", "a&b=c", "ünïcödé 猫", "sub/deep er/ü&x", "plus+percent%41", "it's (1)#?"]


@pytest.mark.real
@pytest.mark.parametrize("prefix", PREFIXES)
async def test_file_name_of_any_kind_is_fetched_as_it_is(agent: Agent, prefix: str) -> None:
    color = graphs.fresh_color()
    answer = await agent.run(graphs.painted(color, prefix=prefix))
    (data,) = await check_bytes(agent, answer, "2")
    assert color_of(data) == graphs.rgb(color)
    folder, _, name = prefix.rpartition("/")
    (image,) = answer.json["2"]["images"]
    assert image["subfolder"] == folder
    assert image["filename"].startswith(name)


@pytest.mark.real
async def test_equal_output_nodes_both_return_the_picture(agent: Agent) -> None:
    graph = graphs.chain(graphs.empty(graphs.RED), graphs.save("equal"))
    graph["3"] = graph["2"]
    answer = await agent.run(graph)
    assert [color_of(*answer.results(node)) for node in ("2", "3")] == [(255, 0, 0)] * 2


@pytest.mark.real
async def test_outputs_of_expanded_nodes_are_shown_under_the_node_they_came_from(agent: Agent) -> None:
    graph = graphs.chain(graphs.empty(graphs.RED), graphs.node("LabExpand", image=...), graphs.save())
    answer = await agent.run(graph)
    assert color_of(*answer.results("3")) == (0, 255, 255)
    assert answer.json.keys() == {"1", "2", "3"}
    assert color_of(*answer.results("2")) == (0, 255, 255)


@pytest.mark.real
async def test_output_says_what_it_is_and_runs_no_script(agent: Agent) -> None:
    answer = await agent.run(graphs.painted(prefix='we"ird ü'))
    got = await agent.output(answer.headers["task-id"], 0)
    assert got.headers["Content-Type"] == "image/png"
    assert got.headers["X-Content-Type-Options"] == "nosniff"
    assert got.headers["Content-Disposition"].startswith("inline; filename*=UTF-8''we%22ird%20%C3%BC")
    assert int(got.headers["Content-Length"]) == len(got.body)


@pytest.mark.real
@pytest.mark.parametrize(
    "index", ["1", "-1", "x", "0.0", "\u0660", "99999999999999999999", "00000000", "%00", "1e0"]
)
async def test_number_of_no_output_is_404(agent: Agent, index: str) -> None:
    answer = await agent.run(graphs.painted())
    (await agent.output(answer.headers["task-id"], index)).error(404, "OutputNotFound")


@pytest.mark.real
async def test_workflow_whose_only_output_is_blocked_is_an_error_and_no_empty_answer(agent: Agent) -> None:
    graph = graphs.chain(graphs.empty(), graphs.node("LabBlock", image=..., text="not today"), graphs.save())
    answer = await agent.run(graph, "blocked-alone")
    assert answer.status == 500, answer.body
    assert answer.json["message"] == "NoOutput"
    record = await agent.task("blocked-alone")
    assert "not today" in str(record["warnings"])


@pytest.mark.real
async def test_blocked_output_beside_a_good_one_is_a_warning(agent: Agent) -> None:
    graph = graphs.chain(graphs.empty(), graphs.node("LabBlock", image=..., text="not today"), graphs.save())
    graph["4"] = graphs.save(images=["1", 0])
    answer = await agent.run(graph)
    assert len(answer.results("4")) == 1
    assert "results" not in answer.json["3"]
    (warning,) = (await agent.task(answer.headers["task-id"]))["warnings"]
    assert "not today" in warning["detail"]


@pytest.mark.real
async def test_branch_that_the_engine_drops_is_a_warning(agent: Agent) -> None:
    graph = graphs.painted(graphs.RED) | {
        "3": graphs.node("EmptyImage", "Too small", width=0, height=8, batch_size=1, color=0),
        "4": graphs.save(images=["3", 0]),
    }
    answer = await agent.run(graph)
    assert color_of(*answer.results("2")) == (255, 0, 0)
    record = await agent.task(answer.headers["task-id"])
    (warning,) = [w for w in record["warnings"] if w["code"] == "NodeRejected"]
    assert (warning["node_id"], warning["dependent_outputs"]) == ("3", ["4"])
    assert "Too small" in warning["detail"]
    assert record["progress"] == 1
    assert record["state"] == "succeeded"


@pytest.mark.real
async def test_only_the_outputs_that_were_asked_for_count(agent: Agent) -> None:
    graph = three_frames() | {
        "wanted": graphs.node("SaveImage", images=["r", 0], filename_prefix="wanted"),
        "unwanted": graphs.node("PreviewImage", images=["g", 0]),
        "streamed": graphs.node("SaveImageWebsocket", images=["b", 0]),
    }
    answer = await agent.run({"prompt": graph, "partial_execution_targets": ["wanted"]})
    assert [color_of(data) for data in answer.results("wanted")] == [(255, 0, 0)]
    assert answer.json["unwanted"]["max"] == 0
    record = await agent.task(answer.headers["task-id"])
    assert (record["warnings"], len(record["attempts"]), record["progress"]) == ([], 1, 1.0)


@pytest.mark.real
async def test_streamed_output_that_was_blocked_is_a_warning_and_no_fault(agent: Agent) -> None:
    graph = graphs.painted(graphs.RED) | {
        "block": graphs.node("LabBlock", image=["1", 0], text=""),
        "streamed": graphs.node("SaveImageWebsocket", images=["block", 0]),
    }
    answer = await agent.run(graph)
    assert color_of(*answer.results("2")) == (255, 0, 0)
    record = await agent.task(answer.headers["task-id"])
    assert [w["code"] for w in record["warnings"]] == ["NodeWithoutOutput"]
    assert len(record["attempts"]) == 1


@pytest.mark.parametrize(
    ("class_type", "inputs"), [("SaveImage", {"filename_prefix": "large"}), ("SaveImageWebsocket", {})]
)
async def test_outputs_that_are_too_large_together_are_an_error(
    make_agent: MakeAgent, class_type: str, inputs: dict[str, Any]
) -> None:
    """A batch of many pictures, each of which is small enough."""
    agent = await make_agent(max_output_bytes=6000)
    saver = graphs.node(class_type, images=..., **inputs)
    assert len((await agent.run(graphs.chain(graphs.empty(), saver))).results("2")) == 1
    answer = await agent.run(graphs.chain(graphs.empty(batch=120), saver), f"too-large-{class_type}")
    error = answer.error(500, "OutputTooLarge")
    assert (error["node_id"], error["limit"], error["transient"]) == ("2", 6000, False)
    assert error["filename"].endswith("_.png")
    assert "AGENT_MAX_OUTPUT_BYTES" in error["detail"]
    record = await agent.task(f"too-large-{class_type}")
    assert (record["state"], len(record["attempts"]), record["outputs"]) == ("failed", 1, [])
    assert len((await agent.run(graphs.chain(graphs.empty(), saver))).results("2")) == 1
