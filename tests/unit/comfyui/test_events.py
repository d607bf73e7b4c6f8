"""WebSocket messages as types: every recorded one is understood, and none whatever can raise."""

from __future__ import annotations

import json
import struct
from collections import Counter
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from comfyui.events import (
    Event,
    Ignored,
    NodeAdvanced,
    NodeExecuted,
    NodesCached,
    NodesReported,
    NodeStarted,
    NodeState,
    PreviewImage,
    PromptEnded,
    PromptFailed,
    PromptInterrupted,
    PromptStarted,
    PromptSucceeded,
    QueueChanged,
    Unknown,
    parse,
    parse_data,
)
from tests.unit.comfyui.recordings import messages, names


def say(kind: Any, **data: Any) -> Event:
    return parse(json.dumps({"type": kind, "data": data}))


@pytest.mark.parametrize("name", names())
def test_every_recorded_message_is_understood(name: str) -> None:
    unknown = [event for event in map(parse, messages(name)) if isinstance(event, Unknown)]
    assert unknown == []


def test_the_recordings_hold_every_kind_of_message() -> None:
    found = Counter(type(parse(message)) for name in names() for message in messages(name))
    expected = {NodeAdvanced, NodeExecuted, NodesCached, NodesReported, NodeStarted, PreviewImage, Ignored}
    expected |= {PromptEnded, PromptFailed, PromptInterrupted, PromptStarted, PromptSucceeded, QueueChanged}
    assert set(found) == expected
    assert found[PreviewImage] == 25


def test_every_history_message_of_the_recordings_is_understood() -> None:
    kinds = {
        "execution_start",
        "execution_cached",
        "execution_success",
        "execution_error",
        "execution_interrupted",
    }
    for name in names():
        for message in messages(name):
            decoded = json.loads(message) if isinstance(message, str) else {}
            if decoded.get("type") in kinds:
                assert not isinstance(parse_data(decoded["type"], decoded["data"]), Unknown)


def test_messages_of_a_run_become_their_types() -> None:
    assert say("execution_start", prompt_id="p") == PromptStarted("p")
    assert say("execution_cached", prompt_id="p", nodes=["1", 2]) == NodesCached("p", ("1", "2"))
    assert say("executing", prompt_id="p", node="2.0.0.1", display_node="2") == NodeStarted(
        "p", "2.0.0.1", "2"
    )
    assert say("progress", prompt_id="p", node="3", value=1, max=20.0) == NodeAdvanced("p", "3", 1, 20.0)
    assert say("executed", prompt_id="p", node="9", display_node="9", output={"text": ["a"]}) == NodeExecuted(
        "p", "9", "9", {"text": ["a"]}
    )
    assert say("execution_success", prompt_id="p") == PromptSucceeded("p")
    assert say("executing", prompt_id="p", node=None) == PromptEnded("p")
    assert say("execution_interrupted", prompt_id="p", node_id="3") == PromptInterrupted("p", "3")
    assert say("status", status={"exec_info": {"queue_remaining": 3}}) == QueueChanged(None, 3)


@pytest.mark.parametrize("written", [{}, {"separators": (",", ":")}, {"sort_keys": True}, {"indent": 1}])
def test_progress_state_is_the_same_however_it_is_written(written: dict[str, Any]) -> None:
    nodes = {"2": {"value": 1, "max": 4, "state": "running", "display_node_id": "2"}}
    message = json.dumps({"type": "progress_state", "data": {"prompt_id": "p", "nodes": nodes}}, **written)
    assert parse(message) == NodesReported("p", {"2": NodeState("2", 1, 4, finished=False)})


@pytest.mark.parametrize("nodes", ['{"2": 3}', '{"2": {"value": "x", "max": 1}}', '{"2": {'])
def test_states_that_make_no_sense_are_none(nodes: str) -> None:
    event = parse(f'{{"type": "progress_state", "data": {{"prompt_id": "p", "nodes": {nodes}}}}}')
    assert isinstance(event, NodesReported)
    assert (event.prompt_id, dict(event.nodes)) == ("p", {})


def test_progress_state_holds_every_node_that_has_begun() -> None:
    nodes = {
        "2": {"value": 1.0, "max": 1.0, "state": "finished", "display_node_id": "2"},
        "2.0.0.1": {"value": 0, "max": 5, "state": "running", "display_node_id": "2"},
        "3": {"value": 0, "max": 1, "state": "error"},
    }
    assert say("progress_state", prompt_id="p", nodes=nodes) == NodesReported(
        "p",
        {
            "2": NodeState("2", 1.0, 1.0, finished=True),
            "2.0.0.1": NodeState("2", 0, 5, finished=False),
            "3": NodeState("3", 0, 1, finished=False),
        },
    )


