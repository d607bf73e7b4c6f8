"""Cloudflare's Workers AI, as applications ask for it over REST."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.integration.agent import shelf
from tests.integration.agent.pictures import b64, encode, look, picture, png, unb64
from tests.integration.agent.service import Agent, Answer, MakeAgent, eventually
from tests.integration.agent.test_facades import CLOUDFLARE, cloudflare_error

SDXL = "@cf/stabilityai/stable-diffusion-xl-base-1.0"
IMG2IMG = "@cf/runwayml/stable-diffusion-v1-5-img2img"
INPAINTING = "@cf/runwayml/stable-diffusion-v1-5-inpainting"
DREAMSHAPER = "@cf/lykon/dreamshaper-8-lcm"
SCHNELL = "@cf/black-forest-labs/flux-1-schnell"

RED = (255, 0, 0)
SMALL = {"num_steps": 2, "width": 64, "height": 64}


@pytest_asyncio.fixture(loop_scope="session")
async def shelved(make_agent: MakeAgent, tmp_path: Path) -> Agent:
    return await make_agent(early_answer_seconds=0, **shelf.settings(tmp_path))


async def ask(agent: Agent, model: str, **body: Any) -> Answer:
    return await agent.call("POST", f"{CLOUDFLARE}/{model}", json=body)


def drawn(answer: Answer) -> bytes:
    """The bytes of a picture that is answered as such."""
    assert (answer.status, answer.headers["Content-Type"]) == (200, "image/png"), answer.body
    return answer.body


def result_of(answer: Answer) -> Any:
    body = answer.ok()
    assert body.keys() == {"result", "success", "errors", "messages"}
    assert (body["success"], body["errors"], body["messages"]) == (True, [], [])
    return body["result"]


def graph_of(data: bytes) -> dict[str, Any]:
    graph: dict[str, Any] = json.loads(look(data).info["prompt"])
    return graph


@pytest.mark.parametrize(
    ("model", "file", "more"),
    [
        (SDXL, "sd_xl_base_1.0.safetensors", {}),
        (DREAMSHAPER, "DreamShaper8_LCM.safetensors", {"sampler_name": "lcm", "scheduler": "sgm_uniform"}),
    ],
)
async def test_text_to_image_answers_with_a_picture(
    agent: Agent, model: str, file: str, more: dict[str, Any]
) -> None:
    how = {"negative_prompt": "a dog", "guidance": 3.5, "seed": 12, **SMALL}
    graph = graph_of(drawn(await ask(agent, model, prompt="a cat", **how)))
    assert graph["4"]["inputs"]["ckpt_name"] == file
    assert (graph["6"]["inputs"]["text"], graph["7"]["inputs"]["text"]) == ("a cat", "a dog")
    sampler = graph["3"]["inputs"]
    assert (sampler["seed"], sampler["steps"], sampler["cfg"]) == (12, 2, 3.5)
    assert more.items() <= sampler.items()
    assert (graph["5"]["inputs"]["width"], graph["5"]["inputs"]["height"]) == (64, 64)


async def test_flux_answers_with_a_jpeg_in_json(agent: Agent) -> None:
    result = result_of(await ask(agent, SCHNELL, prompt="a lizard", steps=2, width=128, height=64))
    assert result.keys() == {"image"}
    shown = look(unb64(result["image"]))
    assert (shown.format, shown.size) == ("JPEG", (128, 64))


@pytest.mark.parametrize("form", ["array", "base64", "data URI"])
async def test_image_to_image_takes_the_picture_in_each_form(agent: Agent, form: str) -> None:
    photo = encode(picture(RED, (64, 48)), "JPEG")
    sent: dict[str, Any] = {
        "array": {"image": list(photo)},
        "base64": {"image_b64": b64(photo)},
        "data URI": {"image_b64": f"data:image/jpeg;base64,{b64(photo)}"},
    }[form]
    answer = await ask(agent, IMG2IMG, prompt="a lion", strength=0.25, **SMALL, **sent)
    graph = graph_of(drawn(answer))
    assert graph["3"]["inputs"]["denoise"] == 0.25
    assert graph["3"]["inputs"]["steps"] == 2
    name = graph["10"]["inputs"]["image"]
    async with agent.engine.http.get(
        "/view",
        params={
            "filename": name.split("/")[-1],
            "type": "input",
            "subfolder": "/".join(name.split("/")[:-1]),
        },
    ) as seen:
        assert await seen.read() == photo


async def test_inpainting_takes_a_mask(agent: Agent) -> None:
    photo, mask = png(RED, (64, 64)), png((255, 255, 255), (64, 64))
    how = {"image": list(photo), "mask": list(mask), **SMALL}
    graph = graph_of(drawn(await ask(agent, INPAINTING, prompt="a hat", **how)))
    assert graph["13"]["inputs"]["image"] != graph["10"]["inputs"]["image"]
    # The models that draw from words take pictures and masks as well, as they do there.
    drawn(await ask(agent, SDXL, prompt="a hat", **how))


async def test_model_and_account_may_be_escaped_in_the_path(agent: Agent) -> None:
    escaped = DREAMSHAPER.replace("@", "%40").replace("/", "%2F")
    drawn(await ask(agent, escaped, prompt="a cat", **SMALL))


@pytest.mark.parametrize(
    ("model", "body", "said"),
    [
        (SDXL, {}, '"prompt"'),
        (SDXL, {"prompt": ""}, '"prompt"'),
        (SDXL, {"prompt": "x", "num_steps": "many"}, '"num_steps"'),
        (SDXL, {"prompt": "x", "num_steps": 1000}, '"num_steps"'),
        (SDXL, {"prompt": "x", "width": 5}, '"width"'),
        (SDXL, {"prompt": "x", "strength": 2}, '"strength"'),
        (SDXL, {"prompt": "x", "seed": -5}, '"seed"'),
        (SDXL, {"prompt": "x", "image": [300]}, '"image"'),
        (SDXL, {"prompt": "x", "image": [[1]]}, '"image"'),
        (SDXL, {"prompt": "x", "image_b64": "no base64!"}, '"image_b64"'),
        (SDXL, {"prompt": "x", "lora": "mine"}, '"lora"'),
        (IMG2IMG, {"prompt": "x"}, "needs a picture"),
        (INPAINTING, {"prompt": "x", "image": [1, 2]}, "needs a mask"),
        (SDXL, {"prompt": "x", "mask": [1, 2]}, '"image"'),
        (SCHNELL, {"prompt": "x", "image": [1, 2]}, "no picture"),
        (IMG2IMG, {"prompt": "x", "image": list(b"this is no picture")}, "picture"),
    ],
)
async def test_wrong_values_are_named_and_cost_no_gpu(
    agent: Agent, model: str, body: dict[str, Any], said: str
) -> None:
    async with agent.engine.asked(0):
        assert said in cloudflare_error(await ask(agent, model, **body), 400, 5006)


async def test_unknown_parameters_are_ignored_as_they_are_there(agent: Agent) -> None:
    drawn(await ask(agent, DREAMSHAPER, prompt="a cat", raw=True, **SMALL))


async def test_text_workflows_answer_in_the_shapes_of_their_tasks(shelved: Agent) -> None:
    llama, m2m, resnet = "@cf/meta/llama", "@cf/meta/m2m100", "@cf/microsoft/resnet-50"
    assert result_of(await ask(shelved, llama, prompt="hello")) == {"response": "You said: hello"}
    turn = [{"role": "user", "content": "hi"}]
    assert result_of(await ask(shelved, llama, messages=turn, max_tokens=5))["response"] == "You said: hi"
    talk = [{"role": "system", "content": "Be kind."}, *turn]
    said = result_of(await ask(shelved, llama, messages=talk))["response"]
    assert said == "You said: system: Be kind.\nuser: hi"
    many = [{"role": "user", "content": "x" * 20_000}] * 2
    assert '"messages"' in cloudflare_error(await ask(shelved, llama, messages=many), 400, 5006)
    translated = result_of(await ask(shelved, m2m, text="moule frites", target_lang="french"))
    assert translated == {"translated_text": "en>french: moule frites"}
    assert '"target_lang"' in cloudflare_error(await ask(shelved, m2m, text="x"), 400, 5006)
    labels = [{"label": "CAT", "score": 0.75}, {"label": "DOG", "score": 0.25}]
    assert result_of(await ask(shelved, resnet, image=list(png()))) == labels
    raw = await shelved.call("POST", f"{CLOUDFLARE}/{resnet}", data=png())
    assert result_of(raw) == labels
    assert "no picture" in cloudflare_error(await ask(shelved, llama, prompt="x", image=[1]), 400, 5006)


async def test_generated_text_can_be_streamed(shelved: Agent) -> None:
    answer = await ask(shelved, "@cf/meta/llama", prompt="hello", stream=True)
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    first, last = [line for line in answer.body.decode().split("\n\n") if line]
    assert json.loads(first.removeprefix("data: ")) == {"response": "You said: hello"}
    assert last == "data: [DONE]"


async def poll(agent: Agent, model: str, batch: str) -> Any:
    path = f"{CLOUDFLARE}/{model}?queueRequest=true"

    async def look_again() -> Any:
        found = result_of(await agent.call("POST", path, json={"request_id": batch}))
        if "responses" in found:
            return found["responses"]
        assert found["status"] in ("queued", "running")
        assert (found["request_id"], found["model"]) == (batch, model)
        return None

    return await eventually(look_again)


async def queue(agent: Agent, model: str, body: dict[str, Any]) -> Answer:
    return await agent.call("POST", f"{CLOUDFLARE}/{model}?queueRequest=true", json=body)


async def test_a_batch_is_queued_and_told_of_later(agent: Agent) -> None:
    requests = [{"prompt": "a cat", **SMALL}, {"prompt": "a dog", **SMALL}]
    queued = result_of(await queue(agent, DREAMSHAPER, {"requests": requests}))
    assert queued["status"] == "queued"
    responses = await poll(agent, DREAMSHAPER, queued["request_id"])
    assert [(item["id"], item["success"]) for item in responses] == [(0, True), (1, True)]
    prompts = [graph_of(unb64(item["result"]["image"]))["6"]["inputs"]["text"] for item in responses]
    assert prompts == ["a cat", "a dog"]
    single = result_of(
        await queue(agent, SCHNELL, {"prompt": "a cat", "steps": 1, "width": 64, "height": 64})
    )
    (alone,) = await poll(agent, SCHNELL, single["request_id"])
    assert look(unb64(alone["result"]["image"])).format == "JPEG"


async def test_a_batch_tells_of_its_failures(shelved: Agent) -> None:
    queued = result_of(await queue(shelved, "fails-late", {"requests": [{"prompt": "x"}]}))
    (failed,) = await poll(shelved, "fails-late", queued["request_id"])
    assert (failed["id"], failed["success"]) == (0, False)
    assert "raised on purpose" in failed["errors"][0]["message"]


async def test_results_that_do_not_fit_into_a_batchs_answer_are_said_to_lie_elsewhere(
    make_agent: MakeAgent,
) -> None:
    agent = await make_agent(max_answer_bytes=20_000)
    size = {"width": 64, "height": 64, "num_steps": 1}
    prompts = [f"cat {number}" for number in range(12)]
    queued = result_of(await queue(agent, SDXL, {"requests": [{"prompt": p, **size} for p in prompts]}))
    responses = await poll(agent, SDXL, queued["request_id"])
    fits = [item["success"] for item in responses]
    assert fits[0]
    assert not fits[-1]
    (error,) = responses[-1]["errors"]
    place = re.search(r"/api/tasks/batch-12-\w+-12/outputs/0", error["message"])
    assert (error["code"], place is not None) == (3006, True)
    assert place
    assert graph_of((await agent.get(place[0])).body)["6"]["inputs"]["text"] == "cat 11"


async def test_a_batch_that_has_no_room_leaves_nothing_behind(make_agent: MakeAgent, tmp_path: Path) -> None:
    agent = await make_agent(queue_size=0, concurrency=1, **shelf.settings(tmp_path))
    requests = [{"prompt": "x"}, {"prompt": "y"}]
    cloudflare_error(await queue(agent, "long", {"requests": requests}), 429, 3040)
    states = [task["state"] for task in (await agent.get("/api/tasks")).ok()["tasks"]]
    assert states == ["cancelled"]


@pytest.mark.parametrize(
    "body", [{"requests": []}, {"requests": "x"}, {"requests": [1]}, {"requests": [{}] * 101}]
)
async def test_batches_that_are_none_are_refused(agent: Agent, body: dict[str, Any]) -> None:
    assert '"requests"' in cloudflare_error(await queue(agent, SCHNELL, body), 400, 5006)


@pytest.mark.parametrize("batch", ["x", 5, f"batch-2-{'0' * 32}", "batch-999999-x", f"batch-1-{'0' * 32}\n"])
async def test_batches_that_do_not_exist_are_refused(agent: Agent, batch: Any) -> None:
    answer = await queue(agent, SCHNELL, {"request_id": batch})
    assert '"request_id"' in cloudflare_error(answer, 400, 5006)


async def test_where_instances_freeze_a_batch_needs_a_front(make_agent: MakeAgent) -> None:
    agent = await make_agent(invocation="gateway")
    answer = await queue(agent, SCHNELL, {"prompt": "x"})
    assert "AGENT_ROLE=front" in cloudflare_error(answer, 400, 3003)
    assert answer.headers["x-fc-status"] == "200", (
        "the platform would deliver it again, and nobody would hear of it"
    )


async def test_a_caller_who_leaves_takes_the_task_with_him(shelved: Agent) -> None:
    path = f"{CLOUDFLARE}/long"
    leaving = asyncio.create_task(
        shelved.call("POST", path, json={"prompt": "x"}, headers={"task-id": "cf-left"})
    )
    await shelved.running_later("cf-left")
    leaving.cancel()
    assert (await shelved.finished("cf-left"))["state"] == "cancelled"
