"""What comes of pictures that may not be shown: where the original is found afterwards, and where not."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import Any

import pytest
import redis

from tests.integration.agent import graphs
from tests.integration.agent.pictures import look, unb64
from tests.integration.safety.conftest import SAFE, UNSAFE, Engine, Hook, MakeAgent, reviewed, verdicts
from tests.object_store import Bucket
from tests.redis_server import RedisServer


def drawn(seed: int | None = None) -> graphs.Graph:
    """A picture with something in it, of 64 x 64 pixels, saved by node 7."""
    return graphs.sampled(seed=seed)


def is_blurred(data: bytes) -> bool:
    """Neighbours of a blurred picture are nearly alike."""
    pixels = look(data).convert("L")
    values = list(pixels.get_flattened_data())
    rows = (values[start : start + pixels.width] for start in range(0, len(values), pixels.width))
    return max(abs(a - b) for row in rows for a, b in pairwise(row)) < 24


def stored_in(url: str, prefix: str) -> list[bytes]:
    """Every value under the prefix, whatever its kind."""
    found: list[bytes] = []
    with redis.Redis.from_url(url) as client:
        for key in client.keys(f"{prefix}*"):
            match client.type(key):
                case b"string":
                    found.append(client.get(key))
                case b"hash":
                    found += client.hgetall(key).values()
                case b"zset" | b"set":
                    pass  # of ids
                case b"stream":
                    found += [v for _, entry in client.xrange(key) for v in entry.values()]
                case b"list":
                    found += client.lrange(key, 0, -1)
                case kind:
                    raise AssertionError(kind)
    return found


async def test_blurred_picture_is_delivered_and_the_original_is_nowhere(
    make_agent: MakeAgent, engine: Engine, hook: Hook, redis_server: RedisServer, redis_prefix: str
) -> None:
    hook.answers = [UNSAFE]
    plain = await engine.agent.run(drawn(4711))
    (picture,) = plain.results("7")
    before = {folder: engine.files(folder).keys() for folder in ("output", "temp")}
    agent = await make_agent(
        **reviewed(hook, redis_url=redis_server.url, redis_prefix=redis_prefix, pass_through=["/view"])
    )
    task_id = await agent.begin({**drawn(4711), "8": graphs.node("PreviewImage", images=["6", 0])})
    record = await agent.succeeded(task_id)
    assert verdicts(record) == [("image-hook", "violence", "blur")] * 2
    assert [v["output_index"] for v in record["attempts"][0]["verdicts"]] == [0, 1]
    assert [warning["code"] for warning in record["warnings"]] == ["ImageBlurred"] * 2
    shown = [(await agent.output(task_id, index)).body for index in (0, 1)]
    assert all(is_blurred(data) and look(data).size == (64, 64) for data in shown)
    assert not is_blurred(picture)
    assert [output["bytes"] for output in record["outputs"]] == [len(data) for data in shown]
    # Neither the engine's folders nor the store hold what was made.
    for folder, names in before.items():
        assert engine.files(folder).keys() <= names
    pixels = look(picture).tobytes()
    stored = [value for value in stored_in(redis_server.url, redis_prefix) if b"\x89PNG" in value]
    assert len(stored) == 2
    assert all(look(value[value.index(b"\x89PNG") :]).tobytes() != pixels for value in stored)
    image = record["nodes"]["7"]["images"][0]
    for query in (image, {**image, "filename": f"{image['filename']} [output]", "type": "input"}):
        (await agent.get("/view", params=query)).error(403, "FileHidden")
    assert (await agent.get(f"/api/tasks/{task_id}/preview")).status == 404
    answer = await agent.run({**drawn(4711), "8": graphs.node("PreviewImage", images=["6", 0])}, task_id)
    assert [data for node in ("7", "8") for data in answer.results(node)] == shown


async def test_running_task_whose_pictures_are_enforced_shows_no_preview(
    make_agent: MakeAgent, hook: Hook
) -> None:
    agent = await make_agent(**reviewed(hook))
    task_id = await agent.begin(graphs.sampled("v1-5-pruned-emaonly.safetensors", steps=6))
    record = await agent.succeeded(task_id)
    assert record["preview"] == 0


async def test_warn_delivers_the_picture_with_what_was_found(make_agent: MakeAgent, hook: Hook) -> None:
    hook.answers = [UNSAFE]
    agent = await make_agent(
        **reviewed(hook, safety_images="warn", safety_image_authorization="Bearer hook-key")
    )
    task_id = await agent.begin(drawn())
    record = await agent.succeeded(task_id)
    assert (hook.headers[0]["Authorization"], hook.headers[0]["Content-Type"]) == (
        "Bearer hook-key",
        "image/jpeg",
    )
    assert verdicts(record) == [("image-hook", "violence", "warn")]
    (verdict,) = record["attempts"][0]["verdicts"]
    assert (verdict["score"], verdict["node_id"]) == (0.97, "7")
    assert verdict["ms"] > 0
    assert [(w["code"], w["node_id"]) for w in record["warnings"]] == [("UnsafeImage", "7")]
    assert not is_blurred((await agent.output(task_id, 0)).body)
    assert look(hook.asked[0]).format == "JPEG"


async def test_new_seeds_make_a_picture_that_may_be_shown(
    make_agent: MakeAgent, hook: Hook, bucket: Bucket, engine: Engine
) -> None:
    """Retried, asynchronous and stored in the object store, all in one."""
    hook.answers = [UNSAFE, UNSAFE, SAFE]
    agent = await make_agent(
        **reviewed(hook, safety_images_action="retry", max_attempts=1, outputs="url", **bucket.settings())
    )
    before = engine.files()
    task_id = await agent.begin(drawn(5))
    record = await agent.succeeded(task_id)
    assert [a["outcome"] for a in record["attempts"]] == ["failed", "failed", "succeeded"]
    assert [a["remade"] for a in record["attempts"]] == [True, True, False]
    assert [a["number"] for a in record["attempts"]] == [1, 2, 3]
    assert [verdicts(record, n) for n in range(3)] == [
        [("image-hook", "violence", "retry")],
        [("image-hook", "violence", "retry")],
        [("image-hook", "none", "pass")],
    ]
    assert record["attempts"][0]["error"]["code"] == "UnsafeImage"
    assert record["warnings"] == []
    assert record["seeds"]["5"]["seed"] != 5
    assert len({look(data).tobytes() for data in hook.asked}) == 3
    assert len(bucket.keys()) == 1
    (output,) = record["outputs"]
    assert len(set(engine.files()) - set(before)) == 1, "the refused ones are gone from the engine"
    async with agent.http.get(output["signed_url"]) as response:
        assert not is_blurred(await response.read())


async def test_automatic1111_tells_the_seed_that_was_used_in_the_end(
    make_agent: MakeAgent, hook: Hook
) -> None:
    hook.answers = [UNSAFE, SAFE]
    agent = await make_agent(**reviewed(hook, safety_images_action="retry", max_attempts=1))
    body = {"prompt": "a cat", "seed": 5, "steps": 1, "width": 64, "height": 64}
    answer = (await agent.call("POST", "/sdapi/v1/txt2img", json=body)).ok()
    info = json.loads(answer["info"])
    used = json.loads(look(unb64(answer["images"][0])).info["prompt"])["3"]["inputs"]["seed"]
    assert used != 5
    assert info["all_seeds"] == [used]
    assert f"Seed: {used}, " in info["infotexts"][0]


async def test_object_store_has_what_was_delivered_and_streamed_pictures_are_reviewed_too(
    make_agent: MakeAgent, hook: Hook, bucket: Bucket
) -> None:
    hook.answers = [UNSAFE]
    agent = await make_agent(**reviewed(hook, outputs="url", **bucket.settings()))
    graph = {**drawn(), "8": graphs.node("SaveImageWebsocket", images=["6", 0])}
    task_id = await agent.begin(graph)
    record = await agent.succeeded(task_id)
    assert verdicts(record) == [("image-hook", "violence", "blur")] * 2
    assert len(bucket.keys()) == 2
    for output in record["outputs"]:
        async with agent.http.get(output["signed_url"]) as response:
            assert is_blurred(await response.read())


async def test_task_fails_when_new_seeds_do_not_help(make_agent: MakeAgent, hook: Hook) -> None:
    hook.answers = [UNSAFE]
    agent = await make_agent(**reviewed(hook, safety_images_action="retry", safety_retries=1))
    answer = await agent.run(drawn(), "never-good")
    error = answer.error(403, "UnsafeImage")
    assert (error["category"], error["node_id"], error["transient"]) == ("violence", "7", False)
    record = await agent.task("never-good")
    assert [verdicts(record, n)[0][2] for n in range(2)] == ["retry", "fail"]
    assert record["outputs"] == []
    assert (await agent.status("never-good")).error(403, "UnsafeImage")["category"] == "violence"


async def test_picture_without_a_seed_is_not_tried_again(make_agent: MakeAgent, hook: Hook) -> None:
    hook.answers = [UNSAFE]
    agent = await make_agent(**reviewed(hook, safety_images_action="retry"))
    (await agent.run(graphs.painted(), "no-seed")).error(403, "UnsafeImage")
    assert len((await agent.task("no-seed"))["attempts"]) == 1


async def test_silent_classifier_by_setting(
    make_agent: MakeAgent, hook: Hook, capsys: pytest.CaptureFixture[str]
) -> None:
    hook.status = 503
    closed = await make_agent(**reviewed(hook, safety_classifier_seconds=0.3))
    graph = drawn()
    error = (await closed.run(graph, "closed")).error(503, "ClassifierUnavailable")
    assert error["transient"] is True
    assert "503" in error["detail"]
    record = await closed.task("closed")
    assert verdicts(record) == [("image-hook", "unavailable", "fail")]
    opened = await make_agent(**reviewed(hook, safety_classifier_seconds=0.3, safety_classifier_down="open"))
    task_id = await opened.begin(drawn())
    record = await opened.succeeded(task_id)
    assert verdicts(record) == [("image-hook", "unavailable", "warn")]
    assert [warning["code"] for warning in record["warnings"]] == ["ClassifierUnavailable"]
    metrics = (await opened.get("/metrics")).body.decode()
    assert 'comfyui_agent_safety_classifier_failures_total{step="image-hook"} 1.0' in metrics
    assert 'comfyui_agent_safety_verdicts_total{action="warn",step="image-hook"} 1.0' in metrics
    said = capsys.readouterr().out
    assert "safety.classifier_down" in said
    assert "hook-secret" not in json.dumps(record) + metrics + said
    hook.status = 200
    answer = await closed.run(graph, "again")
    assert not is_blurred(answer.results("7")[0]), (
        "made again, although the engine's cache named the removed file"
    )


async def test_classifier_that_is_down_is_not_waited_for_with_each_picture(
    make_agent: MakeAgent, hook: Hook
) -> None:
    hook.gate.clear()
    agent = await make_agent(**reviewed(hook, safety_classifier_seconds=0.5, safety_classifier_down="open"))
    graph = graphs.chain(graphs.empty(size=(64, 64), batch=20), graphs.save())
    task_id = await agent.begin(graph)
    record = await agent.succeeded(task_id)
    assert len(record["outputs"]) == 20
    assert verdicts(record) == [("image-hook", "unavailable", "warn")] * 20
    assert len(hook.asked) <= 4, "as many as are asked at once"


async def test_files_of_a_task_that_ends_unreviewed_stay_hidden(make_agent: MakeAgent, hook: Hook) -> None:
    """Cancelled while its pictures are looked at; only its own request asked for that."""
    hook.gate.clear()
    agent = await make_agent(**reviewed(hook, safety_images="warn", pass_through=["/view"]))
    task_id = await agent.begin({"prompt": drawn(), "safety": {"images": "enforce"}})
    async with asyncio.timeout(30):
        while not hook.asked:
            await asyncio.sleep(0.01)
    record = (await agent.cancel(task_id)).ok()
    assert (record["state"], record["outputs"]) == ("cancelled", [])
    (image,) = record["nodes"]["7"]["images"]
    (await agent.get("/view", params=image)).error(403, "FileHidden")
    hook.gate.set()
    other = await agent.run(drawn(), "another")
    assert (await agent.get("/view", params=other.ok()["7"]["images"][0])).status == 200


@pytest.mark.parametrize(
    "answer", [b"<html>", {"labels": "none"}, {"labels": [{"category": "x", "score": 7}]}, {}]
)
async def test_answer_that_makes_no_sense_is_none(make_agent: MakeAgent, hook: Hook, answer: Any) -> None:
    hook.answers = [answer]
    agent = await make_agent(**reviewed(hook))
    (await agent.run(drawn())).error(503, "ClassifierUnavailable")
    assert len(hook.asked) == 1, "it would not be better if it was asked again"


async def test_request_may_only_ask_for_more(make_agent: MakeAgent, hook: Hook) -> None:
    hook.answers = [UNSAFE]
    agent = await make_agent(**reviewed(hook, safety_images="warn"))
    less = await agent.run({"prompt": drawn(), "safety": {"images": "off"}})
    assert less.error(400, "InvalidOptions")["option"] == "safety.images"
    unknown = await agent.run({"prompt": drawn(), "safety": {"pictures": "off"}})
    assert unknown.error(400, "InvalidOptions")["option"] == "safety.pictures"
    more = await agent.run({"prompt": drawn(), "safety": {"images": "enforce"}}, "more")
    assert is_blurred(more.results("7")[0])
    (await agent.run({"prompt": drawn(), "safety": {"images": "enforce"}}, "more")).error(409, "TaskConflict")
    named = await agent.call(
        "POST",
        "/api/workflows/text-to-image/run",
        json={"parameters": {"prompt": "a fox"}, "safety": {"images": "off"}},
    )
    named.error(400, "InvalidOptions")


async def test_request_cannot_have_reviewed_what_nothing_looks_at(make_agent: MakeAgent) -> None:
    agent = await make_agent()
    answer = await agent.run({"prompt": drawn(), "safety": {"images": "enforce"}})
    assert "AGENT_SAFETY_IMAGE_CLASSIFIERS" in answer.error(400, "InvalidOptions")["detail"]


async def test_file_that_nothing_can_look_at(make_agent: MakeAgent, hook: Hook) -> None:
    graph = {**drawn(), "8": graphs.node("SaveLatent", samples=["5", 0], filename_prefix="latent")}
    strict = await make_agent(**reviewed(hook))
    (await strict.run(graph)).error(403, "UnsafeImage")
    loose = await make_agent(**reviewed(hook, safety_other_files="pass"))
    task_id = await loose.begin(graph)
    record = await loose.succeeded(task_id)
    assert [warning["code"] for warning in record["warnings"]] == ["FileNotReviewed"]
    assert ("unseen", "unseen", "warn") in verdicts(record)


async def test_picture_with_more_pixels_than_are_decoded_counts_as_unseen(
    make_agent: MakeAgent, hook: Hook
) -> None:
    strict = await make_agent(**reviewed(hook, max_output_pixels=1000))
    (await strict.run(drawn())).error(403, "UnsafeImage")
    loose = await make_agent(**reviewed(hook, max_output_pixels=1000, safety_other_files="pass"))
    record = await loose.succeeded(await loose.begin(drawn()))
    (warning,) = record["warnings"]
    assert warning["code"] == "FileNotReviewed"
    assert "more than 1000 (AGENT_MAX_OUTPUT_PIXELS)" in warning["detail"]
    assert not hook.asked


async def test_engine_runs_the_next_prompt_while_pictures_are_reviewed(
    make_agent: MakeAgent, hook: Hook
) -> None:
    """By the order of events: the second task has been run to its end while the first one's review has no answer."""
    hook.gate.clear()
    agent = await make_agent(**reviewed(hook), concurrency=1)
    first = await agent.begin(drawn())
    async with asyncio.timeout(30):
        while not hook.asked:
            await asyncio.sleep(0.01)
    second = await agent.begin(drawn())
    ran = await agent.until(second, lambda record: "collect" in record["timings"])
    assert "run" in ran["timings"], "the engine is done with the second"
    waiting = await agent.task(first)
    assert (waiting["state"], waiting["outputs"]) == ("running", [])
    hook.gate.set()
    for task_id in (first, second):
        assert "review" in (await agent.succeeded(task_id))["timings"]


