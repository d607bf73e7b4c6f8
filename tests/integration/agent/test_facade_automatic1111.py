"""AUTOMATIC1111's API, as the `webuiapi` package asks for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

import pytest
import pytest_asyncio
import webuiapi
import yaml
from PIL import Image

from agent.api.facades.automatic1111_samplers import SAMPLERS, SCHEDULERS
from tests.integration.agent import graphs, shelf
from tests.integration.agent.pictures import b64, look, picture, png, unb64
from tests.integration.agent.service import Agent, Answer, MakeAgent, eventually
from tests.redis_server import RedisServer

KEY = "the-agents-key"
RED, BLUE = (255, 0, 0), (0, 0, 255)
GARBAGE = (
    *(b"", b"{", b"[]", b"null", b'"x"', b"\xff", b'{"seed": 1e999}', b'{"prompt": 5}', b'{"styles": 5}'),
    *(b'{"override_settings": []}', b'{"override_settings": {"sd_model_checkpoint": []}}'),
    *(b'{"alwayson_scripts": [{}]}', b'{"sd_model_checkpoint": {}}', b'{"sampler_name": "\\u0000"}'),
    *(b'{"init_images": 5}', b'{"prompt": "\\ud800", "steps": 1}', b'{"batch_size": 0}', b'{"width": 65}'),
)
SMALL: dict[str, Any] = {"width": 128, "height": 64, "steps": 2}


class Client:
    """The package's client, each call of which blocks a thread."""

    def __init__(self, agent: Agent, **how: Any) -> None:
        self._agent, self._how = agent, how
        self.api: Any = None

    async def __aenter__(self) -> Self:
        self.api = await asyncio.to_thread(
            webuiapi.WebUIApi, host="127.0.0.1", port=self._agent.port, **self._how
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self.api.session.close()

    async def __call__(self, name: str, *args: Any, **how: Any) -> Any:
        return await asyncio.to_thread(getattr(self.api, name), *args, **how)


@pytest_asyncio.fixture(loop_scope="session")
async def client(agent: Agent) -> AsyncIterator[Client]:
    async with Client(agent) as made:
        yield made


async def post(agent: Agent, path: str, body: Any, **how: Any) -> Answer:
    return await agent.call("POST", f"/sdapi/v1/{path}", json=body, **how)


def refused(answer: Answer, parameter: str) -> str:
    """What is said of this parameter, in the form of the original's framework."""
    assert answer.status == 422, answer.body
    (detail,) = answer.json["detail"]
    assert detail["loc"] == ["body", *parameter.split(".")], detail
    assert detail["type"] in ("InvalidParameter", "InvalidInput")
    return str(detail["msg"])


def pixels(image: Image.Image) -> bytes:
    return image.convert("RGB").tobytes()


def graph_of(image: Image.Image) -> dict[str, Any]:
    graph: dict[str, Any] = json.loads(image.info["prompt"])
    return graph


async def test_pictures_come_with_what_they_were_made_with(client: Client) -> None:
    made = await client(
        "txt2img",
        prompt="a (red:1.2) fox, in snow",
        negative_prompt="blurry",
        seed=1003,
        cfg_scale=6.5,
        sampler_name="DPM++ 2M Karras",
        batch_size=2,
        n_iter=2,
        **SMALL,
    )
    assert [image.size for image in made.images] == [(128, 64)] * 4
    assert [image.format for image in made.images] == ["PNG"] * 4
    assert len({pixels(image) for image in made.images}) == 4
    info = made.info
    assert (info["seed"], info["all_seeds"]) == (1003, [1003, 1004, 1005, 1006])
    assert (info["width"], info["height"], info["steps"], info["cfg_scale"]) == (128, 64, 2, 6.5)
    assert (info["sampler_name"], info["batch_size"]) == ("DPM++ 2M", 2)
    assert (info["sd_model_name"], info["prompt"]) == ("v1-5-pruned-emaonly", "a (red:1.2) fox, in snow")
    assert info["negative_prompt"] == "blurry"
    assert (len(info["all_prompts"]), info["index_of_first_image"]) == (4, 0)
    assert info["infotexts"][2] == (
        "a (red:1.2) fox, in snow\nNegative prompt: blurry\nSteps: 2, Sampler: DPM++ 2M, Schedule type: Karras, "
        "CFG scale: 6.5, Seed: 1005, Size: 128x64, Model: v1-5-pruned-emaonly, Version: ComfyUI"
    )
    assert made.parameters["n_iter"] == 2
    sampler = graph_of(made.images[2])["3"]["inputs"]
    assert (sampler["seed"], sampler["sampler_name"], sampler["scheduler"]) == (1005, "dpmpp_2m", "karras")


async def test_the_same_seed_makes_the_same_picture_and_a_random_one_is_told(client: Client) -> None:
    first = await client("txt2img", prompt="a cat", **SMALL)
    again = await client("txt2img", prompt="a cat", seed=first.info["seed"], **SMALL)
    other = await client("txt2img", prompt="a cat", **SMALL)
    assert 0 <= first.info["seed"] < 2**32
    assert pixels(first.image) == pixels(again.image) != pixels(other.image)


async def test_asynchronous_calls_run_side_by_side(client: Client) -> None:
    def begin(seed: int) -> Any:
        return client.api.txt2img(prompt="a cat", seed=seed, use_async=True, **SMALL)

    first, second = await asyncio.gather(begin(1), begin(2))
    assert (first.info["seed"], second.info["seed"]) == (1, 2)
    assert pixels(first.image) != pixels(second.image)


@pytest.mark.parametrize("mode", [0, 1, 2])
async def test_a_picture_is_changed_at_the_size_that_is_asked_for(client: Client, mode: int) -> None:
    made = await client(
        "img2img",
        images=[picture(BLUE, (50, 90))],
        prompt="a cat",
        denoising_strength=0.3,
        resize_mode=mode,
        sampler_name="Heun",
        width=200,
        height=120,
        steps=2,
    )
    assert made.image.size == (200, 120)
    assert (made.info["width"], made.info["height"]) == (200, 120)
    assert (made.info["denoising_strength"], made.info["sampler_name"]) == (0.3, "Heun")
    assert made.json["parameters"]["init_images"] is None
    sampler = graph_of(made.image)["3"]["inputs"]
    assert (sampler["denoise"], sampler["sampler_name"]) == (0.3, "heun")


@pytest.mark.parametrize("is_inverted", [0, 1])
async def test_what_is_white_in_the_mask_is_drawn_anew(client: Client, is_inverted: int) -> None:
    mask = picture(0, (256, 128), "L")
    mask.paste(255, (0, 0, 128, 128))
    made = await client(
        "img2img",
        images=[picture(BLUE, (256, 128))],
        mask_image=mask,
        mask_blur=0,
        inpainting_mask_invert=is_inverted,
        prompt="a cat",
        width=256,
        height=128,
        steps=2,
    )
    assert made.image.size == (256, 128)
    halves = [made.image.convert("RGB").crop(box) for box in ((0, 0, 100, 128), (156, 0, 256, 128))]
    drawn, kept = reversed(halves) if is_inverted else halves
    assert kept.getcolors(maxcolors=1) == [(100 * 128, BLUE)]
    assert drawn.getcolors(maxcolors=1) is None, "nothing was drawn"


async def test_progress_is_told_with_a_preview_and_interrupt_ends_it(make_agent: MakeAgent) -> None:
    agent = await make_agent(engine=["--preview-method", "auto", "--step-seconds", "0.05"])
    async with Client(agent) as client:
        idle = await client("get_progress")
        assert (idle["progress"], idle["state"]["job_count"]) == (0.0, 0)
        await client("util_wait_for_ready")
        running = asyncio.ensure_future(
            client.api.txt2img(prompt="a cat", n_iter=2, steps=150, width=128, height=64, use_async=True)
        )

        async def shown() -> Any:
            told = await client("get_progress")
            return told if told["current_image"] and told["state"]["sampling_step"] else None

        told = await eventually(shown)
        assert 0 < told["progress"] < 1
        assert told["eta_relative"] > 0
        assert told["state"]["sampling_steps"] == 150
        assert (told["state"]["job"], told["state"]["job_count"]) == ("txt2img", 2)
        assert look(unb64(told["current_image"])).format == "PNG"
        without = await agent.get("/sdapi/v1/progress", params={"skip_current_image": "true"})
        assert without.ok()["current_image"] is None
        ours = await agent.begin(graphs.chain(graphs.empty(), graphs.preview()))
        assert await client("skip") == {}

        async def second() -> bool:
            state = (await client("get_progress"))["state"]
            return bool(state["job_no"] == 1 and state["sampling_step"])

        await eventually(second)
        assert await client("interrupt") == {}
        result = await running
        assert (result.images, result.info["all_seeds"]) == ([], [])
        assert (await client("get_progress"))["state"]["job_count"] == 0
        assert (await agent.succeeded(ours))["state"] == "succeeded", "other tasks go on"


async def test_what_clients_list_before_they_draw(client: Client, agent: Agent) -> None:
    assert {"Euler a", "DPM++ 2M", "DDIM", "UniPC"} <= set(await client("util_get_sampler_names"))
    assert {"automatic", "karras"} <= set(await client("util_get_scheduler_names"))
    titles = await client("util_get_model_names")
    assert {"tiny.safetensors", "sd_xl_base_1.0.safetensors"} <= set(titles)
    assert not any(title.startswith("@cf/") for title in titles)
    options = await client("get_options")
    assert options["sd_model_checkpoint"] == "v1-5-pruned-emaonly.safetensors"
    assert (options["samples_format"], options["CLIP_stop_at_last_layers"]) == ("png", 1)
    for name in (
        "upscalers",
        "latent_upscale_modes",
        "sd_vae",
        "hypernetworks",
        "face_restorers",
        "prompt_styles",
    ):
        assert await client(f"get_{name}") == []
    assert await client("get_realesrgan_models") == []
    assert await client("get_scripts") == {"txt2img": [], "img2img": []}
    assert (await client("get_embeddings"))["loaded"] == {}
    assert await client("refresh_checkpoints") is None
    assert (await client("get_cmd_flags"))["api"] is True
    assert set(await client("get_memory")) == {"ram", "cuda"}
    answer = await agent.call("POST", "/sdapi/v1/png-info", json={})
    assert (answer.status, answer.json["error"]) == (404, "NotFound")


async def test_each_sampler_and_scheduler_runs_under_its_name(agent: Agent) -> None:
    async def draw(**how: Any) -> None:
        answer = await post(
            agent, "txt2img", {"prompt": "a cat", "width": 64, "height": 64, "steps": 1, **how}
        )
        assert len(answer.ok()["images"]) == 1

    await asyncio.gather(*(draw(sampler_name=sampler.name) for sampler in SAMPLERS))
    await asyncio.gather(*(draw(sampler_index="Euler", scheduler=s.label) for s in SCHEDULERS))


async def test_loras_of_the_prompt_are_used(client: Client, agent: Agent) -> None:
    names = [lora["name"] for lora in await client("get_loras")]
    assert names
    plain = await client("txt2img", prompt="a cat", seed=5, **SMALL)
    styled = await client("txt2img", prompt=f"a cat <lora:{names[0]}:0.8>", seed=5, **SMALL)
    loader = graph_of(styled.image)["10"]["inputs"]
    assert (loader["strength_model"], loader["strength_clip"]) == (0.8, 0.8)
    assert graph_of(styled.image)["6"]["inputs"]["text"] == "a cat"
    assert styled.info["infotexts"][0].startswith(f"a cat <lora:{names[0]}:0.8>\n")
    assert pixels(plain.image) != pixels(styled.image)
    unused = await client("txt2img", prompt=f"a cat <lora:{names[0]}:0.8>", seed=5, **SMALL)
    assert pixels(unused.image) == pixels(styled.image)
    for prompt, said in (
        ("<lora:nobody-has-this:1>", "nobody-has-this"),
        (f"<lora:{names[0]}:1> <lora:{names[0]}:1>", "one LoRA"),
        ("<hypernet:x:1>", "hypernetworks"),
        (f"<lora:{names[0]}:much>", "WEIGHT"),
        (f"<lora:{names[0]}:9>", "up to 2"),
    ):
        assert said in refused(await post(agent, "txt2img", {"prompt": prompt}), "prompt")


async def test_a_checkpoint_is_chosen_by_call(client: Client, agent: Agent) -> None:
    for name in ("tiny", "tiny.safetensors", "tiny.safetensors [0123abcdef]"):
        made = await client("txt2img", prompt="x", override_settings={"sd_model_checkpoint": name}, **SMALL)
        assert graph_of(made.image)["4"]["inputs"]["ckpt_name"] == "tiny.safetensors"
        assert made.info["sd_model_name"] == "tiny"
    answer = await post(agent, "txt2img", {"override_settings": {"sd_model_checkpoint": "gone"}})
    assert (answer.status, answer.json["error"]) == (404, "ModelNotFound")
    assert "gone" in answer.json["detail"]
    jpeg = await client("txt2img", prompt="x", override_settings={"samples_format": "jpg"}, **SMALL)
    assert jpeg.image.format == "JPEG"
    with pytest.raises(RuntimeError, match="ModelNotFound"):
        await client("txt2img", prompt="x", override_settings={"sd_model_checkpoint": "gone"})


async def test_a_checkpoint_is_chosen_for_the_calls_that_follow(make_agent: MakeAgent) -> None:
    agent = await make_agent(api_keys=[KEY, "another-key"])
    async with (
        Client(agent, username="anybody", password=KEY) as client,
        Client(agent, username="x", password="another-key") as other,
    ):
        await client("util_set_model", "tiny")
        assert await client("util_get_current_model") == "tiny.safetensors"
        assert await other("util_get_current_model") == "v1-5-pruned-emaonly.safetensors"
        made = await client("txt2img", prompt="x", **SMALL)
        assert made.info["sd_model_name"] == "tiny"
        assert (await client("set_options", {"sd_model_checkpoint": "gone"}))["error"] == "ModelNotFound"
    for headers in ({}, {"Authorization": "Basic x"}, {"Authorization": "Basic eDp5"}):
        answer = await agent.get("/sdapi/v1/options", headers=headers)
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Basic")
    basic = {"Authorization": f"Basic {b64(f'x:{KEY}'.encode())}"}
    assert (await agent.get("/api/tasks", headers=basic)).status == 401


async def test_where_another_instance_may_get_the_next_call_nothing_is_kept(make_agent: MakeAgent) -> None:
    agent = await make_agent(invocation="gateway")
    answer = await post(agent, "options", {"sd_model_checkpoint": "tiny"})
    assert (answer.status, answer.json["error"]) == (400, "InvalidOptions")
    assert "override_settings" in answer.json["detail"]
    assert (await post(agent, "options", {"sd_model_checkpoint": "v1-5-pruned-emaonly"})).ok() is None


async def test_a_page_without_a_key_sees_nobodys_calls(make_agent: MakeAgent) -> None:
    agent = await make_agent(api_keys=[KEY], keyless_facades=["automatic1111"])
    answer = await post(agent, "txt2img", {"prompt": "x", **SMALL})
    assert look(unb64(answer.ok()["images"][0])).size == (128, 64)
    assert (await post(agent, "options", {"sd_model_checkpoint": "tiny"})).status == 400
    assert (await agent.get("/sdapi/v1/progress")).ok()["state"]["job_count"] == 0


async def test_the_operators_own_workflow_serves_a_checkpoint(make_agent: MakeAgent, tmp_path: Path) -> None:
    settings = shelf.settings(tmp_path)
    graph = json.loads(Path("workflows/text-to-image.json").read_text())
    graph["20"] = {"class_type": "CLIPSetLastLayer", "inputs": {"stop_at_clip_layer": -1, "clip": ["4", 1]}}
    graph["6"]["inputs"]["clip"] = ["20", 0]
    manifest = yaml.safe_load(Path("workflows/text-to-image.yaml").read_text())
    manifest["parameters"]["stop_at_clip_layer"] = shelf.parameter("integer", "20.stop_at_clip_layer")
    (tmp_path / "anime.json").write_text(json.dumps(graph))
    (tmp_path / "anime.yaml").write_text(yaml.safe_dump(manifest))
    (tmp_path / "models.yaml").write_text(
        yaml.safe_dump({"anime": {"workflow": "anime"}, "slow": {"workflow": "slow"}})
    )
    agent = await make_agent(early_answer_seconds=0.05, **settings)
    async with Client(agent) as client:
        assert "anime" in await client("util_get_model_names")
        options = {"sd_model_checkpoint": "anime", "CLIP_stop_at_last_layers": 2}
        made = await client("txt2img", prompt="x", override_settings=options, **SMALL)
        assert graph_of(made.image)["20"]["inputs"]["stop_at_clip_layer"] == -2
        assert "Clip skip: 2" in made.info["infotexts"][0]
        slow = await client("txt2img", prompt="x", override_settings={"sd_model_checkpoint": "slow"})
        assert (len(slow.images), slow.info["infotexts"][0]) == (1, "x\nSize: 8x8")
    answer = await post(agent, "txt2img", {"override_settings": {"CLIP_stop_at_last_layers": 2}})
    refused(answer, "override_settings.CLIP_stop_at_last_layers")
    edit = {"init_images": [b64(png())], "override_settings": {"sd_model_checkpoint": "slow"}}
    assert "no picture" in refused(await post(agent, "img2img", edit), "init_images")


async def test_a_failure_is_told_in_the_form_of_the_original(make_agent: MakeAgent, tmp_path: Path) -> None:
    settings = shelf.settings(tmp_path, sleep_seconds=1)
    body = {"prompt": "x", "override_settings": {"sd_model_checkpoint": "fails-late"}}
    early = await make_agent(early_answer_seconds=0.02, **settings)
    late = await post(early, "txt2img", body)
    assert (late.status, late.json["error"]) == (200, "NodeFailed")
    assert late.body.startswith(b" "), "it did not begin early"
    agent = await make_agent(early_answer_seconds=0, **settings)
    answer = await post(agent, "txt2img", body)
    assert answer.status == 500
    assert answer.json.keys() == {"error", "detail", "body", "errors"}
    assert (answer.json["error"], "on purpose" in answer.json["errors"]) == ("NodeFailed", True)


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        ({"enable_hr": True}, "enable_hr"),
        ({"styles": ["photo"]}, "styles"),
        ({"alwayson_scripts": {"ControlNet": {"args": [{"image": "x"}]}}}, "alwayson_scripts"),
        ({"script_name": "X/Y/Z plot"}, "script_name"),
        ({"sampler_name": "Nobody"}, "sampler_name"),
        ({"scheduler": "Nobody"}, "scheduler"),
        ({"steps": 1000}, "steps"),
        ({"steps": "many"}, "steps"),
        ({"cfg_scale": 99}, "cfg_scale"),
        ({"width": 9999}, "width"),
        ({"batch_size": 99}, "batch_size"),
        ({"batch_size": 9, "n_iter": 9}, "n_iter"),
        ({"seed": -2}, "seed"),
        ({"override_settings": {"sd_vae": "x.pt"}}, "override_settings.sd_vae"),
        ({"override_settings": {"samples_format": "gif"}}, "override_settings.samples_format"),
        (
            {"override_settings": {"CLIP_stop_at_last_layers": 0}},
            "override_settings.CLIP_stop_at_last_layers",
        ),
    ],
)
async def test_what_cannot_be_done_is_refused_by_name(
    agent: Agent, body: dict[str, Any], parameter: str
) -> None:
    async with agent.engine.asked(0):
        refused(await post(agent, "txt2img", {"prompt": "x", **body}), parameter)


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        ({}, "init_images"),
        ({"init_images": []}, "init_images"),
        ({"init_images": ["no picture"]}, ""),
        ({"init_images": [b64(png()), b64(png())]}, "init_images"),
        ({"init_images": [b64(png())], "mask": "%"}, ""),
        ({"init_images": [b64(png())], "resize_mode": 3}, "resize_mode"),
        ({"init_images": [b64(png())], "denoising_strength": 2}, "denoising_strength"),
        ({"init_images": ["http://x/y"], "mask": b64(png())}, "init_images"),
    ],
)
async def test_pictures_that_cannot_be_taken_are_refused(
    agent: Agent, body: dict[str, Any], parameter: str
) -> None:
    answer = await post(agent, "img2img", body)
    assert answer.status == 422, answer.body
    if parameter:
        refused(answer, parameter)


