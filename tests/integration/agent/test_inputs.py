"""Input media: every way to name one, that it reaches the engine unchanged, and what is refused."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from tests.integration.agent import graphs
from tests.integration.agent.pictures import (
    animation,
    b64,
    color_of,
    encode,
    look,
    picture,
    png,
    sound,
)
from tests.integration.agent.service import PATIENCE_SECONDS, Agent
from tests.integration.inputs.conftest import MediaServer, answer

ORANGE = (255, 128, 0)
MP4 = bytes.fromhex("000000206674797069736f6d0000020069736f6d69736f32617663316d703431") + bytes(500)


def noisy(seed: int = 1) -> bytes:
    """A picture whose bytes nobody has sent before."""
    return png(ORANGE, (9, 8 + seed)) + uuid.uuid4().bytes  # bytes after the end are no fault


WRITTEN: dict[str, Callable[[bytes], str]] = {
    "base64": b64,
    "base64 with line breaks": lambda data: base64.encodebytes(data).decode(),
    "base64 with CRLF": lambda data: base64.encodebytes(data).decode().replace("\n", "\r\n"),
    "data URI": lambda data: f"data:image/png;base64,{b64(data)}",
    "data URI without media type": lambda data: f"data:;base64,{b64(data)}",
}


@pytest.mark.real
@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN)
async def test_picture_in_the_request_is_loaded(agent: Agent, written: Callable[[bytes], str]) -> None:
    got = await agent.run(graphs.loaded(written(png(ORANGE))))
    assert color_of(*got.results("2")) == ORANGE


@pytest.mark.real
async def test_picture_behind_a_url_is_loaded(agent: Agent, media: MediaServer) -> None:
    media.answers["/cat.png"] = answer("200 OK", png(ORANGE, (30, 20)), Content_Type="image/png")
    got = await agent.run(graphs.loaded(media.url("/cat.png?signature=secret")))
    assert look(*got.results("2")).size == (30, 20)


@pytest.mark.real
async def test_file_in_the_input_folder_is_left_alone(agent: Agent) -> None:
    await agent.engine.upload("preset.png", png(ORANGE))
    got = await agent.run(graphs.loaded("preset.png"))
    assert color_of(*got.results("2")) == ORANGE


@pytest.mark.real
@pytest.mark.parametrize("name", ["jobs/j 1/deep ü&.png", "jobs/j 1/deep ü&.png [input]"])
async def test_file_in_a_folder_below_and_with_a_note_of_its_kind_is_left_alone(
    agent: Agent, name: str
) -> None:
    await agent.engine.upload("deep ü&.png", png(ORANGE), "jobs/j 1")
    assert color_of(*(await agent.run(graphs.loaded(name))).results("2")) == ORANGE


@pytest.mark.real
async def test_output_of_an_earlier_run_serves_as_input(agent: Agent) -> None:
    (image,) = (await agent.run(graphs.painted(graphs.RED))).ok()["2"]["images"]
    got = await agent.run(graphs.loaded(f"{image['filename']} [output]"))
    assert color_of(*got.results("2")) == (255, 0, 0)


@pytest.mark.real
async def test_name_that_could_be_base64_is_a_name_if_the_file_is_there(agent: Agent) -> None:
    name = "abcd" * 20
    await agent.engine.upload(name, png(ORANGE))
    assert color_of(*(await agent.run(graphs.loaded(name))).results("2")) == ORANGE


@pytest.mark.real
async def test_mask_loader_takes_a_picture_too(agent: Agent) -> None:
    graph = graphs.chain(
        graphs.node("LoadImageMask", image=b64(png((255, 0, 0))), channel="red"),
        graphs.node("MaskToImage", mask=...),
        graphs.preview(),
    )
    assert color_of(*(await agent.run(graph)).results("3")) == (255, 255, 255)


async def test_sound_is_uploaded_for_a_sound_loader(agent: Agent) -> None:
    graph = graphs.chain(
        graphs.node("LoadAudio", audio=b64(sound())),
        graphs.node("SaveAudio", audio=..., filename_prefix="sound"),
    )
    got = await agent.run(graph)
    assert got.results("2") == [sound()]
    assert got.json["2"]["images"][0]["filename"].startswith("sound_")


async def test_video_is_uploaded_for_a_video_loader(agent: Agent) -> None:
    graph = graphs.chain(
        graphs.node("LoadVideo", file=b64(MP4)),
        graphs.node("GetVideoComponents", video=...),
        graphs.preview(),
    )
    got = await agent.run(graph)
    assert got.status == 200, got.body
    assert await agent.engine.view(f"{hashlib.sha256(MP4).hexdigest()}.mp4", folder="input") == MP4


KINDS = {
    "16-bit PNG": ("png", encode(picture(40_000, mode="I;16"))),
    "PNG with alpha": ("png", encode(picture((1, 2, 3, 77), mode="RGBA"))),
    "animated GIF": ("gif", animation("GIF")),
    "animated WebP": ("webp", animation("WEBP")),
    "CMYK JPEG": ("jpg", encode(picture((10, 20, 30, 40), mode="CMYK"), "JPEG")),
    "BMP": ("bmp", encode(picture(ORANGE), "BMP")),
    "WebP": ("webp", encode(picture(ORANGE), "WEBP", lossless=True)),
    "palette GIF": ("gif", encode(picture(7, mode="P"), "GIF")),
}


@pytest.mark.real
@pytest.mark.parametrize(("extension", "data"), KINDS.values(), ids=KINDS)
async def test_picture_of_any_kind_reaches_the_engine_byte_for_byte(
    agent: Agent, extension: str, data: bytes
) -> None:
    got = await agent.run(graphs.loaded(b64(data)))
    assert got.status == 200, got.body
    assert await agent.engine.view(f"{hashlib.sha256(data).hexdigest()}.{extension}", folder="input") == data


async def test_animated_picture_is_loaded_as_a_batch_of_its_frames(agent: Agent) -> None:
    got = await agent.run(graphs.loaded(b64(animation("GIF"))))
    assert [color_of(data) for data in got.results("2")] == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


@pytest.mark.real
async def test_same_picture_twice_is_one_file(agent: Agent, media: MediaServer) -> None:
    data = noisy()
    media.answers["/same.png"] = answer("200 OK", data)
    graph: dict[str, Any] = {
        "1": graphs.node("LoadImage", image=b64(data)),
        "2": graphs.node("LoadImage", image=media.url("/same.png")),
        "3": graphs.node("LoadImage", image=media.url("/same.png")),
        "4": graphs.node("ImageBatch", image1=["1", 0], image2=["2", 0]),
        "5": graphs.node("ImageBatch", image1=["4", 0], image2=["3", 0]),
        "6": graphs.node("SaveImage", images=["5", 0], filename_prefix="same"),
    }
    got = await agent.run(graph)
    assert [color_of(d) for d in got.results("6")] == [ORANGE] * 3
    sent = look(got.results("6")[0]).info["prompt"]
    assert len(set(re.findall(r"[0-9a-f]{64}\.png", sent))) == 1
    assert len(media.requests) == 1, "one URL is fetched once"


@pytest.mark.real
async def test_inputs_of_one_workflow_are_fetched_at_the_same_time(agent: Agent, media: MediaServer) -> None:
    together = asyncio.Barrier(4)

    async def wait_for_all(_server: MediaServer, head: str, writer: asyncio.StreamWriter) -> None:
        # Only four requests at once get past this.
        async with asyncio.timeout(PATIENCE_SECONDS):
            await together.wait()
        writer.write(answer("200 OK", noisy(int(head.split(" ")[1][-1]))))

    media.handlers = {f"/{n}": wait_for_all for n in range(4)}
    graph: dict[str, Any] = {}
    for n in range(4):
        graph[f"load{n}"] = graphs.node("LoadImage", image=media.url(f"/{n}"))
        graph[f"save{n}"] = graphs.node("PreviewImage", images=[f"load{n}", 0])
    got = await agent.run(graph)
    assert [look(*got.results(f"save{n}")).size for n in range(4)] == [(9, 8 + n) for n in range(4)]


NOTHING_USABLE = {
    "name of no file": "nope.png",
    "name of no file in a folder": "jobs/nope.png",
    "empty": "",
    "way out of the folder": "../../etc/passwd",
    "absolute path": "/etc/passwd",
    "other scheme": "ftp://example.com/x.png",
    "file URL": "file:///etc/passwd",
    "number": 5,
    "null": None,
    "object": {"a": 1},
    "broken base64": "A" * 101 + "!",
    "base64 without its end": b64(png(ORANGE))[:-3] + "=",
    "base64 of no picture": b64(b"this is a text, not a picture, and long enough to be taken for base64"),
    "base64 of half a picture": b64(encode(Image.effect_noise((64, 64), 90)))[:2000],
    "data URI of no picture": "data:image/png;base64," + b64(b"GIF? no."),
    "data URI with broken base64": "data:image/png;base64,@@@@",
}


@pytest.mark.real
@pytest.mark.parametrize("value", NOTHING_USABLE.values(), ids=NOTHING_USABLE)
async def test_value_that_is_no_picture_is_refused_with_node_and_input_before_anything_is_queued(
    agent: Agent, value: Any
) -> None:
    graph = {"before": graphs.empty(), "keep": graphs.save(images=["before", 0])}
    graph |= {"7": graphs.node("LoadImage", "My photo", image=value), "8": graphs.save(images=["7", 0])}
    async with agent.engine.asked(0):
        error = (await agent.run(graph)).error(400, "InvalidInput")
    assert (error["node_id"], error["node_title"], error["input"]) == ("7", "My photo", "image")
    assert '"7"' in error["detail"]
    assert '"image"' in error["detail"]


async def not_in_time(_server: MediaServer, _head: str, writer: asyncio.StreamWriter) -> None:
    await writer.drain()
    await asyncio.sleep(30)  # longer than the agent waits; cancelled when the server stops


UNFETCHABLE = {
    "404": (answer("404 Not Found", b"<html>no</html>"), "InputNotFetched"),
    "500": (answer("500 Oops", b"x"), "InputNotFetched"),
    "not a picture": (
        answer("200 OK", b"<html>Please log in</html>", Content_Type="text/html"),
        "InvalidInput",
    ),
    "empty": (answer("200 OK", b""), "InvalidInput"),
    "redirect to private": (
        answer("302 Found", Location="http://169.254.169.254/latest/meta-data/"),
        "InputForbidden",
    ),
    "redirect to file": (answer("302 Found", Location="file:///etc/passwd"), None),
}


@pytest.mark.parametrize(("reply", "code"), UNFETCHABLE.values(), ids=UNFETCHABLE)
async def test_url_that_gives_no_picture_is_refused_with_node_and_input(
    agent: Agent, media: MediaServer, reply: bytes, code: str | None
) -> None:
    media.answers["/x"] = reply
    async with agent.engine.asked(0):
        got = await agent.run(graphs.loaded(media.url("/x?token=s3cret")))
    error = got.error(400, code or got.json["message"])
    assert (error["node_id"], error["input"]) == ("1", "image")
    assert b"s3cret" not in got.body, "the query of a URL is a secret"


@pytest.mark.parametrize(
    "url",
    ["http://10.0.0.1/x.png", "http://[::1]:1/x.png", "http://100.100.100.200/", "http://127.0.0.2:1/x"],
)
async def test_private_address_is_refused_without_being_asked(agent: Agent, url: str) -> None:
    async with agent.engine.asked(0):
        error = (await agent.run(graphs.loaded(url))).error(400, "InputForbidden")
    assert error["node_id"] == "1"


async def test_loopback_is_private_unless_it_is_allowed(make_agent: Any, media: MediaServer) -> None:
    closed = await make_agent(fetch_allow=[])
    (await closed.run(graphs.loaded(media.url("/x.png")))).error(400, "InputForbidden")
    assert media.connections == 0


async def test_url_that_does_not_answer_in_time_is_refused(make_agent: Any, media: MediaServer) -> None:
    media.handlers["/slow"] = not_in_time
    hasty = await make_agent(fetch_allow=["127.0.0.1"], fetch_timeout_seconds=0.2)
    async with hasty.engine.asked(0):
        error = (await hasty.run(graphs.loaded(media.url("/slow")))).error(400, "InputNotFetched")
    assert error["node_id"] == "1"


async def test_input_over_the_limit_is_refused(make_agent: Any, media: MediaServer) -> None:
    small = await make_agent(fetch_allow=["127.0.0.1"], max_input_bytes=1000)
    media.answers["/big"] = answer("200 OK", bytes(5000))
    for value in (media.url("/big"), b64(bytes(5000))):
        error = (await small.run(graphs.loaded(value))).error(413, "InputTooLarge")
        assert error["node_id"] == "1"


async def test_picture_of_too_many_pixels_is_refused(make_agent: Any) -> None:
    small = await make_agent(max_input_pixels=1000)
    got = await small.run(graphs.loaded(b64(png(size=(100, 100)))))
    assert got.status in (400, 413)
    assert got.json["error"]["node_id"] == "1"


@pytest.mark.real
async def test_after_refusals_the_next_request_works(agent: Agent) -> None:
    await asyncio.gather(*(agent.run(graphs.loaded("nope.png")) for _ in range(5)))
    assert color_of(*(await agent.run(graphs.loaded(b64(png(ORANGE))))).results("2")) == ORANGE
