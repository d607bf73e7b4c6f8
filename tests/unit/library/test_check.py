"""Whether a workflow fits an engine, by the recorded /object_info of a real ComfyUI."""

from __future__ import annotations

from typing import Any

import pytest

from agent.library.check import check, missing
from agent.library.library import Library, NamedWorkflow
from comfyui.catalog import Catalog
from tests.unit.library.shelf import GRAPH, named, object_info

CATALOG = Catalog(object_info())


def findings(workflow: NamedWorkflow) -> list[str]:
    return [found.text for found in check(workflow, CATALOG) if not found.is_missing]


def changed(node_id: str, **inputs: Any) -> dict[str, Any]:
    node = GRAPH[node_id]
    merged = {key: value for key, value in {**node["inputs"], **inputs}.items() if value is not ...}
    return {**GRAPH, node_id: {**node, "inputs": merged}}


@pytest.mark.parametrize("workflow", Library().all(), ids=lambda named: named.name)
def test_no_shipped_workflow_is_wrong(workflow: NamedWorkflow) -> None:
    """The recording knows all their classes, and hardly a model file: these are missing, and nothing is wrong."""
    assert findings(workflow) == []
    assert set(missing(workflow, CATALOG)) <= {model.file for model in workflow.manifest.models}


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (changed("3", steps=...), 'node "3" (KSampler) lacks its input steps'),
        (changed("3", steps="20"), "steps wants INT, and is '20'"),
        (changed("3", steps=20.5), "steps wants INT, and is 20.5"),
        (changed("3", steps=True), "steps wants INT, and is True"),
        (changed("3", cfg=101), "cfg is 101, beyond 0.0 to 100.0"),
        (changed("3", sampler_name="eulr"), "sampler_name is 'eulr', which is not to be chosen there"),
        (changed("3", model=["6", 0]), 'model wants MODEL, and node "6" (CLIPTextEncode) gives CONDITIONING'),
        (changed("3", model=["4", 7]), "model is linked to output 7"),
        (changed("3", model="x"), "model wants a link to MODEL, and is 'x'"),
        ({k: v for k, v in GRAPH.items() if k != "9"}, "no output node"),
    ],
)
def test_what_is_wrong_with_a_graph_is_found(graph: dict[str, Any], reason: str) -> None:
    (found,) = findings(
        named({}, graph, models=[{"folder": "checkpoints", "file": GRAPH["4"]["inputs"]["ckpt_name"]}])
    )
    assert reason in found


@pytest.mark.parametrize(
    ("parameter", "reason"),
    [
        (
            {"type": "text", "sets": "6.words", "default": "x"},
            "sets 6.words (CLIPTextEncode), which has no such input",
        ),
        ({"type": "string", "sets": "6.clip", "default": "x"}, "which is linked to another node"),
        ({"type": "image", "sets": "6.text"}, "which takes no file"),
        ({"type": "text", "sets": "3.cfg", "default": "x"}, "which is FLOAT and no text"),
        ({"type": "integer", "sets": "3.steps", "maximum": 10**9}, "to 1000000000, beyond 1 to 10000"),
        (
            {"type": "choice", "sets": "3.sampler_name", "choices": ["euler", "x"]},
            "to 'x', which is not to be chosen",
        ),
    ],
)
def test_what_is_wrong_with_a_parameter_is_found(parameter: dict[str, Any], reason: str) -> None:
    assert any(reason in found for found in findings(named({"p": parameter})))


def test_output_that_matters_has_to_be_an_output_node() -> None:
    assert any("no output node" in found for found in findings(named({}, outputs=["8"])))


def test_classes_and_model_files_that_the_engine_lacks_are_missing_and_not_wrong() -> None:
    graph = changed("4", ckpt_name="not-there.safetensors") | {
        "20": {"class_type": "NoSuchNode", "inputs": {}}
    }
    workflow = named({"model": {"type": "model", "sets": "4.ckpt_name"}}, graph)
    assert missing(workflow, CATALOG) == ["NoSuchNode", "not-there.safetensors"]
    assert findings(workflow) == []
    assert {found.text for found in check(workflow, CATALOG) if found.is_missing} == {
        "node class NoSuchNode is not there",
        'model file not-there.safetensors is not there (node "4" (CheckpointLoaderSimple), ckpt_name)',
    }
