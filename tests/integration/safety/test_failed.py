"""What comes of pictures that a run has failed to make."""

from __future__ import annotations

import pytest

from tests.integration.agent import graphs
from tests.integration.safety.conftest import UNSAFE, Engine, Hook, MakeAgent, reviewed, verdicts


def black(seed: int | None = 1) -> graphs.Graph:
    """A black picture, that of any seed."""
    if seed is None:
        return graphs.painted(0, (64, 64))
    noise = graphs.node("ImageAddNoise", image=..., seed=seed, strength=0.0)
    return graphs.chain(graphs.empty(0, (64, 64)), noise, graphs.save())


async def test_warn_flags_each_output(make_agent: MakeAgent) -> None:
    agent = await make_agent(safety_failed_images="warn")
    graph = {
        **graphs.sampled(),
        "8": graphs.empty(0x808080),
        "9": graphs.node("PreviewImage", images=["8", 0]),
    }
    task_id = await agent.begin(graph)
    record = await agent.succeeded(task_id)
    assert verdicts(record) == [("failed-image", "none", "pass"), ("failed-image", "flat", "warn")]
    flagged = record["attempts"][0]["verdicts"][1]
    assert (flagged["node_id"], flagged["output_index"], flagged["score"]) == ("9", 1, 1.0)
    assert [(w["code"], w["node_id"]) for w in record["warnings"]] == [("FailedImage", "9")]
    metrics = (await agent.get("/metrics")).body.decode()
    assert 'comfyui_agent_safety_step_seconds_count{step="failed-image"} 2.0' in metrics


async def test_new_seeds_are_tried_and_the_record_keeps_each_attempt(make_agent: MakeAgent) -> None:
    agent = await make_agent(safety_failed_images="enforce", safety_retries=2, max_attempts=1)
    error = (await agent.run(black(7), "always-black")).error(500, "FailedImage")
    assert (error["node_id"], error["category"], error["transient"]) == ("3", "black", False)
    record = await agent.task("always-black")
    assert [verdicts(record, n) for n in range(3)] == [
        [("failed-image", "black", action)] for action in ("retry", "retry", "fail")
    ]
    assert [a["remade"] for a in record["attempts"]] == [True, True, False]
    assert [a["error"]["code"] for a in record["attempts"]] == ["FailedImage"] * 3
    assert record["seeds"]["2"]["seed"] != 7


async def test_fail_does_not_try_again(make_agent: MakeAgent) -> None:
    agent = await make_agent(safety_failed_images="enforce", safety_failed_images_action="fail")
    (await agent.run(black(), "black")).error(500, "FailedImage")
    assert len((await agent.task("black"))["attempts"]) == 1


async def test_request_asks_for_it_alone(make_agent: MakeAgent) -> None:
    agent = await make_agent()
    assert (await agent.run(black(2))).status == 200
    (await agent.run({"prompt": black(3), "safety": {"failed_images": "enforce"}})).error(500, "FailedImage")


async def test_there_is_no_time_for_new_seeds(make_agent: MakeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run is not begun again where less time is left than it has just taken."""
    agent = await make_agent(safety_failed_images="enforce")
    monkeypatch.setattr("agent.worker._time_left", lambda _: 0.001)
    (await agent.run(black(12), "slow")).error(500, "FailedImage")
    assert len((await agent.task("slow"))["attempts"]) == 1


async def test_failed_picture_that_is_only_flagged_is_classified_too(
    make_agent: MakeAgent, hook: Hook, engine: Engine
) -> None:
    hook.answers = [UNSAFE]
    agent = await make_agent(**reviewed(hook, safety_failed_images="warn", safety_images_action="fail"))
    before = engine.files()
    (await agent.run(black(11), "both")).error(403, "UnsafeImage")
    assert verdicts(await agent.task("both")) == [
        ("failed-image", "black", "warn"),
        ("image-hook", "violence", "fail"),
    ]
    assert engine.files() == before