def test_a_failure_tells_node_and_exception() -> None:
    failed = say(
        "execution_error",
        prompt_id="p",
        node_id="3",
        node_type="KSampler",
        exception_type="torch.OutOfMemoryError",
        exception_message="CUDA out of memory.\n",
        traceback=["a", "b"],
    )
    assert failed == PromptFailed(
        "p", "3", "KSampler", "torch.OutOfMemoryError", "CUDA out of memory.", ("a", "b")
    )
    assert isinstance(failed, PromptFailed)
    assert not failed.is_blocked_output


def test_a_blocked_output_is_told_from_a_failure() -> None:
    failures = [e for e in map(parse, messages("custom_blocked")) if isinstance(e, PromptFailed)]
    assert [(e.node, e.is_blocked_output) for e in failures] == [("3", True)]


class TestOldForms:
    """What versions before 0.3.45 sent, and what is sent to nobody in particular."""

    def test_executing_without_prompt_id_is_the_replay_after_a_reconnect(self) -> None:
        assert say("executing", node="12") == NodeStarted(None, "12", "12")

    def test_executing_without_display_node_names_the_node_itself(self) -> None:
        assert say("executing", prompt_id="p", node="12") == NodeStarted("p", "12", "12")

    def test_the_end_without_prompt_id_is_nobodys(self) -> None:
        assert say("executing", node=None) == PromptEnded(None)

    def test_executed_without_display_node_or_output(self) -> None:
        assert say("executed", prompt_id="p", node="9", output=None) == NodeExecuted("p", "9", "9", {})
        assert say("executed", prompt_id="p", node="9") == NodeExecuted("p", "9", "9", {})

    def test_node_ids_that_are_numbers_become_text(self) -> None:
        assert say("executing", prompt_id="p", node=12) == NodeStarted("p", "12", "12")
        assert say("progress", prompt_id="p", node=12, value=0, max=1) == NodeAdvanced("p", "12", 0, 1)

    def test_cached_nodes_may_be_missing(self) -> None:
        assert say("execution_cached", prompt_id="p") == NodesCached("p", ())


class TestBinary:
    """Four bytes of event type, then as the protocol says."""

    def test_event_1_is_a_picture_without_an_owner(self) -> None:
        assert parse(struct.pack(">II", 1, 1) + b"jpeg") == PreviewImage(None, None, "image/jpeg", b"jpeg")
        assert parse(struct.pack(">II", 1, 2) + b"png") == PreviewImage(None, None, "image/png", b"png")

    def test_event_3_is_a_text_for_the_editor(self) -> None:
        assert parse(struct.pack(">II", 3, 1) + b"5" + b"width: 16") == Ignored(None)

    def test_event_4_names_prompt_and_node(self) -> None:
        about = {"node_id": "2.0.0.1", "display_node_id": "2", "prompt_id": "p", "image_type": "image/png"}
        assert parse(with_metadata(about, b"data")) == PreviewImage("p", "2", "image/png", b"data")

    def test_event_4_does_without_display_node_and_type(self) -> None:
        assert parse(with_metadata({"node_id": "3"}, b"data")) == PreviewImage(
            None, "3", "image/jpeg", b"data"
        )

    def test_recorded_previews_are_attributed(self) -> None:
        previews = [
            e for e in map(parse, messages("ksampler_preview_metadata")) if isinstance(e, PreviewImage)
        ]
        assert len(previews) == 6
        for preview in previews:
            assert preview.prompt_id
            assert preview.node == "3"
            assert preview.data.startswith(b"\xff\xd8\xff")

    def test_other_events_are_unknown_by_number(self) -> None:
        assert parse(struct.pack(">I", 99) + b"x") == Unknown(None, "binary 99")


def with_metadata(about: Any, data: bytes) -> bytes:
    packed = json.dumps(about).encode()
    return struct.pack(">II", 4, len(packed)) + packed + data


def test_unknown_types_keep_their_name() -> None:
    assert say("crystools.monitor", cpu=3) == Unknown(None, "crystools.monitor")
    assert say("execution_paused", prompt_id="p") == Unknown("p", "execution_paused")