async def test_behind_a_front(
    make_agent: MakeAgent, hook: Hook, redis_server: RedisServer, redis_prefix: str
) -> None:
    hook.answers = [UNSAFE]
    shared = {"redis_url": redis_server.url, "redis_prefix": redis_prefix}
    behind = await make_agent(role="engine", **reviewed(hook, **shared))
    front = await make_agent(role="front", engine_url=behind.url, pass_through=["/view"], **shared)
    answer = await front.run(drawn(), "through")
    assert is_blurred(answer.results("7")[0])
    record = await front.task("through")
    assert verdicts(record) == [("image-hook", "violence", "blur")]
    (await front.run({"prompt": drawn(), "safety": {"images": "warn"}})).error(400, "InvalidOptions")
    await front.run({"prompt": drawn(), "safety": {"images": "enforce"}}, "stricter")
    strict_front = await make_agent(
        role="front",
        engine_url=behind.url,
        **reviewed(hook, **{**shared, "redis_prefix": f"{redis_prefix}2"}),
    )
    asked = len(hook.asked)
    (await strict_front.run({"prompt": drawn(), "safety": {"images": "off"}})).error(400, "InvalidOptions")
    assert len(hook.asked) == asked


async def test_only_this_requests_files_are_hidden_where_it_alone_is_enforced(
    make_agent: MakeAgent, hook: Hook, engine: Engine
) -> None:
    hook.answers = [UNSAFE]
    agent = await make_agent(**reviewed(hook, safety_images="warn", pass_through=["/view"]))
    free = await agent.begin(drawn())
    shown = (await agent.succeeded(free))["nodes"]["7"]["images"][0]
    assert (await agent.get("/view", params=shown)).status == 200
    task_id = await agent.begin({"prompt": drawn(), "safety": {"images": "enforce"}})
    hidden = (await agent.succeeded(task_id))["nodes"]["7"]["images"][0]
    sneaky = {**hidden, "filename": f"./{hidden['filename']}", "subfolder": "x/.."}
    for query in (hidden, sneaky):
        (await agent.get("/view", params=query)).error(403, "FileHidden")
    assert (await agent.get("/view", params=shown)).status == 200
    assert hidden["filename"] not in engine.files()
