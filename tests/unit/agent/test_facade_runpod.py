"""What a job of RunPod's may hold."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent.api.facades.runpod_jobs import _parse
from agent.errors import InvalidParameter


def parse(given: dict[str, Any], *, most: int = 1000) -> Any:
    return _parse(json.dumps({"input": given}).encode(), 100, most)


def naming(times: int) -> dict[str, Any]:
    """A job whose one picture so many inputs name."""
    inputs = {f"image{number}": "cat.png" for number in range(times)}
    picture = {"name": "cat.png", "image": f"data:,{'x' * 94}"}
    return {"workflow": {"1": {"class_type": "Batch", "inputs": inputs}}, "images": [picture]}


def test_picture_may_be_named_by_some_inputs_and_not_by_any_number() -> None:
    inputs = parse(naming(10)).workflow.nodes["1"].inputs
    assert {len(value) for value in inputs.values()} == {100}
    with pytest.raises(InvalidParameter, match="too large together") as caught:
        parse(naming(11))
    assert caught.value.facts["parameter"] == "images"


def test_names_that_mean_nothing_are_repeated_in_short() -> None:
    picture = {"name": "x" * 100_000, "image": "data:,x"}
    workflow = {"1": {"class_type": "A", "inputs": {}}}
    for given in ({"workflow": workflow, "y" * 100_000: 1}, {"workflow": workflow, "images": [picture]}):
        with pytest.raises(InvalidParameter) as caught:
            parse(given)
        assert len(json.dumps(caught.value.to_body())) < 2000
