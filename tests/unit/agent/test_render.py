"""Answers: their exact form, and that every reader of JSON can read them."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from agent.api.pieces import PIECE_BYTES
from agent.api.render import (
    INLINE_BYTES,
    answer_body,
    error_response,
    json_response,
    progress_map,
    render_task,
    result_body,
)
from agent.errors import AgentError, AnswerTooLarge, NodeFailed, QueueFull, StoreUnavailable
from agent.outputs.size import base64_bytes
from agent.service import Delivery, Forwarded
from agent.tasks.board import TaskBoard
from agent.tasks.memory import MemoryStore
from agent.tasks.record import NodeProgress, Output, State, TaskRecord

FILE = {"filename": "a.png", "subfolder": "", "type": "output"}


def output(index: int, node_id: str = "9") -> Output:
    return Output(
        index=index,
        node_id=node_id,
        filename="a.png",
        subfolder="",
        type="output",
        media_type="image/png",
        bytes=1,
        url="u",
    )


def delivery(*data: bytes, nodes: tuple[str, ...] = ()) -> Delivery:
    """A delivery with these outputs, on node 9 or on these nodes."""
    owners = nodes or ("9",) * len(data)
    done = NodeProgress(max=1, value=1, start=5, last_updated=6, images=[FILE])
    record = TaskRecord(
        id="t",
        created_at=0,
        state=State.SUCCEEDED,
        nodes={"1": NodeProgress(max=1, value=1, start=5, last_updated=6), "9": done, "8": done},
        outputs=[output(i, owner) for i, owner in enumerate(owners)],
    )
    return Delivery(record, list(data))


def test_the_progress_map_has_the_old_agents_form() -> None:
    assert progress_map(delivery().record)["1"] == {
        "max": 1,
        "value": 1,
        "start": 5,
        "last_updated": 6,
        "images": [],
    }


def test_texts_and_the_rest_appear_only_where_there_are_some() -> None:
    record = TaskRecord(
        id="t", created_at=0, nodes={"1": NodeProgress(text=["a"]), "2": NodeProgress(ui={"x": [None]})}
    )
    shown = progress_map(record)
    assert shown["1"]["text"] == ["a"]
    assert "ui" not in shown["1"]
    assert shown["2"]["ui"] == {"x": [None]}
    assert "results" not in shown["1"]


def test_null_inside_a_file_entry_is_kept() -> None:
    record = TaskRecord(id="t", created_at=0, nodes={"1": NodeProgress(images=[FILE | {"workflow": None}])})
    assert progress_map(record)["1"]["images"] == [FILE | {"workflow": None}]


async def test_results_are_padded_base64_in_the_order_of_the_images() -> None:
    data = [b"a", b"bc", b"def", b"\xff\xfe\xfd\xfc"]
    body = json.loads(bytes(result_body(delivery(*data))))
    assert [base64.b64decode(result, validate=True) for result in body["9"]["results"]] == data
    assert body["9"]["results"][0] == "YQ=="
    assert "results" not in body["1"]


async def test_results_belong_to_their_nodes() -> None:
    body = json.loads(bytes(result_body(delivery(b"x", b"y", b"z", nodes=("9", "8", "9")))))
    assert [base64.b64decode(r) for r in body["9"]["results"]] == [b"x", b"z"]
    assert [base64.b64decode(r) for r in body["8"]["results"]] == [b"y"]


async def test_a_large_result_is_encoded_as_a_small_one() -> None:
    data = bytes(INLINE_BYTES + 1)
    body = json.loads(bytes(result_body(delivery(data))))
    assert base64.b64decode(body["9"]["results"][0]) == data


class Line:
    """A connection's writer that keeps what it is given."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    async def write(self, piece: bytes) -> None:
        self.pieces.append(bytes(piece))


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES + 2])
async def test_what_is_sent_piece_by_piece_is_the_body_and_as_long_as_was_said(size: int) -> None:
    data = [bytes(range(256)) * (size // 256) + bytes(size % 256), b"x"]
    body, line = result_body(delivery(*data)), Line()
    whole = bytes(body)
    await body.write(line)
    sent = b"".join(line.pieces)
    assert sent == whole
    assert len(sent) == body.size
    assert max(map(len, line.pieces)) <= max(base64_bytes(PIECE_BYTES), 2000)
    found = json.loads(sent)["9"]["results"]
    assert [base64.b64decode(result, validate=True) for result in found] == data


async def test_outputs_without_bytes_are_a_bug_not_a_short_answer() -> None:
    with pytest.raises(ValueError, match="zip"):
        result_body(Delivery(delivery(b"x", b"y").record, [b"x"]))


async def test_rendering_twice_does_not_add_up() -> None:
    one = delivery(b"x")
    assert bytes(result_body(one)) == bytes(result_body(one))


def test_a_record_is_shown_whole_with_its_map() -> None:
    record = delivery(b"x").record
    shown = json.loads(json.dumps(render_task(record)))
    for name in (
        "id",
        "state",
        "progress",
        "queue_position",
        "current_node",
        "attempts",
        "nodes",
        "outputs",
        "warnings",
    ):
        assert name in shown
    for name in ("error", "timings", "created_at", "started_at", "finished_at"):
        assert name in shown
    assert shown["state"] == "succeeded"
    assert shown["nodes"] == progress_map(record)
    assert shown["outputs"][0]["bytes"] == 1


def test_large_seeds_are_shown_exactly() -> None:
    record = TaskRecord(id="t", created_at=0, seeds={"3": {"seed": 2**53 - 1}})
    body = json_response(render_task(record)).body
    assert b'"seed":9007199254740991' in bytes(body)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", sorted(AgentError.by_code.values(), key=lambda k: k.__name__))
def test_every_error_has_the_one_form(kind: type[AgentError]) -> None:
    response = error_response(kind(), "t")
    body = json.loads(bytes(response.body))  # type: ignore[arg-type]
    assert response.status == kind.status
    assert response.content_type == "application/json"
    assert body["message"] == kind.__name__
    assert body["message"].isalnum()
    assert body["error"]["detail"].endswith((".", '"'))
    assert " " in body["error"]["detail"]
    assert body["task_id"] == "t"
    assert response.headers["task-id"] == "t"


def test_an_error_without_a_task_names_none() -> None:
    response = error_response(NodeFailed("x"))
    assert "task_id" not in json.loads(bytes(response.body))  # type: ignore[arg-type]
    assert "task-id" not in response.headers


def test_facts_travel_beside_the_sentence() -> None:
    body: Any = json.loads(bytes(error_response(NodeFailed("It failed.", node_id="3", node_class=None)).body))  # type: ignore[arg-type]
    assert body["error"]["node_id"] == "3"
    assert "node_class" not in body["error"]


def test_a_busy_answer_says_when_to_come_back() -> None:
    assert error_response(QueueFull(retry_after=7)).headers["Retry-After"] == "7"
    assert "Retry-After" not in error_response(NodeFailed()).headers


class TestAnswer:
    """An answer over the limit has URLs, where these lead somewhere."""

    class Shared(MemoryStore):
        """As Redis: other instances find the same in it."""

        is_shared = True

    def board(self, kind: type[MemoryStore], limit: int) -> TaskBoard:
        store = kind(record_ttl_seconds=9, output_ttl_seconds=9)
        return TaskBoard(store, answer_limit=limit)

    async def test_below_the_limit_it_has_results(self) -> None:
        one = delivery(b"x")
        assert await answer_body(self.board(MemoryStore, 2000), one) == bytes(result_body(one))

    async def test_above_it_it_has_urls_if_others_can_fetch_from_there(self) -> None:
        one = delivery(b"x", b"y", nodes=("9", "8"))
        body = json.loads(await answer_body(self.board(self.Shared, 10), one))
        assert (body["9"]["urls"], body["8"]["urls"]) == (["u"], ["u"])
        assert "results" not in body["9"]
        with pytest.raises(AnswerTooLarge):
            await answer_body(self.board(MemoryStore, 10), one)
        with pytest.raises(StoreUnavailable):
            await answer_body(self.board(self.Shared, 10), replace(one, is_kept=False))

    async def test_the_answer_of_another_agent_is_passed_on(self) -> None:
        assert await answer_body(self.board(MemoryStore, 1), Forwarded("t", b"{}")) == b"{}"

    async def test_signed_urls_stand_where_results_would(self) -> None:
        one = replace(delivery(b"x", b"y"), outputs=[None, None])
        body = json.loads(bytes(result_body(one, {1: "https://signed"})))
        assert body["9"]["urls"] == ["u", "https://signed"]

    def test_a_record_shows_links_that_it_does_not_hold(self) -> None:
        record = delivery(b"x", b"y").record
        shown = render_task(record, {1: "https://signed"})["outputs"]
        assert [output["signed_url"] for output in shown] == [None, "https://signed"]
        assert "signed_url" not in record.model_dump_json()
