"""The graph: what is refused and how that is said, and what a run asks of it."""

from __future__ import annotations

import copy
import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfyui.errors import InvalidWorkflowError
from comfyui.workflow import Workflow, is_link
from tests.unit.comfyui.recordings import names, submissions

INFINITY = json.loads("1e400")


def node(class_type: str = "EmptyImage", title: str | None = None, **inputs: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"class_type": class_type, "inputs": inputs}
    return made if title is None else made | {"_meta": {"title": title}}


def chain(length: int) -> dict[str, Any]:
    """Node 0 feeds node 1, which feeds node 2, ..."""
    graph = {str(i): node("ImageInvert", image=[str(i - 1), 0]) for i in range(1, length)}
    return {"0": node()} | graph


def refusal(data: Any) -> InvalidWorkflowError:
    with pytest.raises(InvalidWorkflowError) as refused:
        Workflow.parse(data)
    return refused.value


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ([], "an array"),
        ("x", "a string"),
        (7, "a number"),
        (1.5, "a number"),
        (None, "null"),
        (True, "a boolean"),
    ],
)
def test_what_is_no_object_is_refused_with_a_hint_how_to_export(data: Any, kind: str) -> None:
    error = refusal(data)
    assert kind in str(error)
    assert "Export (API)" in str(error)


def test_the_editors_own_format_is_recognised() -> None:
    export = {"last_node_id": 9, "nodes": [{"id": 1, "type": "KSampler"}], "links": [], "version": 0.4}
    error = refusal(export)
    assert "editor's own format" in str(error)
    assert "Export (API)" in str(error)


def test_a_node_may_be_called_nodes() -> None:
    assert list(Workflow.parse({"nodes": node()}).nodes) == ["nodes"]


@pytest.mark.parametrize(
    ("graph", "node_id", "input_name"),
    [
        ({"7": []}, "7", None),
        ({"7": None}, "7", None),
        ({"7": "SaveImage"}, "7", None),
        ({"7": 1}, "7", None),
        ({"7": {}}, "7", None),
        ({"7": {"inputs": {}}}, "7", None),
        ({"7": {"class_type": "", "inputs": {}}}, "7", None),
        ({"7": {"class_type": None, "inputs": {}}}, "7", None),
        ({"7": {"class_type": 5, "inputs": {}}}, "7", None),
        ({"7": {"class_type": "A"}}, "7", None),
        ({"7": {"class_type": "A", "inputs": None}}, "7", None),
        ({"7": {"class_type": "A", "inputs": []}}, "7", None),
        ({"1": node(), "7": node(image=["9", 0])}, "7", "image"),
        ({"1": node(), "7": node(image=["", 0])}, "7", "image"),
        ({"1": node(), "7": node(image=["9", 0.0])}, "7", "image"),
        ({"1": node(), "7": node(image=["9", True])}, "7", "image"),
        ({"7": node(image=["7", 0])}, "7", "image"),
        ({"7": node(cfg=INFINITY)}, "7", "cfg"),
        ({"7": node(cfg=-INFINITY)}, "7", "cfg"),
        ({"7": node(cfg=float("nan"))}, "7", "cfg"),
        ({"7": node(curve=[0, [1, [2, [INFINITY]]]])}, "7", "curve"),
        ({"7": node(curve={"a": {"b": [{"c": INFINITY}]}})}, "7", "curve"),
        ({"7": node() | {"_meta": {"title": "x", "zoom": INFINITY}}}, "7", None),
        ({"7": node() | {"is_changed": [INFINITY]}}, "7", None),
    ],
)
def test_every_refusal_names_the_node_and_the_input(
    graph: dict[str, Any], node_id: str, input_name: str | None
) -> None:
    error = refusal(graph)
    assert (error.node_id, error.input_name) == (node_id, input_name)
    assert f'"{node_id}"' in str(error)
    assert input_name is None or f'"{input_name}"' in str(error)


def test_an_empty_graph_is_refused() -> None:
    assert "no nodes" in str(refusal({}))


def test_a_refusal_says_the_title_of_the_node_with_the_broken_link() -> None:
    assert "My saver" in str(refusal({"7": node("SaveImage", "My saver", images=["9", 0])}))


def test_what_comfyui_takes_for_a_link_is_one() -> None:
    assert [is_link(v) for v in (["1", 0], ["1", 0.0], ["1", True])] == [True] * 3
    assert [is_link(v) for v in ([1, 0], ["1"], ["1", 0, 0], ["1", "0"], "1", ("1", 0), ["1", None], {})] == [
        False
    ] * 8


def test_a_circle_is_shown_in_the_direction_of_the_data() -> None:
    graph = {"a": node(image=["c", 0]), "b": node(image=["a", 0]), "c": node(image=["b", 0]), "d": node()}
    error = refusal(graph)
    arrows = str(error).partition(": ")[2].partition(".")[0].split(" -> ")
    assert len(arrows) == 4
    assert arrows[0] == arrows[-1]
    assert all(
        (one, other) in {("a", "b"), ("b", "c"), ("c", "a")} for one, other in itertools.pairwise(arrows)
    )
    assert error.node_id in "abc"
    assert error.input_name == "image"


