"""OpenAI's Images API, as its official client asks for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, get_args

import openai
import pytest
import pytest_asyncio
from openai.types import ImageModel

from agent.api.facades.models import OPENAI_MODELS
from tests.integration.agent import shelf
from tests.integration.agent.pictures import b64, color_of, encode, look, picture, png, unb64
from tests.integration.agent.service import PATIENCE_SECONDS, Agent, MakeAgent, eventually
from tests.object_store import Bucket, call

RED, BLUE = (255, 0, 0), (0, 0, 255)
KEY = "the-agents-key"
SMALL: dict[str, Any] = {"model": "gpt-image-1", "size": "256x256", "quality": "low"}


def client_of(agent: Agent, **how: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=f"{agent.url}/v1", **{"api_key": KEY, "timeout": PATIENCE_SECONDS, "max_retries": 0, **how}
    )


@pytest_asyncio.fixture(loop_scope="session")
async def client(agent: Agent) -> AsyncIterator[openai.AsyncOpenAI]:
    async with client_of(agent) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session")
async def shelved(make_agent: MakeAgent, tmp_path: Path) -> Agent:
    return await make_agent(early_answer_seconds=0, **shelf.settings(tmp_path))


def pictures_of(answer: Any) -> list[bytes]:
    return [unb64(item.b64_json) for item in answer.data]


def graph_of(data: bytes) -> dict[str, Any]:
    graph: dict[str, Any] = json.loads(look(data).info["prompt"])
    return graph


async def test_pictures_come_as_base64_and_each_is_a_task_of_its_own(
    agent: Agent, client: openai.AsyncOpenAI
) -> None:
    named = {"task-id": "two-cats"}
    answer = await client.images.generate(prompt="a cat", n=2, extra_headers=named, **SMALL)
    first, second = pictures_of(answer)
    assert look(first).size == look(second).size == (256, 256)
    assert first != second
    assert (answer.output_format, answer.quality, answer.background) == ("png", "low", "opaque")
    for task_id in ("two-cats-1", "two-cats-2"):
        assert (await agent.task(task_id))["workflow_name"] == "text-to-image"


def test_every_model_of_the_official_client_has_a_workflow() -> None:
    assert set(OPENAI_MODELS) == set(get_args(ImageModel))


async def test_blocking_client_works_too(agent: Agent) -> None:
    def draw() -> tuple[bytes, list[str]]:
        with openai.OpenAI(base_url=f"{agent.url}/v1", api_key=KEY, max_retries=0) as client:
            answer = client.images.generate(prompt="a dog", **SMALL)
            edited = client.images.edit(image=png(RED, (64, 64)), prompt="a cat", **SMALL)
            assert look(*pictures_of(edited)).format == "PNG"
            return pictures_of(answer)[0], [model.id for model in client.models.list()]

    data, names = await asyncio.to_thread(draw)
    assert look(data).format == "PNG"
    assert {"gpt-image-1", "gpt-image-2.5-flare"} <= set(names)


async def test_models_are_listed_and_shown(client: openai.AsyncOpenAI) -> None:
    names = [model.id async for model in client.models.list()]
    assert "gpt-image-1-mini" in names
    shown = await client.models.retrieve("@cf/black-forest-labs/flux-1-schnell")
    assert (shown.id, shown.object) == ("@cf/black-forest-labs/flux-1-schnell", "model")
    assert (await client.models.retrieve("gpt-image-9")).id == "gpt-image-9"
    with pytest.raises(openai.NotFoundError) as caught:
        await client.models.retrieve("whisper-1")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(("kind", "found"), [("jpeg", "JPEG"), ("webp", "WEBP"), ("png", "PNG")])
async def test_format_and_compression_are_those_asked_for(
    client: openai.AsyncOpenAI, kind: Any, found: str
) -> None:
    sizes = []
    for compression in (90, 10):
        answer = await client.images.generate(
            prompt="a cat", output_format=kind, output_compression=compression, **SMALL
        )
        (data,) = pictures_of(answer)
        assert look(data).format == found
        sizes.append(len(data))
    assert kind == "png" or sizes[0] > sizes[1]


@pytest.mark.parametrize(("quality", "steps"), [("low", 10), ("medium", 20), ("high", 30), ("auto", 20)])
async def test_quality_is_the_number_of_steps(client: openai.AsyncOpenAI, quality: Any, steps: int) -> None:
    how = {**SMALL, "quality": quality, "size": "64x64"}
    (data,) = pictures_of(await client.images.generate(prompt="a cat", **how))
    assert graph_of(data)["3"]["inputs"]["steps"] == steps


async def test_without_a_size_the_table_of_models_says_it(client: openai.AsyncOpenAI) -> None:
    (data,) = pictures_of(await client.images.generate(prompt="a cat", model="gpt-image-1", quality="low"))
    assert look(data).size == (1024, 1024)
    assert graph_of(data)["4"]["inputs"]["ckpt_name"] == "sd_xl_base_1.0.safetensors"


async def test_urls_lead_to_the_pictures_while_no_key_is_needed(
    agent: Agent, client: openai.AsyncOpenAI
) -> None:
    for how in ({**SMALL, "model": "dall-e-3"}, {**SMALL, "response_format": "url"}):
        answer = await client.images.generate(prompt="a cat", **how)
        assert answer.data is not None
        assert (answer.data[0].url or "").startswith(f"{agent.url}/api/tasks/")
        async with agent.http.get(str(answer.data[0].url)) as response:
            assert look(await response.read()).size == (256, 256)
    async with agent.http.post(
        f"{agent.url}/v1/images/generations",
        json={"prompt": "a cat", **SMALL, "response_format": "url"},
        headers={"X-Forwarded-Proto": "https"},
    ) as response:
        assert (await response.json())["data"][0]["url"].startswith("https://127.0.0.1:")


async def test_urls_are_signed_by_the_object_store(make_agent: MakeAgent, bucket: Bucket) -> None:
    agent = await make_agent(api_keys=[KEY], **bucket.settings())
    async with client_of(agent) as client:
        answer = await client.images.generate(prompt="a cat", response_format="url", **SMALL)
        assert answer.data is not None
        url = str(answer.data[0].url)
        assert url.startswith(bucket.server.url)
        assert look((await asyncio.to_thread(call, url))[1]).size == (256, 256)
        inline = await client.images.generate(prompt="a cat", response_format="b64_json", **SMALL)
        assert look(*pictures_of(inline)).size == (256, 256)


async def test_urls_that_would_need_the_key_are_refused(make_agent: MakeAgent) -> None:
    agent = await make_agent(api_keys=[KEY])
    async with client_of(agent) as client:
        with pytest.raises(openai.BadRequestError, match="AGENT_OBJECT_STORE") as caught:
            await client.images.generate(prompt="a cat", model="dall-e-3")
        assert caught.value.param == "response_format"
    async with client_of(agent, api_key="wrong") as client:
        with pytest.raises(openai.AuthenticationError) as denied:
            await client.models.list()
        assert denied.value.code == "invalid_api_key"


async def test_an_edit_takes_the_picture_along(agent: Agent, client: openai.AsyncOpenAI) -> None:
    photo = png((1, 2, 3), (64, 48))
    how = {"model": "gpt-image-1", "quality": "low", "prompt": "a lion", "size": "256x256"}
    for image in (photo, [photo]):
        answer = await client.images.edit(image=image, **how)
        graph = graph_of(*pictures_of(answer))
        assert graph["6"]["inputs"]["text"] == "a lion"
        assert graph["11"]["inputs"]["megapixels"] == 0.0625  # of 256x256
    body = {**how, "images": [{"image_url": f"data:image/png;base64,{b64(photo)}"}]}
    posted = await agent.call("POST", "/v1/images/edits", json=body)
    assert graph_of(unb64(posted.ok()["data"][0]["b64_json"]))["6"]["inputs"]["text"] == "a lion"


def half_transparent(color: tuple[int, int, int], size: tuple[int, int] = (8, 8)) -> bytes:
    """Its left half is transparent."""
    image = picture((*color, 255), size, "RGBA")
    image.paste((0, 0, 0, 0), (0, 0, size[0] // 2, size[1]))
    return encode(image)


async def test_what_is_transparent_in_the_mask_is_drawn_anew(shelved: Agent) -> None:
    """The workflow shows a second picture where its mask is white."""
    async with client_of(shelved) as client:
        pictures = [("a.png", png(RED)), ("b.png", png(BLUE))]
        mask = half_transparent((9, 9, 9))
        masked = await client.images.edit(image=pictures, mask=mask, prompt="x", model="blend")
        (data,) = pictures_of(masked)
        assert [look(data).convert("RGB").getpixel((x, 4)) for x in (1, 6)] == [BLUE, RED]
        with pytest.raises(openai.BadRequestError) as caught:
            await client.images.edit(image=pictures, mask=png(RED), prompt="x", model="blend")
        assert caught.value.param == "mask"


async def test_with_dall_e_2_the_pictures_own_transparency_is_the_mask(shelved: Agent) -> None:
    async with client_of(shelved) as client:
        images = [("a.png", half_transparent(RED)), ("b.png", png(BLUE))]
        masked = await client.images.edit(
            image=images, prompt="x", model="dall-e-2", response_format="b64_json"
        )
        left = look(*pictures_of(masked)).convert("RGB").getpixel((1, 4))
        opaque = await client.images.edit(
            image=[("a.png", png(RED)), ("b.png", png(BLUE))],
            prompt="x",
            model="dall-e-2",
            response_format="b64_json",
        )
    assert left == BLUE
    assert color_of(*pictures_of(opaque)) not in (RED, BLUE)  # blended: no mask was found


@pytest.mark.parametrize(
    ("how", "param"),
    [
        ({"size": "big"}, "size"),
        ({"size": "9999x9999"}, "size"),
        ({"n": 11}, "n"),
        ({"background": "transparent"}, "background"),
        ({"output_format": "gif"}, "output_format"),
        ({"extra_body": {"svg": {"model": "x"}}}, "svg"),
        ({"stream": True, "n": 2}, "n"),
        ({"prompt": ""}, "prompt"),
        ({"response_format": "url", "output_format": "webp"}, "output_format"),
    ],
)
async def test_what_cannot_be_done_is_refused_by_name(
    client: openai.AsyncOpenAI, agent: Agent, how: dict[str, Any], param: str
) -> None:
    async with agent.engine.asked(0):
        with pytest.raises(openai.BadRequestError) as caught:
            await client.images.generate(**{"prompt": "a cat", **SMALL, **how})
    assert (caught.value.param, caught.value.type) == (param, "invalid_request_error")


async def test_more_pictures_than_the_workflow_takes_are_refused(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="1 picture at most") as caught:
        await client.images.edit(image=[png(RED), png(BLUE)], prompt="x", model="gpt-image-1")
    assert caught.value.param == "image"


@pytest.mark.parametrize(
    "reference", [{"image_url": "example.png"}, {"image_url": "s3://bucket/x"}, {"file_id": "f"}]
)
async def test_an_edit_names_pictures_by_url_alone(agent: Agent, reference: dict[str, str]) -> None:
    body = {"prompt": "x", "model": "gpt-image-1", "images": [reference]}
    answer = await agent.call("POST", "/v1/images/edits", json=body)
    error = answer.json["error"]
    assert (answer.status, error["param"].partition(".")[0]) == (400, "images")
    assert ("keeps no files" if "file_id" in reference else "http(s) URL") in error["message"]


async def test_an_edit_without_a_picture_is_refused(agent: Agent) -> None:
    body = {"prompt": "x", "model": "gpt-image-1"}
    for how in ({"json": body}, {"data": body}):
        answer = await agent.call("POST", "/v1/images/edits", **how)
        assert 400 <= answer.status < 500
        assert answer.json["error"]["type"] == "invalid_request_error"


async def test_a_failure_is_not_tried_again_by_the_client_unless_that_may_help(shelved: Agent) -> None:
    async with client_of(shelved, max_retries=2) as client:
        async with shelved.engine.asked(1):
            with pytest.raises(openai.InternalServerError, match="raised on purpose") as caught:
                await client.images.generate(prompt="x", model="fails-late")
        assert caught.value.code == "NodeFailed"


async def test_a_full_queue_is_a_rate_limit(make_agent: MakeAgent, tmp_path: Path) -> None:
    agent = await make_agent(queue_size=0, concurrency=1, **shelf.settings(tmp_path))
    async with client_of(agent) as client:
        with pytest.raises(openai.RateLimitError) as caught:
            await client.images.generate(prompt="x", model="slow", n=2)
        assert caught.value.response.headers["Retry-After"] == "2"

        async def is_idle() -> bool:  # the picture that had room ends with the other
            queue = (await agent.get("/api/queue")).ok()
            return not (queue["running"] or queue["queued"])

        await eventually(is_idle)


async def test_a_late_failure_stands_in_the_answer(make_agent: MakeAgent, tmp_path: Path) -> None:
    agent = await make_agent(early_answer_seconds=0.05, **shelf.settings(tmp_path))
    async with client_of(agent) as client:
        answer = await client.images.generate(prompt="x", model="fails-late")
        assert answer.data is None
        assert (answer.model_extra or {})["error"]["code"] == "NodeFailed"
        slow = await client.images.generate(prompt="x", model="slow")
        assert color_of(*pictures_of(slow))


async def test_a_stream_has_previews_and_the_picture(make_agent: MakeAgent) -> None:
    switches = ["--preview-method", "auto", "--step-seconds", "0.04"]  # two seconds for the first picture
    agent = await make_agent(engine=switches, early_answer_seconds=0.05)
    async with client_of(agent) as client:
        events = [
            event
            async for event in await client.images.generate(
                prompt="a cat", stream=True, partial_images=2, **{**SMALL, "quality": "max"}
            )
        ]
        edited = [
            event.type
            async for event in await client.images.edit(
                image=png(RED, (64, 64)), prompt="a cat", stream=True, **SMALL
            )
        ]
    *partial, last = events
    assert last.type == "image_generation.completed"
    assert look(unb64(last.b64_json)).size == (256, 256)
    assert 1 <= len(partial) <= 2
    for index, event in enumerate(partial):
        assert (event.type, event.partial_image_index) == ("image_generation.partial_image", index)
        assert look(unb64(event.b64_json)).format == "PNG"
    assert edited == ["image_edit.completed"]


async def test_an_error_before_the_first_event_of_a_stream_has_its_status(shelved: Agent) -> None:
    async with client_of(shelved) as client:
        with pytest.raises(openai.InternalServerError, match="ckpt_name"):
            await client.images.generate(prompt="x", model="no-file", stream=True)


async def test_a_stream_ends_with_the_error(make_agent: MakeAgent, tmp_path: Path) -> None:
    agent = await make_agent(early_answer_seconds=0.05, **shelf.settings(tmp_path))
    async with client_of(agent) as client:
        with pytest.raises(openai.APIError, match="raised on purpose"):
            async for _ in await client.images.generate(prompt="x", model="fails-late", stream=True):
                pass


async def test_labels_come_along_into_another_format(make_agent: MakeAgent) -> None:
    agent = await make_agent(label_iptc="enforce")
    async with client_of(agent) as client:
        answer = await client.images.generate(
            prompt="a cat", output_format="jpeg", output_compression=60, **SMALL
        )
    (data,) = pictures_of(answer)
    assert look(data).format == "JPEG"
    assert b"trainedAlgorithmicMedia" in data
