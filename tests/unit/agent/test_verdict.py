"""From ComfyUI's answers to our errors."""

from __future__ import annotations

from typing import Any

import pytest

from agent.errors import AgentError
from agent.verdict import blocked_warning, failure_of, rejection_of, warnings_of
from comfyui.errors import PromptRejectedError
from comfyui.events import PromptFailed
from comfyui.events import PromptInterrupted as Interrupted
from comfyui.execution import Ended, Result
from comfyui.workflow import Workflow
from tests.unit.comfyui.recordings import steps

WORKFLOW = Workflow(
    {
        "3": {"class_type": "KSampler", "inputs": {}, "_meta": {"title": "My sampler"}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0]}},
    }
)


def failed(
    exception_type: str = "RuntimeError", message: str = "boom", node: str = "3", lines: int = 3
) -> PromptFailed:
    return PromptFailed(
        "p", node, "KSampler", exception_type, message, tuple(f"line {i}" for i in range(lines))
    )


@pytest.mark.parametrize(
    ("result", "error", "code", "transient"),
    [
        (Result.SUCCEEDED, None, None, None),
        (Result.LOST, None, "EngineLostPrompt", True),
        (Result.STALLED, None, "EngineStalled", True),
        (Result.INTERRUPTED, Interrupted("p", "3"), "PromptInterrupted", False),
        (Result.INTERRUPTED, None, "PromptInterrupted", False),
        (Result.FAILED, None, "NodeFailed", False),
        (Result.FAILED, failed(), "NodeFailed", False),
        (Result.FAILED, failed("torch.OutOfMemoryError"), "OutOfMemory", True),
        (Result.FAILED, failed("torch.cuda.OutOfMemoryError"), "OutOfMemory", True),
        (Result.FAILED, failed("MemoryError"), "OutOfMemory", True),
        (Result.FAILED, failed("torch.AcceleratorError"), "GpuBroken", True),
        (Result.FAILED, failed("RuntimeError", "CUDA error: an illegal memory access"), "GpuBroken", True),
        (Result.FAILED, failed("RuntimeError", "You wrote: CUDA error: x"), "NodeFailed", False),
        (Result.FAILED, failed("ValueError", "CUDA error: x"), "NodeFailed", False),
        (Result.FAILED, failed("ValueError", "out of memory, says the node"), "NodeFailed", False),
        (Result.FAILED, failed("custom.MemoryError"), "NodeFailed", False),
    ],
)
def test_each_end_comes_to_its_error(
    result: Result, error: Any, code: str | None, transient: bool | None
) -> None:
    found = failure_of(Ended("p", result, error), WORKFLOW)
    assert (found.code if found else None) == code
    assert (found.transient if found else None) == transient


def test_every_result_has_a_verdict() -> None:
    for result in Result:
        found = failure_of(Ended("p", result), WORKFLOW)
        assert (found is None) is (result is Result.SUCCEEDED)
        assert found is None or found.status >= 500


def test_a_failed_node_is_described_whole() -> None:
    error = failure_of(Ended("p", Result.FAILED, failed(lines=50)), WORKFLOW)
    assert error
    assert error.detail == 'Node "3" (My sampler) failed: RuntimeError: boom'
    facts = error.facts
    assert facts["traceback"] == [f"line {i}" for i in range(38, 50)]
    del facts["traceback"]
    assert facts == {
        "node_id": "3",
        "node_class": "KSampler",
        "node_title": "My sampler",
        "exception_type": "RuntimeError",
        "exception_message": "boom",
    }


def test_an_expanded_node_is_called_after_its_origin() -> None:
    error = failure_of(Ended("p", Result.FAILED, failed(node="3.0.0.2")), WORKFLOW)
    assert error
    assert (error.facts["node_id"], error.facts["node_title"]) == ("3.0.0.2", "My sampler")


def recorded_refusals() -> list[Any]:
    found = []
    for step in steps("validation_errors"):
        http = step.get("http", {})
        if http.get("method") == "POST" and http.get("path") == "/prompt" and http.get("status") == 400:
            found.append((http["json"].get("prompt"), http["response_json"]))
    return found


