"""Numbers, unknown fields and extra data pass through; random seeds are drawn and told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.agent import graphs
from tests.integration.agent.pictures import look
from tests.integration.agent.service import Agent, Answer

pytestmark = pytest.mark.real


def metadata(answer: Answer, node: str) -> dict[str, Any]:
    """What the engine wrote into the picture: the prompt as it got it, and extra_pnginfo."""
    texts = look(answer.results(node)[0]).info
    return {key: json.loads(texts[key]) for key in texts if key != "simulated"}


@pytest.mark.parametrize("seed", [0, 2**53 + 1, 2**63, 2**64 - 1])
async def test_seed_of_any_size_arrives_as_it_was_sent(agent: Agent, seed: int) -> None:
    answer = await agent.run(graphs.sampled(steps=1, seed=seed))
    assert metadata(answer, "7")["prompt"]["5"]["inputs"]["seed"] == seed
    assert (await agent.task(answer.headers["task-id"]))["seeds"] == {}


@pytest.mark.parametrize("written", ["1.10", "1e-7", "0.1", "123456789.123456789", "7"])
async def test_decimal_number_arrives_as_it_was_sent(agent: Agent, written: str) -> None:
    graph = graphs.chain(graphs.empty(), graphs.save())
    body = json.dumps(graph).replace('"filename_prefix"', f'"unused": {written}, "filename_prefix"')
    answer = await agent.run(body.encode())
    assert metadata(answer, "2")["prompt"]["2"]["inputs"]["unused"] == json.loads(written)


async def test_random_seed_is_drawn_told_and_used(agent: Agent) -> None:
    drawn = set()
    for _ in range(3):
        answer = await agent.run(graphs.sampled(steps=1, seed=-1))
        seed = (await agent.task(answer.headers["task-id"]))["seeds"]["5"]["seed"]
        assert metadata(answer, "7")["prompt"]["5"]["inputs"]["seed"] == seed
        assert seed >= 0
        drawn.add(seed)
    assert len(drawn) == 3


async def test_noise_seed_is_drawn_too(agent: Agent) -> None:
    graph = graphs.sampled(steps=1)
    kept = ("model", "positive", "negative", "latent_image", "steps", "cfg", "sampler_name", "scheduler")
    graph["5"] = graphs.node(
        "KSamplerAdvanced",
        **{name: graph["5"]["inputs"][name] for name in kept},
        add_noise="enable",
        noise_seed=-1,
        start_at_step=0,
        end_at_step=10000,
        return_with_leftover_noise="disable",
    )
    answer = await agent.run(graph)
    seed = (await agent.task(answer.headers["task-id"]))["seeds"]["5"]["noise_seed"]
    assert metadata(answer, "7")["prompt"]["5"]["inputs"]["noise_seed"] == seed


async def test_unknown_fields_of_a_node_and_extra_data_pass_through(agent: Agent) -> None:
    graph = graphs.painted()
    graph["2"] |= {
        "_meta": {"title": "Mine", "more": [1.5, None]},
        "is_changed": ["x"],
        "vendor": {"a": 2**60},
    }
    workflow = {"nodes": [], "version": 0.4, "big": 2**64 - 1}
    body = {"prompt": graph, "extra_data": {"extra_pnginfo": {"workflow": workflow, "mine": "ü"}}}
    found = metadata(await agent.run(body), "2")
    assert found["workflow"] == workflow
    assert found["mine"] == "ü"
    assert {k: found["prompt"]["2"][k] for k in ("_meta", "is_changed", "vendor")} == {
        k: graph["2"][k] for k in ("_meta", "is_changed", "vendor")
    }


async def test_partial_execution_targets_reach_the_engine(agent: Agent) -> None:
    graph = graphs.painted() | {"3": graphs.save("not-wanted", images=["1", 0])}
    answer = await agent.run({"prompt": graph, "partial_execution_targets": ["2"]})
    assert len(answer.results("2")) == 1
    assert "results" not in answer.json["3"]
