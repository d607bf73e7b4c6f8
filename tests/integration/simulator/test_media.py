"""Files in, files out: what is loaded, saved, previewed and animated."""

from __future__ import annotations

import io
import wave
from typing import Any

import aiohttp
from PIL import Image

from tests.integration.simulator.conftest import Connect, Start
from tests.integration.simulator.talk import Talk, save


async def upload(talk: Talk, name: str, content: bytes) -> None:
    form = aiohttp.FormData(quote_fields=False)
    form.add_field("image", content, filename=name)
    async with talk.session.post("/upload/image", data=form) as answer:
        assert (await answer.json())["name"] == name


def png(mode: str, color: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (8, 4), color).save(buffer, format="PNG")
    return buffer.getvalue()


async def test_loaded_picture_is_saved_as_it_was(start: Start, connect: Connect) -> None:
    talk = await connect(await start())
    await upload(talk, "in.png", png("RGB", (1, 127, 254)))
    load = {"class_type": "LoadImage", "inputs": {"image": "in.png"}}
    picture = await talk.picture(await talk.run({"1": load, "2": save(["1", 0])}), "2")
    assert (picture.mode, picture.size, picture.getpixel((0, 0))) == ("RGB", (8, 4), (1, 127, 254))


async def test_mask_of_a_loaded_picture_is_what_is_transparent(start: Start, connect: Connect) -> None:
    talk = await connect(await start())
    await upload(talk, "rgba.png", png("RGBA", (9, 9, 9, 55)))
    await upload(talk, "rgb.png", png("RGB", (9, 9, 9)))

    async def masked(name: str) -> Image.Image:
        load = {"class_type": "LoadImage", "inputs": {"image": name}}
        shown = {"class_type": "MaskToImage", "inputs": {"mask": ["1", 1]}}
        return await talk.picture(await talk.run({"1": load, "3": shown, "2": save(["3", 0])}), "2")

    assert (await masked("rgba.png")).getpixel((0, 0)) == (200, 200, 200)
    without_alpha = await masked("rgb.png")
    assert (without_alpha.size, without_alpha.getpixel((0, 0))) == ((64, 64), (0, 0, 0))


async def test_uploaded_files_show_in_the_lists(start: Start, connect: Connect) -> None:
    talk = await connect(await start())
    await upload(talk, "clip.mp4", b"video")
    await upload(talk, "song.wav", b"audio")
    video = (await talk.get("/object_info/LoadVideo"))["LoadVideo"]["input"]["required"]["file"]
    assert video == ["COMBO", {"multiselect": False, "options": ["clip.mp4"], "video_upload": True}]
    audio = (await talk.get("/object_info/LoadAudio"))["LoadAudio"]["input"]["required"]["audio"]
    assert audio == [["clip.mp4", "song.wav"], {"audio_upload": True}]


async def test_audio_goes_through_unchanged(start: Start, connect: Connect) -> None:
    talk = await connect(await start())
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(b"\1\2" * 80)
    await upload(talk, "in.wav", buffer.getvalue())
    keep = {"class_type": "SaveAudio", "inputs": {"audio": ["1", 0], "filename_prefix": "audio/x"}}
    entry = await talk.run({"1": {"class_type": "LoadAudio", "inputs": {"audio": "in.wav"}}, "2": keep})
    (file,) = entry["outputs"]["2"]["audio"]
    assert file == {"filename": "x_00001_.wav", "subfolder": "audio", "type": "output"}
    async with talk.session.get("/view", params=file) as answer:
        assert await answer.read() == buffer.getvalue()


async def test_video_stand_in_begins_like_a_video_and_says_what_it_is(start: Start, connect: Connect) -> None:
    talk = await connect(await start())
    await upload(talk, "in.mp4", b"whatever")
    keep = {"video": ["1", 0], "filename_prefix": "video/x", "format": "auto", "codec": "auto"}
    nodes = {"1": {"class_type": "LoadVideo", "inputs": {"file": "in.mp4"}}}
    entry = await talk.run(nodes | {"2": {"class_type": "SaveVideo", "inputs": keep}})
    assert entry["outputs"]["2"]["animated"] == [True]
    content = await talk.view(entry, "2")
    assert content[4:12] == b"ftypisom"
    assert b"simulator" in content


async def test_animations_hold_every_frame(start: Start, connect: Connect) -> None:
    talk = await connect(await start())
    nodes: dict[str, Any] = {
        str(at): {
            "class_type": "EmptyImage",
            "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": color},
        }
        for at, color in ((1, 0xFF0000), (2, 0x00FF00))
    }
    nodes["3"] = {"class_type": "ImageBatch", "inputs": {"image1": ["1", 0], "image2": ["2", 0]}}
    common = {"images": ["3", 0], "filename_prefix": "a", "fps": 6.0}
    webp = common | {"lossless": True, "quality": 80, "method": "default"}
    nodes["4"] = {"class_type": "SaveAnimatedWEBP", "inputs": webp}
    nodes["5"] = {"class_type": "SaveAnimatedPNG", "inputs": common | {"compress_level": 4}}
    entry = await talk.run(nodes)
    for node_id in ("4", "5"):
        assert getattr(await talk.picture(entry, node_id), "n_frames") == 2  # noqa: B009 - not of every image
