"""A seed of -1 becomes a random one that the node takes and every JSON reader holds."""

from __future__ import annotations

from typing import Any

import pytest

from agent.seeds import LARGEST_SEED, ask_for_new_seeds, has_seeds, replace_random_seeds
from comfyui.catalog import Catalog
from comfyui.workflow import Workflow
from tests.unit.comfyui.recordings import object_info

CATALOG = Catalog(object_info())


def replaced(
    class_type: str = "KSampler", catalog: Catalog = CATALOG, **inputs: Any
) -> tuple[dict[str, Any], Any]:
    workflow = Workflow({"3": {"class_type": class_type, "inputs": inputs}})
    changed, seeds = replace_random_seeds(workflow, catalog)
    assert workflow.nodes["3"].inputs == inputs
    return dict(changed.nodes["3"].inputs), seeds


def custom(low: Any, high: Any) -> Catalog:
    return Catalog({"Custom": {"input": {"required": {"seed": ["INT", {"min": low, "max": high}]}}}})


@pytest.mark.parametrize(
    ("class_type", "name"), [("KSampler", "seed"), ("KSamplerAdvanced", "noise_seed"), ("Unknown", "seed")]
)
def test_minus_one_is_replaced_and_told(class_type: str, name: str) -> None:
    inputs, seeds = replaced(class_type, **{name: -1})
    assert seeds == {"3": {name: inputs[name]}}
    assert type(inputs[name]) is int
    assert 0 <= inputs[name] <= LARGEST_SEED


def test_seeds_differ_and_use_the_whole_range() -> None:
    drawn = {replaced(seed=-1)[0]["seed"] for _ in range(50)}
    assert len(drawn) == 50
    assert max(drawn) > 2**48


@pytest.mark.parametrize(
    "value", [0, 1, 2**53, 2**64 - 1, -2, -1.0, "-1", None, True, ["1", 0], [-1], {"a": -1}]
)
def test_every_other_value_passes_through(value: Any) -> None:
    inputs, seeds = replaced(seed=value)
    assert inputs["seed"] == value
    assert type(inputs["seed"]) is type(value)
    assert seeds == {}


def test_a_workflow_without_random_seeds_is_the_same_object() -> None:
    workflow = Workflow({"3": {"class_type": "KSampler", "inputs": {"seed": 5}}})
    assert replace_random_seeds(workflow, CATALOG)[0] is workflow


@pytest.mark.parametrize(
    ("low", "high", "allowed"),
    [
        (5, 5, range(5, 6)),
        (0, 1, range(2)),
        (-10, 3, range(4)),
        (-10, -5, range(1)),
        (2**60, 2**61, range(2**60, 2**60 + 1)),
    ],
)
def test_the_range_of_the_input_is_kept(low: int, high: int, allowed: range) -> None:
    for _ in range(20):
        inputs, _ = replaced("Custom", custom(low, high), seed=-1)
        assert inputs["seed"] in allowed


def test_a_range_as_large_as_comfyuis_is_cut_to_what_json_holds() -> None:
    assert all(replaced("Custom", custom(0, 2**64 - 1), seed=-1)[0]["seed"] <= 2**53 - 1 for _ in range(50))


def test_inputs_of_other_names_keep_their_minus_one() -> None:
    inputs, seeds = replaced(seed=1, start_at_step=-1)
    assert inputs["start_at_step"] == -1
    assert seeds == {}


def test_each_node_gets_a_seed_of_its_own() -> None:
    graph = {str(i): {"class_type": "KSampler", "inputs": {"seed": -1}} for i in range(3)}
    _, seeds = replace_random_seeds(Workflow(graph), CATALOG)
    assert list(seeds) == ["0", "1", "2"]
    assert len({seed["seed"] for seed in seeds.values()}) == 3


def test_new_seeds_are_asked_for_wherever_they_come_from() -> None:
    def node(class_type: str, **inputs: Any) -> dict[str, Any]:
        return {"class_type": class_type, "inputs": inputs}

    workflow = Workflow.parse(
        {
            "1": node("KSampler", seed=5, steps=4),
            "2": node("KSamplerAdvanced", noise_seed=["3", 0]),
            "3": node("PrimitiveInt", value=7),
            "4": node("KSampler", seed=["5", 0]),
            "5": node("Seed (rgthree)", seed=9),
            "6": node("SaveImage", images=["1", 0]),
        }
    )
    changed = ask_for_new_seeds(workflow)
    assert {n.id: dict(n.inputs) for n in changed.nodes.values()} == {
        "1": {"seed": -1, "steps": 4},
        "2": {"noise_seed": -1},
        "3": {"value": 7},
        "4": {"seed": ["5", 0]},
        "5": {"seed": -1},
        "6": {"images": ["1", 0]},
    }
    assert has_seeds(workflow)
    plain = Workflow.parse({"1": node("EmptyImage", color=0)})
    assert not has_seeds(plain)
    assert ask_for_new_seeds(plain) is plain
