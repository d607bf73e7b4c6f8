"""What can be said of an answer's size before it is made."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from agent.api.render import answer_body
from agent.outputs.estimate import BYTES_PER_PIXEL, Estimate, estimate
from agent.outputs.size import answer_bytes, base64_bytes
from agent.service import Delivery
from agent.tasks.board import TaskBoard
from agent.tasks.memory import MemoryStore
from agent.tasks.record import NodeProgress, Output, State, TaskRecord
from comfyui.workflow import Workflow
from tests.integration.agent.graphs import Graph, node, sampled


def pictures(width: int = 1024, height: int = 1024, batch: Any = 1, **changes: Any) -> Graph:
    """Node "7" saves what node "4" has the size of."""
    graph = sampled()
    graph["4"]["inputs"] = {"width": width, "height": height, "batch_size": batch}
    return graph | changes


def pixels(graph: Graph, targets: list[str] | None = None) -> int:
    found = estimate(Workflow.parse(graph), targets)
    return found.pixels if found else 0


def test_the_latent_has_the_size_of_the_pictures() -> None:
    found = estimate(Workflow.parse(pictures(batch=40)))
    total = 40 * 1024 * 1024
    assert found == Estimate(total, base64_bytes(int(total * BYTES_PER_PIXEL)), "7")


def test_all_that_is_saved_counts_and_the_largest_is_named() -> None:
    more = {
        "8": node("PreviewImage", images=["6", 0]),
        "9": node("EmptySD3LatentImage", width=2048, height=2048, batch_size=1),
        "10": node("VAEDecode", samples=["9", 0], vae=["1", 2]),
        "11": node("SaveImage", images=["10", 0], filename_prefix="x"),
    }
    graph = pictures(**more)
    found = estimate(Workflow.parse(graph))
    assert found is not None
    assert (found.pixels, found.node_id) == (2 * 1024**2 + 2048**2, "11")
    assert pixels(graph, ["8"]) == 1024**2
    assert pixels(graph, []) == 0


def test_frames_of_a_video_are_saved_one_by_one() -> None:
    latent = node("EmptyHunyuanLatentVideo", width=100, height=100, length=25, batch_size=2)
    assert pixels(pictures(**{"4": latent})) == 100 * 100 * 50


@pytest.mark.parametrize(
    "between",
    [
        node("ImageScale", image=["6", 0], width=8, height=8, upscale_method="area", crop="disabled"),
        node("ImageFromBatch", image=["6", 0], batch_index=0, length=1),
        node("SomebodysNode", image=["6", 0]),
    ],
)
def test_what_may_make_them_fewer_or_smaller_is_unknown(between: dict[str, Any]) -> None:
    saved = node("SaveImage", images=["20", 0], filename_prefix="x")
    assert pixels(pictures(**{"20": between, "7": saved})) == 0


def test_an_enlarged_picture_counts_as_if_it_were_not() -> None:
    larger = node("ImageUpscaleWithModel", image=["6", 0], upscale_model=["1", 0])
    saved = node("SaveImage", images=["20", 0], filename_prefix="x")
    assert pixels(pictures(**{"20": larger, "7": saved})) == 1024**2


@pytest.mark.parametrize("size", ["512", -1, 0, None, True, 1.5, ["1", 0]])
def test_a_size_that_is_not_written_there_is_unknown(size: Any) -> None:
    assert pixels(pictures(width=size)) == 0


def test_a_batch_that_is_not_written_there_counts_once() -> None:
    assert pixels(pictures(batch=["1", 0])) == 1024**2


def test_one_colour_needs_hardly_a_byte_so_it_is_not_counted() -> None:
    graph = {
        "1": node("EmptyImage", width=9000, height=9000, batch_size=9, color=1),
        "2": node("SaveImage", images=["1", 0], filename_prefix="x"),
    }
    assert pixels(graph) == 0


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 1000])
def test_base64_is_as_long_as_told(size: int) -> None:
    assert base64_bytes(size) == len(base64.b64encode(bytes(size)))


def record_of(*sizes: int, node_id: str = "9") -> TaskRecord:
    outputs = [
        Output(
            index=i,
            node_id=node_id,
            filename="ä.png",
            subfolder="",
            type="output",
            media_type="image/png",
            bytes=size,
            url="u",
        )
        for i, size in enumerate(sizes)
    ]
    images = [{"filename": "ä.png", "subfolder": "", "type": "output"}] * len(sizes)
    nodes = {"1": NodeProgress(text=['"quoted"', "ü"]), node_id: NodeProgress(images=images)}
    return TaskRecord(id="t", created_at=0, state=State.SUCCEEDED, nodes=nodes, outputs=outputs)


@pytest.mark.parametrize("sizes", [(), (1,), (0, 1, 2, 3), (5000, 7)])
async def test_no_answer_is_larger_than_told_and_hardly_smaller(sizes: tuple[int, ...]) -> None:
    record = record_of(*sizes)
    store = MemoryStore(record_ttl_seconds=9, output_ttl_seconds=9)
    body = await answer_body(TaskBoard(store), Delivery(record, [bytes(n) for n in sizes]))
    told = answer_bytes(record)
    assert len(body) <= told <= len(body) + 200


def test_what_is_in_the_object_store_is_not_in_the_answer() -> None:
    record = record_of(9000, 3)
    moved = [record.outputs[0].model_copy(update={"object_key": "k"}), record.outputs[1]]
    assert answer_bytes(record) - answer_bytes(record, moved) == base64_bytes(9000) + 4