def test_a_circle_of_5000_nodes_is_found_and_told_in_a_few_words() -> None:
    graph = chain(5000)
    graph["0"] = node(image=["4999", 0])
    error = refusal(graph)
    assert "circle" in str(error)
    assert len(str(error)) < 500
    assert error.input_name == "image"


def test_a_circle_that_no_output_needs_is_refused_too() -> None:
    assert "circle" in str(refusal({"1": node(image=["2", 0]), "2": node(image=["1", 0]), "3": node()}))


def test_a_chain_of_5000_nodes_is_no_problem_for_anything() -> None:
    workflow = Workflow.parse(chain(5000))
    assert len(workflow.upstream(["4999"])) == 5000
    assert workflow.steps("4999") == 1
    assert len(workflow.digest()) == 64


def test_a_value_nested_deeply_is_no_problem() -> None:
    deep: Any = 1
    for _ in range(150):
        deep = [deep]
    Workflow.parse({"1": node(curve=deep)}).digest()


def test_nodes_and_links_are_what_the_graph_says() -> None:
    workflow = Workflow.parse(
        {"1": node("EmptyImage", "Canvas", width=8, tags=["a", "b"]), "2": node("SaveImage", images=["1", 0])}
    )
    assert list(workflow.nodes) == ["1", "2"]
    assert workflow.nodes["1"].title == "Canvas"
    assert workflow.nodes["2"].title == "SaveImage"
    assert list(workflow.nodes["2"].links()) == [("images", "1")]
    assert list(workflow.nodes["1"].links()) == []


@pytest.mark.parametrize("meta", [None, "x", [], {}, {"title": None}, {"title": ""}, {"title": 5}])
def test_a_node_without_a_usable_title_is_called_after_its_class(meta: Any) -> None:
    workflow = Workflow.parse({"1": node("SaveImage") | {"_meta": meta}})
    assert workflow.title("1") == "SaveImage"


@pytest.mark.parametrize(
    ("asked", "title", "origin"),
    [
        ("2", "Two", "2"),
        ("2.0.0.1", "Two", "2"),
        ("2.0.0.1.0.0.7", "Two", "2"),
        ("2.5", "Half", "2.5"),
        ("2.5.0.0.1", "Half", "2.5"),
        ("9", "9", None),
        ("9.0.0.1", "9.0.0.1", None),
        ("", "", None),
    ],
)
def test_an_expanded_node_belongs_to_the_node_it_came_from(
    asked: str, title: str, origin: str | None
) -> None:
    workflow = Workflow.parse({"2": node(title="Two"), "2.5": node(title="Half")})
    assert workflow.title(asked) == title
    assert workflow.origin(asked) == origin


def test_a_sampler_counts_its_steps() -> None:
    graph = {"1": node("EmptyLatentImage"), "3": node("KSampler", steps=25, latent_image=["1", 0])}
    workflow = Workflow.parse(graph)
    assert (workflow.steps("1"), workflow.steps("3")) == (1, 25)


def test_a_custom_sampler_counts_the_steps_of_its_scheduler() -> None:
    graph = {
        "1": node("BasicScheduler", steps=30, denoise=1.0),
        "2": node("KSamplerSelect", sampler_name="euler"),
        "3": node("SamplerCustomAdvanced", sigmas=["1", 0], sampler=["2", 0]),
    }
    workflow = Workflow.parse(graph)
    assert workflow.steps("3") == 30
    assert workflow.steps("1") == 1


@pytest.mark.parametrize("steps", [0, -5, 1001, 2**70, "20", 20.0, True, None, ["1", 0], [20]])
def test_steps_that_are_no_plausible_number_count_as_one(steps: Any) -> None:
    workflow = Workflow.parse({"1": node("PrimitiveInt", value=20), "3": node("KSampler", steps=steps)})
    assert workflow.steps("3") == 1


def test_upstream_is_the_targets_and_all_they_depend_on() -> None:
    graph = {
        "1": node(),
        "2": node(image=["1", 0]),
        "3": node(image=["2", 0], other=["1", 0]),
        "4": node(image=["1", 0]),
        "5": node(),
    }
    workflow = Workflow.parse(graph)
    assert workflow.upstream(["3"]) == {"1", "2", "3"}
    assert workflow.upstream(["4", "2"]) == {"1", "2", "4"}
    assert workflow.upstream(["5", "unknown"]) == {"5"}
    assert workflow.upstream([]) == set()


def test_changed_inputs_leave_the_workflow_as_it_was() -> None:
    graph = {"1": node(seed=-1, steps=4), "2": node("SaveImage", images=["1", 0])}
    before = copy.deepcopy(graph)
    workflow = Workflow.parse(graph)
    digest = workflow.digest()
    changed = workflow.with_inputs({("1", "seed"): 5, ("1", "steps"): 6, ("2", "filename_prefix"): "x"})
    assert changed.graph["1"]["inputs"] == {"seed": 5, "steps": 6}
    assert changed.graph["2"]["inputs"] == {"images": ["1", 0], "filename_prefix": "x"}
    assert graph == before
    assert workflow.digest() == digest
    assert changed.nodes["1"].inputs["seed"] == 5


