"""Labels on what tasks deliver, by every way on which it is delivered."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
from typing import Any

import pytest
from c2pa import Reader
from PIL import Image, ImageSequence
from structlog.testing import capture_logs

from tests.certificates import SigningFiles
from tests.exif_tool import ExifTool
from tests.integration.agent import graphs
from tests.integration.agent.editor import connected
from tests.integration.agent.pictures import b64, look, png, unb64
from tests.integration.agent.service import Agent, EngineView, MakeAgent
from tests.object_store import Bucket, call
from tests.redis_server import RedisServer

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
PRODUCER = "Example Ltd"

#: An operator who wants everything but the mark.
ALL: dict[str, Any] = {
    "label_iptc": "enforce",
    "label_aigc": "enforce",
    "label_aigc_producer": PRODUCER,
    "label_parameters": "warn",
    "label_remove_prompt": "warn",
}


def pixels(data: bytes) -> list[bytes]:
    with Image.open(io.BytesIO(data)) as image:
        return [frame.convert("RGBA").tobytes() for frame in ImageSequence.Iterator(image)]


def check(tool: ExifTool, data: bytes, produce_id: str) -> dict[str, Any]:
    tags = tool.read(data)
    assert tags["XMP-iptcExt:DigitalSourceType"] == SOURCE_TYPE
    aigc = json.loads(tags["XMP-TC260:Aigc"])
    assert (aigc["Label"], aigc["ContentProducer"], aigc["ProduceID"]) == ("1", PRODUCER, produce_id)
    assert "PNG:Prompt" not in tags
    assert "PNG:Workflow" not in tags
    return tags


def state_of(data: bytes, media_type: str = "image/png") -> str | None:
    with Reader(media_type, io.BytesIO(data)) as reader:
        return reader.get_validation_state()


async def named(agent: Agent, name: str, accept: str, task_id: str, **body: Any) -> Any:
    return await agent.call(
        "POST",
        f"/api/workflows/{name}/run",
        data=json.dumps(body).encode(),
        headers={"Accept": accept, "task-id": task_id},
    )


async def test_picture_of_a_synchronous_run(
    make_agent: MakeAgent, engine: EngineView, tool: ExifTool, signer: SigningFiles
) -> None:
    agent = await make_agent(**ALL, label_c2pa="enforce", **signer.settings())
    body = {
        "prompt": graphs.sampled(seed=-1),
        "extra_data": {"extra_pnginfo": {"workflow": {"nodes": ["secret"]}}},
    }
    answer = await agent.run(body, "sync")
    (data,) = answer.results("7")
    tags = check(tool, data, "sync-0")
    assert json.loads(tags["PNG:AIGC"])["ProduceID"] == "sync-0"
    record = await agent.task("sync")
    seed = record["seeds"]["5"]["seed"]
    assert tags["PNG:Parameters"] == (
        f"a cat\nNegative prompt: a dog\nSteps: 4, Sampler: euler, Schedule type: normal, CFG scale: 7.5, Seed: {seed}, "
        "Size: 64x64, Model: tiny, Version: ComfyUI"
    )
    assert state_of(data) == "Valid"
    assert (record["outputs"][0]["bytes"], record["warnings"]) == (len(data), [])
    assert record["timings"]["label"] > 0
    made = await engine.view(answer.json["7"]["images"][0]["filename"])
    assert b"secret" in made
    assert b"secret" not in data
    assert pixels(made) == pixels(data)
    assert (await agent.output("sync", 0)).body == data
    assert (await agent.run(body, "sync")).results("7") == [data]


async def test_off_means_that_nothing_is_touched(make_agent: MakeAgent, engine: EngineView) -> None:
    agent = await make_agent()
    answer = await agent.run(graphs.painted())
    made = await engine.view(answer.json["2"]["images"][0]["filename"])
    assert answer.results("2") == [made]
    assert "label" not in (await agent.task(answer.headers["task-id"]))["timings"]


def test_off_costs_no_import() -> None:
    code = (
        "import sys, agent.app\nfrom agent.labels.labeller import Labeller\nfrom agent.settings import Settings\n"
        "Labeller(Settings())\n"
        "print([m for m in sys.modules if m in ('PIL', 'c2pa', 'xml.dom.minidom', 'agent.labels.picture')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "[]"


async def test_asynchronous_task_in_the_object_store(
    make_agent: MakeAgent, bucket: Bucket, redis_server: RedisServer, redis_prefix: str, tool: ExifTool
) -> None:
    shared = {"redis_url": redis_server.url, "redis_prefix": redis_prefix, **bucket.settings(outputs="url")}
    agent = await make_agent(**ALL, **shared)
    await agent.submit(graphs.sampled(), "async")
    record = await agent.succeeded("async")
    _, stored = await asyncio.to_thread(call, record["outputs"][0]["signed_url"])
    check(tool, stored, "async-0")
    assert record["outputs"][0]["bytes"] == len(stored)
    other = await make_agent(**shared)  # one that labels nothing still hands out what was stored
    redirect = await other.output("async", 0)
    assert (await asyncio.to_thread(call, redirect.headers["Location"]))[1] == stored


async def test_pictures_that_never_were_files_and_several_of_a_batch(
    make_agent: MakeAgent, tool: ExifTool
) -> None:
    agent = await make_agent(**ALL)
    empty = graphs.empty(batch=3)
    answer = await agent.run(graphs.chain(empty, graphs.node("SaveImageWebsocket", images=...)), "socket")
    for number, data in enumerate(answer.results("2")):
        check(tool, data, f"socket-{number}")
    assert len(answer.results("2")) == 3


@pytest.mark.parametrize("class_type", ["SaveAnimatedWEBP", "SaveAnimatedPNG"])
async def test_animations(make_agent: MakeAgent, engine: EngineView, tool: ExifTool, class_type: str) -> None:
    agent = await make_agent(**ALL)
    how: dict[str, Any] = {"filename_prefix": "moving", "fps": 6.0}
    how |= (
        {"lossless": False, "quality": 80, "method": "default"}
        if class_type.endswith("WEBP")
        else {"compress_level": 4}
    )
    graph = graphs.chain(graphs.empty(size=(32, 32), batch=3), graphs.node(class_type, images=..., **how))
    answer = await agent.run(graph, class_type)
    (data,) = answer.results("2")
    check(tool, data, f"{class_type}-0")
    made = await engine.view(answer.json["2"]["images"][0]["filename"])
    assert pixels(data) == pixels(made)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
async def test_conversion_for_accept_keeps_the_labels(
    make_agent: MakeAgent, tool: ExifTool, signer: SigningFiles, kind: str
) -> None:
    agent = await make_agent(**ALL, label_c2pa="warn", **signer.settings())
    parameters = {"prompt": "a fox"}
    answer = await named(agent, "text-to-image", f"image/{kind}", f"as-{kind}", parameters=parameters)
    assert (answer.status, answer.headers["Content-Type"]) == (200, f"image/{kind}"), answer.body
    tags = check(tool, answer.body, f"as-{kind}-0")
    assert tags["PNG:Parameters" if kind == "png" else "ExifIFD:UserComment"].startswith("a fox\n")
    assert state_of(answer.body, f"image/{kind}") == "Valid"


async def test_views_for_comfyuis_clients_keep_the_labels_and_lead_to_no_file_without(
    make_agent: MakeAgent, tool: ExifTool, signer: SigningFiles
) -> None:
    agent = await make_agent(pass_through=["all"], **ALL, label_c2pa="enforce", **signer.settings())
    async with connected(agent) as client:
        task_id = (await client.queue_prompt(graphs.sampled())).ok()["prompt_id"]
        await client.hear_out(task_id)
        (file,) = (await client.get_history(task_id))[task_id]["outputs"]["7"]["images"]
        for asked, kind in (
            ({"preview": "webp;80"}, "webp"),
            ({"preview": "jpeg"}, "jpeg"),
            ({"channel": "rgb"}, "png"),
            ({"channel": "a"}, "png"),
        ):
            shown = await agent.get("/view", params={**file, **asked})
            assert shown.headers["Content-Type"] == f"image/{kind}"
            check(tool, shown.body, f"{task_id}-0")
            assert state_of(shown.body, f"image/{kind}") == "Valid"
        for name in (f"./{file['filename']}", f"{file['filename']} [output]"):
            hidden = await agent.get("/view", params={**file, "filename": name, "preview": "webp"})
            hidden.error(403, "FileHidden")


async def test_cached_picture_is_labelled_for_each_task(make_agent: MakeAgent, tool: ExifTool) -> None:
    agent, graph = await make_agent(**ALL), graphs.painted()
    for task_id in ("made", "cached"):
        (data,) = (await agent.run(graph, task_id)).results("2")
        check(tool, data, f"{task_id}-0")


async def test_other_image_apis_answer_with_labels(make_agent: MakeAgent, tool: ExifTool) -> None:
    agent = await make_agent(**ALL)
    asked = {"model": "gpt-image-1", "prompt": "a fox", "size": "256x256", "output_format": "webp"}
    named = {"task-id": "facade"}
    answer = await agent.call(
        "POST", "/v1/images/generations", data=json.dumps(asked).encode(), headers=named
    )
    (item,) = answer.ok()["data"]
    data = unb64(item["b64_json"])
    assert look(data).format == "WEBP"
    assert check(tool, data, "facade-0")["ExifIFD:UserComment"].startswith("a fox")


async def test_a_front_converts_with_the_labels_of_the_engine_function(
    make_agent: MakeAgent, tool: ExifTool, signer: SigningFiles, redis_server: RedisServer, redis_prefix: str
) -> None:
    shared = {"redis_url": redis_server.url, "redis_prefix": redis_prefix}
    behind = await make_agent(**ALL, **signer.settings(), **shared)
    front = await make_agent(role="front", engine_url=behind.url, comfyui_url=None, **shared)
    image = {"image": b64(png(size=(16, 16)))}
    answer = await named(front, "invert", "image/webp", "fronted", parameters=image)
    check(tool, answer.body, "fronted-0")
    # A front without the certificate can make no new credentials, and says so rather than lose them.
    wanted = {"parameters": image, "labels": {"c2pa": "enforce"}}
    found = (await named(front, "invert", "image/jpeg", "signed", **wanted)).error(500, "NotLabelled")
    assert "certificate" in found["detail"]
    assert state_of((await named(front, "invert", "image/png", "signed", **wanted)).body) == "Valid"
    # What the engine function refuses is refused through the front too.
    less = {"prompt": graphs.painted(), "labels": {"iptc": "off"}}
    (await front.run(less)).error(400, "InvalidOptions")


async def test_request_may_add_labels_but_not_remove_any(
    make_agent: MakeAgent, tool: ExifTool, signer: SigningFiles
) -> None:
    agent = await make_agent(label_iptc="warn", label_aigc_producer=PRODUCER, **signer.settings())
    add = {
        "iptc": "enforce",
        "aigc": "warn",
        "c2pa": "enforce",
        "remove_prompt": "enforce",
        "parameters": "off",
    }
    answer = await agent.run({"prompt": graphs.painted(), "labels": add}, "more")
    (data,) = answer.results("2")
    tags = check(tool, data, "more-0")
    assert "PNG:Parameters" not in tags
    assert state_of(data) == "Valid"
    (plain,) = (await agent.run(graphs.painted())).results("2")
    assert "XMP-TC260:Aigc" not in tool.read(plain)
    less = (await agent.run({"prompt": graphs.painted(), "labels": {"iptc": "off"}})).error(
        400, "InvalidOptions"
    )
    assert less["option"] == "labels.iptc"
    assert "may only be stricter" in less["detail"]
    for wrong in ({"iptc": "always"}, {"watermark": "warn"}, ["iptc"], True):
        (await agent.run({"prompt": graphs.painted(), "labels": wrong})).error(400, "InvalidOptions")


async def test_labels_that_this_server_cannot_make_are_refused(make_agent: MakeAgent) -> None:
    agent = await make_agent()
    for name in ("aigc", "c2pa"):
        body = {"prompt": graphs.painted(), "labels": {name: "warn"}}
        assert "cannot make" in (await agent.run(body)).error(400, "InvalidOptions")["detail"]


async def test_same_task_with_other_labels_is_another_one(make_agent: MakeAgent) -> None:
    agent = await make_agent()
    graph = graphs.painted()
    await agent.run(graph, "twice")
    assert (await agent.run({"prompt": graph}, "twice")).status == 200
    (await agent.run({"prompt": graph, "labels": {"iptc": "warn"}}, "twice")).error(409, "TaskConflict")


async def test_mark_is_drawn_by_request(make_agent: MakeAgent, engine: EngineView, tool: ExifTool) -> None:
    agent = await make_agent(**ALL)
    answer = await agent.run(
        {"prompt": graphs.painted(graphs.fresh_color(), size=(128, 128)), "labels": {"mark": "enforce"}},
        "marked",
    )
    (data,) = answer.results("2")
    check(tool, data, "marked-0")
    made = await engine.view(answer.json["2"]["images"][0]["filename"])
    assert len(look(made).getcolors() or ()) == 1
    assert len(look(data).getcolors(128 * 128) or ()) > 1
    assert look(data).size == (128, 128)


def latent() -> graphs.Graph:
    return {
        "1": graphs.node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "2": graphs.node("SaveLatent", samples=["1", 0], filename_prefix="latents/x"),
    }


async def test_files_of_other_formats_are_untouched_and_the_record_says_so(
    make_agent: MakeAgent, engine: EngineView
) -> None:
    agent = await make_agent(**{**ALL, "label_iptc": "warn", "label_aigc": "warn"})
    answer = await agent.run(latent(), "latent")
    (image,) = answer.ok()["2"]["images"]
    assert answer.results("2") == [await engine.view(image["filename"], image["subfolder"])]
    (warning,) = (await agent.task("latent"))["warnings"]
    assert (warning["code"], warning["node_id"]) == ("NotLabelled", "2")
    assert warning["detail"] == (
        f'Output file "{image["filename"]}" of node "2": its format has no room for IPTC\'s DigitalSourceType, the label '
        "of GB 45438-2025, the generation parameters, and what ComfyUI wrote into it of the prompt cannot be removed."
    )


async def test_label_that_is_enforced_fails_a_task_whose_file_cannot_carry_it(make_agent: MakeAgent) -> None:
    agent = await make_agent(**ALL)
    found = (await agent.run(latent(), "enforced")).error(500, "NotLabelled")
    assert found["node_id"] == "2"
    assert found["filename"].endswith(".latent")
    assert found["transient"] is False
    assert (await agent.task("enforced"))["outputs"] == []
    assert (await agent.output("enforced", 0)).status in (404, 409, 410, 500)


async def test_broken_picture_is_not_delivered_without_its_labels_but_made_again(
    make_agent: MakeAgent, engine: EngineView, tool: ExifTool
) -> None:
    how = {"filename_prefix": "broken", "fps": 6.0, "lossless": False, "quality": 80, "method": "default"}
    graph = graphs.chain(
        graphs.empty(size=(32, 32), batch=3), graphs.node("SaveAnimatedWEBP", images=..., **how)
    )
    once, often = (
        await make_agent(label_iptc="warn", max_attempts=1),
        await make_agent(label_iptc="warn", max_attempts=6),
    )
    try:
        await engine.fault("corrupt-output,times=1")
        found = (await once.run(graph)).error(500, "OutputCorrupt")
        assert (found["node_id"], found["filename"][-5:]) == ("2", ".webp")
        await engine.fault("corrupt-output,times=1")
        (data,) = (await often.run(graph, "again")).results("2")
    finally:
        await engine.fault()
    assert tool.read(data)["XMP-iptcExt:DigitalSourceType"] == SOURCE_TYPE
    first, *_, last = (await often.task("again"))["attempts"]  # one between may meet the engine's cache
    assert (first["error"]["code"], last["outcome"]) == ("OutputCorrupt", "succeeded")


async def test_unlabelled_files_of_the_engine_are_not_shown_where_a_label_is_enforced(
    make_agent: MakeAgent,
) -> None:
    enforcing = await make_agent(**ALL, pass_through=["/view"])
    (image,) = (await enforcing.run(graphs.painted())).ok()["2"]["images"]
    (await enforcing.get("/view", params=image)).error(403, "FileHidden")
    warning = await make_agent(label_iptc="warn", pass_through=["/view"])
    assert (await warning.get("/view", params=image)).status == 200


async def test_key_is_in_no_log_no_record_and_no_answer(make_agent: MakeAgent, signer: SigningFiles) -> None:
    # The third line is of the public key, which the certificate has too.
    lines = signer.key.read_text().splitlines()[1:3]
    with capture_logs() as logs:
        agent = await make_agent(label_c2pa="enforce", **signer.settings())
        answer = await agent.run(graphs.painted(), "secretive")
        record = await agent.task("secretive")
    seen = f"{logs} {record} {answer.body!r} {agent.settings!r}"
    assert all(line not in seen for line in lines)
    (data,) = answer.results("2")
    assert all(line.encode() not in data for line in lines)