@pytest.mark.parametrize("path", ["txt2img", "img2img", "options", "interrupt", "skip"])
@pytest.mark.parametrize("body", GARBAGE)
async def test_garbage_never_breaks_it(agent: Agent, path: str, body: bytes) -> None:
    answer = await agent.call("POST", f"/sdapi/v1/{path}", data=body)
    assert answer.status < 500, (answer.status, answer.body)
    if answer.status != 200:
        assert answer.json["detail"]


async def test_a_front_draws_too_and_a_page_needs_no_key_there(
    make_agent: MakeAgent, redis_server: RedisServer, redis_prefix: str, tmp_path: Path
) -> None:
    shared = {"redis_url": redis_server.url, "redis_prefix": redis_prefix, **shelf.settings(tmp_path)}
    engine = await make_agent(role="engine", api_keys=["the-engines-key"], **shared)
    front = await make_agent(
        role="front",
        engine_url=engine.url,
        engine_api_key="the-engines-key",
        api_keys=[KEY],
        keyless_facades=["automatic1111"],
        **shared,
    )
    async with Client(front) as client:
        made = await client("txt2img", prompt="a cat", seed=7, batch_size=2, **SMALL)
        assert made.info["all_seeds"] == [7, 8]
        assert [graph_of(image)["3"]["inputs"]["seed"] for image in made.images] == [7, 8]
        assert "v1-5-pruned-emaonly.safetensors" in await client("util_get_model_names")
    unknown = await post(front, "txt2img", {"prompt": "a cat <lora:nobody-has-this:1>", **SMALL})
    assert "nobody-has-this" in refused(unknown, "prompt")

    async with Client(front, username="x", password=KEY) as client:
        long = {"prompt": "x", "override_settings": {"sd_model_checkpoint": "long"}}
        running = asyncio.create_task(client("txt2img", **long))

        async def steps() -> bool:
            return bool((await client("get_progress"))["state"]["sampling_step"])

        await eventually(steps)
        await client("interrupt")
        assert (await running).images == []
        await eventually(engine.engine.is_idle)


async def test_a_call_that_is_sent_again_under_its_name_is_the_same(agent: Agent) -> None:
    body = {"prompt": "a cat", "batch_size": 2, **SMALL}
    first, again = [
        (await post(agent, "txt2img", body, headers={"task-id": "webui-again"})).ok() for _ in range(2)
    ]
    assert first["images"] == again["images"]
    assert json.loads(first["info"])["all_seeds"] == json.loads(again["info"])["all_seeds"]