def test_every_recorded_refusal_becomes_a_sentence() -> None:
    refusals = recorded_refusals()
    assert len(refusals) > 10
    for graph, answer in refusals:
        nodes = {
            n: v
            for n, v in (graph or {}).items()
            if isinstance(v, dict) and v.get("class_type") and "inputs" in v
        }
        error = rejection_of(PromptRejectedError(answer["error"], answer["node_errors"]), Workflow(nodes))
        assert error.status == 400
        assert error.code in ("WorkflowRejected", "UnknownNodeClass")
        assert error.facts["comfyui"] == answer["error"]
        assert len(error.detail) > 20
        if answer["node_errors"]:
            assert error.facts["node_errors"] == answer["node_errors"]
            assert error.facts["node_id"] in answer["node_errors"]
        if answer["error"]["type"] == "invalid_prompt":
            assert error.code == "UnknownNodeClass"


def test_a_refusal_names_node_title_and_reason() -> None:
    node_errors = {
        "3": {
            "errors": [
                {
                    "type": "value_not_in_list",
                    "message": "Value not in list",
                    "details": "sampler_name: 'x' not in ['a']",
                },
                {
                    "type": "required_input_missing",
                    "message": "Required input is missing",
                    "details": "model",
                },
            ],
            "dependent_outputs": ["9"],
            "class_type": "KSampler",
        }
    }
    error = rejection_of(PromptRejectedError({"type": "t", "message": "m"}, node_errors), WORKFLOW)
    assert error.detail == (
        "ComfyUI refused the workflow: node \"3\" (My sampler): Value not in list: sampler_name: 'x' not in ['a']; "
        'node "3" (My sampler): Required input is missing: model.'
    )
    assert (error.facts["node_id"], error.facts["node_title"]) == ("3", "My sampler")


def test_only_the_first_problems_are_spelt_out() -> None:
    node_errors = {str(i): {"errors": [{"message": f"problem {i}"}]} for i in range(50)}
    error = rejection_of(PromptRejectedError({}, node_errors), WORKFLOW)
    assert error.detail.count("problem") == 5
    assert len(error.facts["node_errors"]) == 50


@pytest.mark.parametrize(
    ("answer", "node_errors", "code"),
    [
        (
            {"type": "invalid_prompt", "message": "Cannot execute", "details": "Node ID '#2'"},
            {},
            "UnknownNodeClass",
        ),
        (
            {"type": "missing_node_type", "message": "Node 'X' not found", "details": "Node ID '#2'"},
            {},
            "UnknownNodeClass",
        ),
        ({"type": "prompt_no_outputs", "message": "Prompt has no outputs"}, {}, "WorkflowRejected"),
        (
            {
                "type": "prompt_outputs_failed_validation",
                "message": "Prompt outputs failed validation",
                "details": "",
            },
            {},
            "WorkflowRejected",
        ),
        ({"type": "dependency_cycle", "message": "Dependency cycle"}, {}, "WorkflowRejected"),
        ({}, {}, "WorkflowRejected"),
        ({"message": "no prompt"}, {"3": {}}, "WorkflowRejected"),
    ],
)
def test_a_refusal_without_reasons_still_says_something(answer: Any, node_errors: Any, code: str) -> None:
    error = rejection_of(PromptRejectedError(answer, node_errors), WORKFLOW)
    assert error.code == code
    assert len(error.detail) > 5


def test_dropped_branches_become_warnings() -> None:
    node_errors = {
        "3": {
            "errors": [{"message": "Bad", "details": "x"}, {"message": "Worse"}],
            "dependent_outputs": ["9"],
        }
    }
    assert warnings_of(node_errors, WORKFLOW) == [
        {
            "code": "NodeRejected",
            "detail": 'ComfyUI left out what depends on node "3" (My sampler): Bad: x; Worse',
            "node_id": "3",
            "dependent_outputs": ["9"],
            "errors": node_errors["3"]["errors"],
        }
    ]
    assert warnings_of({}, WORKFLOW) == []


def test_a_blocked_output_becomes_a_warning() -> None:
    warning = blocked_warning(failed("ExecutionBlocked", "Execution Blocked: not today", node="9"), WORKFLOW)
    assert warning == {
        "code": "OutputBlocked",
        "detail": 'Node "9" (SaveImage) gave no output: Execution Blocked: not today',
        "node_id": "9",
    }


def test_errors_survive_their_way_through_a_record() -> None:
    for kind in AgentError.by_code.values():
        error = kind(None, node_id="3", limit=5)
        again = AgentError.from_dict(error.to_dict())
        assert type(again) is kind
        assert (again.detail, again.facts) == (error.detail, error.facts)
