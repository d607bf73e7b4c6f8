"""The files of a finished prompt: all of them, in order, whole."""

from __future__ import annotations

import asyncio
import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from agent.errors import AgentError, OutputCorrupt, OutputMissing, OutputTooLarge
from agent.outputs.collect import Collected, collect, media_type_of
from agent.tasks.progress import Progress
from comfyui.client import Client, FileRef
from comfyui.errors import EngineUnreachableError, FileMissingError
from comfyui.events import NodeExecuted, PreviewImage
from comfyui.workflow import Workflow

DEADLINE = 5


def png(side: int = 8, *, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (side, side)).save(buffer, "PNG")
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge_png(width: int, height: int) -> bytes:
    """A PNG that says it has this many pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


class Engine(Client):
    """Serves these files; the first ones take longest."""

    def __init__(self, files: dict[FileRef, bytes | Exception]) -> None:
        super().__init__("http://127.0.0.1:1")
        self.files, self.at_once, self.most = files, 0, 0

    async def fetch_file(self, file: FileRef, reserve: Callable[[int], None] = lambda _: None) -> bytes:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await asyncio.sleep(0.02 if file.filename.startswith("a") else 0)
        self.at_once -= 1
        found = self.files.get(file, FileMissingError("no"))
        if isinstance(found, Exception):
            raise found
        reserve(len(found))
        return found


def finished(**outputs: list[dict[str, Any]]) -> Progress:
    """A progress in which the nodes n2, n1, ... gave these files; the workflow has them in this order."""
    progress = Progress(Workflow({node: {"class_type": "SaveImage", "inputs": {}} for node in outputs}))
    for node, files in reversed(outputs.items()):
        progress.apply(NodeExecuted("p", node, node, {"images": files}))
    return progress


def file(name: str, subfolder: str = "", kind: str = "output") -> dict[str, Any]:
    return {"filename": name, "subfolder": subfolder, "type": kind}


async def collected(engine: Engine, progress: Progress, max_bytes: int = 2**30) -> list[Collected]:
    async with asyncio.timeout(DEADLINE):
        return await collect(engine, "t", progress, max_bytes)


async def failure(data: bytes | Exception, name: str = "a.png") -> AgentError:
    with pytest.raises(AgentError) as failed:
        await collected(Engine({FileRef(name): data}), finished(n9=[file(name)]))
    return failed.value


async def test_outputs_come_in_the_order_of_the_workflow_and_of_each_list() -> None:
    names = ["b.png", "a.png", "d.png"]
    engine = Engine(
        {FileRef(name): png(i + 1) for i, name in enumerate(names)} | {FileRef("c.txt", "s", "temp"): b"text"}
    )
    progress = finished(
        n2=[file("b.png"), file("a.png")], n1=[], n3=[file("c.txt", "s", "temp"), file("d.png")]
    )
    outputs = [one.output for one in await collected(engine, progress)]
    assert [(o.index, o.node_id, o.filename, o.subfolder, o.type) for o in outputs] == [
        (0, "n2", "b.png", "", "output"),
        (1, "n2", "a.png", "", "output"),
        (2, "n3", "c.txt", "s", "temp"),
        (3, "n3", "d.png", "", "output"),
    ]
    assert [o.media_type for o in outputs] == ["image/png", "image/png", "text/plain", "image/png"]
    assert [o.url for o in outputs] == [f"/api/tasks/t/outputs/{i}" for i in range(4)]
    assert outputs[2].bytes == 4


async def test_bytes_are_those_of_the_file() -> None:
    data = png()
    ((one),) = await collected(Engine({FileRef("a.png"): data}), finished(n=[file("a.png")]))
    assert one.data is data


async def test_a_run_without_files_collects_nothing() -> None:
    assert await collected(Engine({}), finished(n=[])) == []


async def test_few_files_are_fetched_at_once() -> None:
    names = [f"{i}.bin" for i in range(20)]
    engine = Engine({FileRef(name): b"x" for name in names})
    assert len(await collected(engine, finished(n=[file(name) for name in names]))) == 20
    assert 1 < engine.most <= 4


async def test_outputs_together_may_be_as_large_as_the_limit_and_no_larger() -> None:
    engine = Engine({FileRef("a.bin"): bytes(60), FileRef("b.bin"): bytes(40)})
    progress = finished(n=[file("a.bin"), file("b.bin")])
    assert len(await collected(engine, progress, max_bytes=100)) == 2
    with pytest.raises(OutputTooLarge, match="AGENT_MAX_OUTPUT_BYTES") as failed:
        await collected(engine, progress, max_bytes=99)
    assert failed.value.facts == {"node_id": "n", "filename": "a.bin", "limit": 99}
    assert (failed.value.status, failed.value.transient) == (500, False)


async def test_pictures_sent_over_the_websocket_are_not_fetched() -> None:
    progress = Progress(Workflow({"2": {"class_type": "SaveImageWebsocket", "inputs": {}}}))
    pictures = [png(1), png(2)]
    for data in pictures:
        progress.apply(PreviewImage("p", "2", "image/png", data))
    found = await collected(Engine({}), progress)
    assert [one.data for one in found] == pictures
    assert [one.output.type for one in found] == ["websocket"] * 2


@pytest.mark.parametrize("cut", [1, 8, 20, 33, 40, 60, -8, -12, -13])
async def test_a_truncated_picture_is_noticed_wherever_it_ends(cut: int) -> None:
    error = await failure(png(64)[:cut])
    assert isinstance(error, OutputCorrupt)
    assert error.facts == {"node_id": "n9", "filename": "a.png"}
    assert '"a.png" of node "n9"' in error.detail


async def test_a_flipped_bit_is_noticed() -> None:
    data = bytearray(png(64))
    data[50] ^= 1
    assert isinstance(await failure(bytes(data)), OutputCorrupt)


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.mp4", "a", "a.txt"])
async def test_an_empty_file_is_corrupt(name: str) -> None:
    error = await failure(b"", name)
    assert isinstance(error, OutputCorrupt)
    assert "empty" in error.detail
    assert error.transient


@pytest.mark.parametrize("name", ["a\nb.png", "a\x7fb.png"])
async def test_a_file_that_comfyui_cannot_hand_out_is_not_asked_for(name: str) -> None:
    error = await failure(AssertionError("it was asked for"), name)
    assert isinstance(error, OutputMissing)
    assert "line break" in error.detail


async def test_a_file_that_is_gone_is_missing() -> None:
    error = await failure(FileMissingError("404"))
    assert isinstance(error, OutputMissing)
    assert error.facts == {"node_id": "n9", "filename": "a.png"}
    assert error.transient


async def test_an_engine_that_is_gone_is_no_missing_file() -> None:
    with pytest.raises(EngineUnreachableError):
        await collected(Engine({FileRef("a.png"): EngineUnreachableError("x")}), finished(n=[file("a.png")]))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "I;16", "1", "P", "LA"])
async def test_pictures_of_every_mode_pass(mode: str) -> None:
    assert await collected(Engine({FileRef("a.PNG"): png(mode=mode)}), finished(n=[file("a.PNG")]))


@pytest.mark.parametrize("side", [10_000, 16_384, 32_768])
async def test_an_upscaled_picture_is_not_taken_for_an_attack(side: int) -> None:
    # Pillow warns of more than 89 megapixels and refuses more than 178 when it opens a picture.
    assert await collected(Engine({FileRef("a.png"): huge_png(side, side)}), finished(n=[file("a.png")]))


async def test_an_animated_png_passes() -> None:
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (4, 4), c) for c in ("red", "blue")]
    frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:])
    assert await collected(Engine({FileRef("a.png"): buffer.getvalue()}), finished(n=[file("a.png")]))


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("a.png", "image/png"),
        ("A.PNG", "image/png"),
        ("a.jpg", "image/jpeg"),
        ("a.webp", "image/webp"),
        ("a.gif", "image/gif"),
        ("a.avif", "image/avif"),
        ("a.mp4", "video/mp4"),
        ("a.webm", "video/webm"),
        ("a.flac", "audio/flac"),
        ("a.mp3", "audio/mpeg"),
        ("a.glb", "model/gltf-binary"),
        ("a.latent", "application/octet-stream"),
        ("png", "application/octet-stream"),
        ("a", "application/octet-stream"),
        ("", "application/octet-stream"),
    ],
)
def test_the_media_type_follows_the_name(name: str, media_type: str) -> None:
    assert media_type_of(name) == media_type