@pytest.mark.parametrize(
    "message",
    [
        "",
        "x",
        "null",
        "[]",
        "7",
        '"text"',
        "{}",
        '{"type": "status"}',
        '{"data": {}}',
        '{"type": "status", "data": {"status": {"exec_info": {"queue_remaining": "many"}}}}',
        '{"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 1e400}}}}',
        '{"type": "progress", "data": {"node": "1"}}',
        '{"type": "progress", "data": {"node": "1", "value": "x", "max": 1}}',
        '{"type": "progress", "data": {"node": "1", "value": null, "max": 1}}',
        '{"type": "progress", "data": {"node": "1", "value": true, "max": 1}}',
        '{"type": "progress", "data": {"node": "1", "value": NaN, "max": 1}}',
        '{"type": "progress", "data": {"node": "1", "value": 1, "max": 1e999}}',
        f'{{"type": "progress", "data": {{"node": "1", "value": 1, "max": 1{"0" * 400}}}}}',
        '{"type": "progress_state", "data": {"nodes": ["1"]}}',
        '{"type": "progress_state", "data": {"nodes": null}}',
        '{"type": "progress_state", "data": {}}',
        '{"type": "progress_state", "data": {"nodes": {"1": null}}}',
        '{"type": "progress_state", "data": {"nodes": {"1": {"value": []}}}}',
        '{"type": "execution_cached", "data": {"nodes": 5}}',
        '{"type": "execution_error", "data": {"traceback": 5}}',
        '{"type": "executing", "data": [1]}',
        b"",
        b"\0\0",
        struct.pack(">I", 1),
        struct.pack(">I", 4),
        struct.pack(">II", 4, 500) + b"{",
        struct.pack(">II", 4, 2) + b"[]",
        struct.pack(">II", 4, 4) + b"null",
    ],
)
def test_malformed_messages_are_unknown(message: str | bytes) -> None:
    event = parse(message)
    assert isinstance(event, Unknown)
    assert event.prompt_id is None


@pytest.mark.parametrize("prompt_id", [["p"], {"a": 1}, 5, None, True])
def test_a_prompt_id_that_is_no_text_is_nobodys(prompt_id: Any) -> None:
    # A list as a dictionary key once would have ended the feed for good.
    assert say("execution_start", prompt_id=prompt_id) == PromptStarted(None)
    assert parse(with_metadata({"prompt_id": prompt_id, "node_id": [1]}, b"")) == PreviewImage(
        None, None, "image/jpeg", b""
    )


@pytest.mark.parametrize("output", ["text", 5, ["a"], True])
def test_an_output_that_is_no_object_shows_nothing(output: Any) -> None:
    assert say("executed", prompt_id="p", node="9", output=output) == NodeExecuted("p", "9", "9", {})


KINDS = ["executing", "progress", "progress_state", "executed", "execution_start", "execution_cached"]
KINDS += ["execution_success", "execution_error", "execution_interrupted", "status", "feature_flags", "other"]
FIELDS = [
    "prompt_id",
    "node",
    "nodes",
    "value",
    "max",
    "output",
    "status",
    "display_node",
    "traceback",
    "node_id",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*FIELDS, "1", "exec_info"]), inner, max_size=4)
    ),
    max_leaves=8,
)
ENVELOPES = st.fixed_dictionaries(
    {"type": st.sampled_from(KINDS) | JSON, "data": st.dictionaries(st.sampled_from(FIELDS), JSON) | JSON}
)


@settings(max_examples=300, deadline=None)
@given(ENVELOPES)
def test_no_json_message_raises_and_what_counts_is_of_the_right_type(envelope: Any) -> None:
    event = parse(json.dumps(envelope))
    assert isinstance(event, Event)
    assert event.prompt_id is None or isinstance(event.prompt_id, str)
    if isinstance(event, NodeAdvanced):
        assert event.value + event.max is not None


@settings(max_examples=200, deadline=None)
@given(st.text() | st.binary(max_size=64) | st.builds(with_metadata, JSON, st.binary(max_size=4)))
@example("[" * 100_000)
@example('{"type": "progress", "data": {"node": "1", "value": ' + "9" * 5000 + ', "max": 1}}')
@example('{"type": "\\ud800", "data": {}}')
def test_no_text_and_no_bytes_raise(message: str | bytes) -> None:
    assert isinstance(parse(message), Event)


def test_a_name_that_is_not_utf8_spoils_nothing_but_itself() -> None:
    """Python writes such a file name with a lone surrogate, which the quick parser refuses with the whole message."""
    data = {
        "prompt_id": "p",
        "node": "1",
        "output": {"images": [{"filename": "caf\udce9.png"}], "\udcb0": []},
    }
    event = parse(json.dumps({"type": "executed", "data": data}))
    assert event == NodeExecuted("p", "1", "1", {"images": [{"filename": "caf\ufffd.png"}], "\ufffd": []})
    emoji = parse(json.dumps({"type": "executed", "data": data | {"output": {"text": ["\U0001f600\udc80"]}}}))
    assert emoji == NodeExecuted("p", "1", "1", {"text": ["\U0001f600\ufffd"]})