def test_unknown_fields_of_nodes_are_kept() -> None:
    graph = {"1": node() | {"_meta": {"title": "x"}, "is_changed": [1], "extra": {"a": None}}}
    workflow = Workflow.parse(graph)
    assert workflow.with_inputs({("1", "width"): 3}).graph["1"]["extra"] == {"a": None}


def test_the_digest_does_not_depend_on_the_order_of_keys() -> None:
    one = {"1": {"class_type": "A", "inputs": {"a": 1, "b": {"c": 2, "d": 3}}}, "2": node()}
    other = {"2": node(), "1": {"inputs": {"b": {"d": 3, "c": 2}, "a": 1}, "class_type": "A"}}
    assert Workflow.parse(one).digest() == Workflow.parse(other).digest()


@pytest.mark.parametrize(
    "value",
    [
        1.0,
        True,
        "1",
        2,
        None,
        [1],
        [],
        {},
        2**64 - 1,
        2**64,
        1.0000000000000002,
        -1,
        "é",
        "e\u0301",
        " 1",
        ["1", 0],
    ],
)
def test_the_digest_tells_any_two_values_apart(value: Any) -> None:
    def digest(x: Any) -> str:
        return Workflow.parse({"1": node(), "2": node(x=x)}).digest()

    assert digest(value) != digest(1)


def test_the_digest_tells_other_changes_apart() -> None:
    graphs = [
        {"1": node(a=[1, 2])},
        {"1": node(a=[2, 1])},
        {"1": node(b=[1, 2])},
        {"2": node(a=[1, 2])},
        {"1": node("Other", a=[1, 2])},
        {"1": node(a=[1, 2], b=None)},
        {"1": node(title="x", a=[1, 2])},
        {"1": node(a=[1, 2]), "2": node()},
        {"1": node(a=2**64 - 1)},
        {"1": node(a=2**64 - 2)},
        {"1": node(a=float(2**64))},
    ]
    assert len({Workflow.parse(graph).digest() for graph in graphs}) == len(graphs)


def test_every_recorded_workflow_of_a_real_comfyui_parses() -> None:
    # Left out: the prompts that were recorded because the server dies of them.
    recordings = [
        name for name in names() if not name.startswith("worker_death") and name != "validation_errors"
    ]
    graphs = [graph for name in recordings for _, graph in submissions(name)]
    assert len(graphs) > 60
    for graph in graphs:
        Workflow.parse(graph)


def test_the_workflow_that_kills_comfyuis_worker_is_refused() -> None:
    ((_, graph), *_) = submissions("worker_death_no_inputs")
    assert '"inputs"' in str(refusal(graph))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
LINK = st.tuples(st.sampled_from("1234"), st.integers(0, 2) | st.floats() | st.booleans()).map(list)
NODE = st.fixed_dictionaries(
    {
        "class_type": st.text(min_size=1, max_size=6),
        "inputs": st.dictionaries(st.text(max_size=3), JSON | LINK, max_size=4),
    },
    optional={"_meta": JSON, "other": JSON},
)
GRAPH = st.dictionaries(st.sampled_from("1234"), NODE | JSON, max_size=4)


@settings(max_examples=300, deadline=None)
@given(JSON | GRAPH)
def test_no_json_makes_the_parser_raise_anything_else(data: Any) -> None:
    try:
        workflow = Workflow.parse(data)
    except InvalidWorkflowError as error:
        assert str(error)  # noqa: PT017 - either outcome is right
        return
    json.dumps(workflow.graph, allow_nan=False)
    for node_id in workflow.nodes:
        assert workflow.steps(node_id) >= 1
        assert workflow.title(node_id)
    assert workflow.upstream(list(workflow.nodes)) == set(workflow.nodes)
    assert len(workflow.digest()) == 64


def test_digest_tells_a_run_of_some_outputs_from_a_run_of_all() -> None:
    workflow = Workflow.parse(
        {"1": {"class_type": "A", "inputs": {}}, "2": {"class_type": "B", "inputs": {}}}
    )
    digests = {workflow.digest(), workflow.digest(["1"]), workflow.digest(["1", "2"])}
    assert len(digests) == 3
    assert workflow.digest(["2", "1"]) in digests


def test_the_digest_tells_long_texts_apart_too() -> None:
    def digest(**inputs: Any) -> str:
        return Workflow.parse({"1": node(), "2": node(**inputs)}).digest()

    one, other = "A" * 1_000_000, "A" * 999_999 + "B"
    different = [
        {"x": one},
        {"x": other},
        {"y": one},
        {"x": one, "y": other},
        {"x": other, "y": one},
        {"x": "A"},
    ]
    assert len({digest(**inputs) for inputs in different}) == len(different)
    assert digest(x=one, y=1) == digest(y=1, x=one)
    assert digest(x="\ud800" * 70_000) != digest(x="\ud801" * 70_000)
