"""From bytes to a run request: what is a workflow, what an envelope, and how a mistake is named."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.admission import RunRequest
from agent.api.parse import (
    INLINE_BYTES,
    INPUTS_PER_NODE,
    check_envelope,
    check_task_id,
    find_task_id,
    parse_envelope,
)
from agent.errors import (
    AgentError,
    InvalidJson,
    InvalidOptions,
    InvalidTaskId,
    InvalidWorkflow,
    WorkflowTooLarge,
)

MAX_NODES = 100

GRAPH: dict[str, Any] = {"1": {"class_type": "EmptyImage", "inputs": {"width": 8}}}


def parse_body(body: bytes) -> RunRequest:
    return check_envelope(parse_envelope(body), MAX_NODES)


async def parse(data: Any) -> Any:
    return parse_body(data if isinstance(data, bytes) else json.dumps(data).encode())


async def refusal(data: Any) -> AgentError:
    with pytest.raises(AgentError) as refused:
        await parse(data)
    return refused.value


async def test_a_bare_workflow_and_an_envelope_are_the_same() -> None:
    bare, wrapped = await parse(GRAPH), await parse({"prompt": GRAPH})
    assert bare.workflow.graph == wrapped.workflow.graph == GRAPH
    assert bare.digest == wrapped.digest
    assert bare.extra_data == bare.options == wrapped.options == {}


async def test_options_go_to_the_engine_and_ids_of_other_clients_do_not() -> None:
    request = await parse(
        {
            "prompt": GRAPH,
            "extra_data": {"extra_pnginfo": {"workflow": {"a": None}}},
            "front": True,
            "number": 2.5,
            "partial_execution_targets": ["1"],
            "client_id": "x",
            "prompt_id": 5,
        }
    )
    assert request.extra_data == {"extra_pnginfo": {"workflow": {"a": None}}}
    assert request.options == {"front": True, "number": 2.5, "partial_execution_targets": ["1"]}


@pytest.mark.parametrize(
    "name", ["extra_data", "front", "number", "partial_execution_targets", "client_id", "prompt_id"]
)
async def test_an_option_that_is_null_is_not_set(name: str) -> None:
    request = await parse({"prompt": GRAPH, name: None})
    assert (request.extra_data, request.options) == ({}, {})


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("fron", True, "fron"),
        ("node", {}, "node"),
        ("3", GRAPH["1"], "3"),
        ("front", "yes", "front"),
        ("front", 1, "front"),
        ("number", "first", "number"),
        ("number", [1], "number"),
        ("extra_data", [], "extra_data"),
        ("extra_data", "x", "extra_data"),
        ("partial_execution_targets", "1", "partial_execution_targets"),
        ("partial_execution_targets", ["1", 2], "partial_execution_targets.1"),
    ],
)
async def test_a_wrong_option_is_named(name: str, value: Any, named: str) -> None:
    error = await refusal({"prompt": GRAPH, name: value})
    assert isinstance(error, InvalidOptions)
    assert error.facts["option"] == named
    assert f'"{named}"' in error.detail
    assert ("unknown option" in error.detail) is (name in ("fron", "node", "3"))


@pytest.mark.parametrize(
    "body",
    [
        b'{"prompt": %s, "number": 1e400}',
        b'{"prompt": %s, "extra_data": {"a": [1e400]}}',
    ],
)
async def test_an_infinite_number_among_the_options_is_refused(body: bytes) -> None:
    assert isinstance(await refusal(body % json.dumps(GRAPH).encode()), InvalidOptions)


@pytest.mark.parametrize("word", ["workflow", "graph", "input"])
async def test_another_word_than_prompt_is_told_the_right_one(word: str) -> None:
    error = await refusal({word: GRAPH})
    assert isinstance(error, InvalidWorkflow)
    assert f'under "{word}", but the word is "prompt"' in error.detail
    assert 'Node "workflow"' in (await refusal({"workflow": {"nodes": [], "links": []}})).detail
    assert list((await parse({word: GRAPH["1"]})).workflow.nodes) == [word]  # a node may be called so


async def test_a_node_may_be_called_prompt() -> None:
    graph = GRAPH | {"prompt": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}}}
    request = await parse(graph)
    assert list(request.workflow.nodes) == ["1", "prompt"]
    assert list((await parse({"prompt": graph})).workflow.nodes) == ["1", "prompt"]
    assert list((await parse({"prompt": GRAPH["1"]})).workflow.nodes) == ["prompt"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"{'a': 1}",
        b"\xff",
        b"NaN",
        b'{"1": Infinity}',
        b"[" * 100_000,
        b"undefined",
        b'{"a":1}}',
    ],
)
async def test_what_is_not_json_is_refused_as_such(body: bytes) -> None:
    error = await refusal(body)
    assert isinstance(error, InvalidJson)
    assert len(error.detail) < 300


@pytest.mark.parametrize(
    "data", [[], "x", 5, None, True, {}, {"prompt": None}, {"prompt": []}, {"prompt": {}}, {"prompt": "{}"}]
)
async def test_json_that_is_no_workflow_is_refused_as_such(data: Any) -> None:
    assert isinstance(await refusal(data), InvalidWorkflow)


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"prompt": x}])
async def test_the_editors_export_is_recognised_with_and_without_envelope(wrap: Any) -> None:
    error = await refusal(wrap({"nodes": [], "links": [], "version": 0.4}))
    assert isinstance(error, InvalidWorkflow)
    assert "Export (API)" in error.detail


@pytest.mark.parametrize(
    "value", [b"1e400", b"-1e400", b'{"a": {"b": 1e400}}', b"[1, [2, [[[1e400]]]]]", b'["x", 1e400]']
)
async def test_an_infinite_number_is_refused_wherever_it_is(value: bytes) -> None:
    error = await refusal(b'{"7": {"class_type": "A", "inputs": {"x": %s}}}' % value)
    assert isinstance(error, InvalidWorkflow)
    assert error.facts["node_id"] == "7"
    assert error.facts["input"] == "x"


async def test_an_infinite_number_beside_the_inputs_is_refused_too() -> None:
    error = await refusal(b'{"7": {"class_type": "A", "inputs": {}, "_meta": {"pos": [1e400]}}}')
    assert isinstance(error, InvalidWorkflow)
    assert error.facts == {"node_id": "7"}


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"prompt": x}])
async def test_nodes_are_counted_before_they_are_looked_at(wrap: Any) -> None:
    most = {str(n): {"class_type": "A", "inputs": {}} for n in range(MAX_NODES)}
    assert len((await parse(wrap(most))).workflow.nodes) == MAX_NODES
    error = await refusal(wrap(most | {"one more": "no node at all"}))
    assert isinstance(error, WorkflowTooLarge)
    assert error.facts == {"limit": MAX_NODES}


async def test_inputs_are_counted_too() -> None:
    links = {f"in{n}": ["0", n] for n in range(INPUTS_PER_NODE * MAX_NODES)}
    made = {"0": {"class_type": "A", "inputs": {}}, "1": {"class_type": "A", "inputs": links}}
    assert len((await parse(made)).workflow.nodes["1"].inputs) == len(links)
    links["one more"] = ["0", 0]
    error = await refusal(made)
    assert isinstance(error, WorkflowTooLarge)
    assert error.facts == {"limit": INPUTS_PER_NODE * MAX_NODES}


async def test_numbers_are_kept_exactly() -> None:
    request = await parse(
        b'{"1": {"class_type": "A", "inputs": {"a": 18446744073709551615, "b": 9007199254740993, "c": 1.0}}}'
    )
    inputs = request.workflow.nodes["1"].inputs
    assert inputs == {"a": 2**64 - 1, "b": 2**53 + 1, "c": 1.0}
    assert type(inputs["c"]) is float


async def test_a_large_body_is_parsed_as_a_small_one() -> None:
    graph = {"1": {"class_type": "LoadImage", "inputs": {"image": "A" * (INLINE_BYTES + 1)}}}
    assert (await parse(graph)).workflow.graph == graph
    assert isinstance(await refusal(b"[" + b" " * INLINE_BYTES), InvalidJson)


@pytest.mark.parametrize(
    "given_id", ["a", "9", "_", "A-b_c.d:e", "t-123", "x" * 128, "0" * 128, "a..", "a:b"]
)
def test_task_ids_that_are_allowed(given_id: str) -> None:
    assert check_task_id(given_id) == given_id


@pytest.mark.parametrize(
    "given_id",
    [
        "",
        "x" * 129,
        "-a",
        ".a",
        ":a",
        "..",
        "../../x",
        "/etc/passwd",
        "a/b",
        "a\\b",
        "a b",
        " a",
        "a\n",
        "a\0",
        "é",
        "%2e",
        "a;b",
        "a\r\nx: y",
        "*",
        "a,b",
    ],
)
def test_task_ids_that_are_not(given_id: str) -> None:
    with pytest.raises(InvalidTaskId):
        check_task_id(given_id)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"task-id": "mine"}, "mine"),
        ({"Task-Id": "mine"}, "mine"),
        ({"x-fc-async-task-id": "theirs"}, "theirs"),
        ({"task-id": "mine", "x-fc-async-task-id": "theirs"}, "mine"),
    ],
)
def test_the_callers_task_id_comes_before_the_platforms(
    headers: dict[str, str], expected: str | None
) -> None:
    assert find_task_id(make_mocked_request("POST", "/api/run", headers=headers)) == expected


@pytest.mark.parametrize(
    "headers", [{"task-id": ""}, {"task-id": "", "x-fc-async-task-id": "theirs"}, {"task-id": "../x"}]
)
def test_a_task_id_that_cannot_be_one_is_refused_not_replaced(headers: dict[str, str]) -> None:
    with pytest.raises(InvalidTaskId):
        find_task_id(make_mocked_request("POST", "/api/run", headers=headers))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["prompt", "inputs", "class_type", "nodes", "1", "extra_data"]), inner, max_size=4
        )
    ),
    max_leaves=10,
)


@settings(max_examples=300, deadline=None)
@given(JSON.map(lambda data: json.dumps(data).encode()) | st.binary(max_size=40))
async def test_no_body_raises_anything_but_our_errors(body: bytes) -> None:
    try:
        request = parse_body(body)
    except AgentError as error:
        assert error.status == 400  # noqa: PT017 - either outcome is right
        return
    json.dumps([request.workflow.graph, request.extra_data, request.options], allow_nan=False)
