"""What becomes of files that cannot be labelled."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from agent.admission import RunRequest
from agent.errors import NotLabelled, OutputCorrupt, PictureTooLarge
from agent.labels import mark, picture
from agent.labels.labeller import PARALLEL_PICTURES, Labeller
from agent.labels.options import LabelOptions
from agent.outputs.collect import Collected, media_type_of
from agent.settings import SettingsError, load_settings
from agent.tasks.live import LiveTask
from agent.tasks.memory import MemoryStore
from agent.tasks.record import Output, TaskRecord
from agent.tasks.store import Claim
from comfyui.workflow import Workflow
from tests.certificates import SigningFiles
from tests.integration.agent.graphs import painted
from tests.integration.agent.service import settings_of
from tests.unit.labels.files import encode, noise


def made(*files: tuple[str, bytes]) -> list[Collected]:
    return [
        Collected(
            Output(
                index=index,
                node_id="9",
                filename=name,
                subfolder="",
                type="output",
                media_type=media_type_of(name),
                bytes=len(data),
                url=f"/api/tasks/t/outputs/{index}",
            ),
            data,
        )
        for index, (name, data) in enumerate(files)
    ]


def task() -> LiveTask:
    store = MemoryStore(record_ttl_seconds=1, output_ttl_seconds=1, max_output_bytes=1, reread_seconds=1)
    record = TaskRecord(id="t", created_at=0)
    return LiveTask(record, store, Claim("t", 1, "me", 60), is_background=False, must_keep=False)


def wanting(**labels: Any) -> RunRequest:
    return RunRequest(Workflow.parse(painted()), "digest", labels=LabelOptions(**labels))


JPEG = encode(noise(), "JPEG")


@pytest.mark.parametrize("mode", ["warn", "enforce"])
@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("x.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF"),
        ("x.jpg", b"no picture"),
        ("x.webp", encode(noise(), "WEBP")[:-20]),
        ("x.png", encode(noise(), "PNG")[:60]),
    ],
)
async def test_broken_picture_is_never_delivered_without_its_labels(
    mode: str, name: str, data: bytes
) -> None:
    with pytest.raises(OutputCorrupt) as found:
        await Labeller(settings_of()).apply(
            task(), wanting(iptc=mode), made(("fine.jpg", JPEG), (name, data))
        )
    assert (found.value.facts["node_id"], found.value.facts["filename"]) == ("9", name)
    assert f'"{name}" of node "9"' in found.value.detail


async def test_picture_that_cannot_be_drawn_upon() -> None:
    broken = JPEG[: JPEG.index(b"\xff\xda") + 20]
    with pytest.raises(OutputCorrupt, match="cannot be worked on"):
        await Labeller(settings_of()).apply(task(), wanting(mark="warn"), made(("x.jpg", broken)))


@pytest.mark.parametrize(("kind", "name"), [("PNG", "x.png"), ("WEBP", "x.webp"), ("JPEG", "x.jpg")])
async def test_mark_on_a_picture_with_too_many_pixels_is_warned_of_or_fails(kind: str, name: str) -> None:
    data = encode(noise((96, 64)), kind)
    labeller, live = Labeller(settings_of(max_output_pixels=1000)), task()
    (done,) = await labeller.apply(live, wanting(mark="warn", iptc="enforce"), made((name, data)))
    assert b"trainedAlgorithmicMedia" in done.data
    (warning,) = live.record.warnings
    assert warning["code"] == "NotLabelled"
    assert "too many pixels for the visible mark (AGENT_MAX_OUTPUT_PIXELS: 1000" in warning["detail"]
    with pytest.raises(NotLabelled, match="too many pixels for the visible mark") as caught:
        await labeller.apply(task(), wanting(mark="enforce"), made((name, data)))
    assert (caught.value.facts["node_id"], caught.value.facts["filename"]) == ("9", name)


async def test_picture_with_too_many_pixels_is_not_converted() -> None:
    labeller = Labeller(settings_of(max_output_pixels=1000))
    data = encode(noise((96, 64)), "PNG")
    with pytest.raises(PictureTooLarge, match="96 x 64 pixels, more than 1000, so it is not converted"):
        await labeller.convert(data, lambda _: pytest.fail("it is not even looked at"))


async def test_certificate_that_ends_while_the_agent_runs(
    signer: SigningFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    labeller = Labeller(settings_of(**signer.settings()))
    assert labeller.credentials is not None
    monkeypatch.setattr(labeller.credentials, "_algorithm", "ps256")
    with pytest.raises(NotLabelled, match="could not be signed"):
        await labeller.apply(task(), wanting(c2pa="warn"), made(("x.jpg", JPEG)))


async def test_one_warning_a_node() -> None:
    live = task()
    files = made(("a.mp4", b"1"), ("b.jpg", JPEG), ("c.mp4", b"2"))
    done = await Labeller(settings_of()).apply(live, wanting(iptc="warn"), files)
    assert [item.data == before.data for item, before in zip(done, files, strict=True)] == [True, False, True]
    assert [item.output.bytes for item in done] == [len(item.data) for item in done]
    (warning,) = live.record.warnings
    assert warning["detail"] == (
        'Output file "a.mp4" and 1 more of node "9": its format has no room for IPTC\'s DigitalSourceType.'
    )


async def test_few_pictures_are_worked_on_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lock, working, most = threading.Lock(), 0, 0
    enough = threading.Barrier(PARALLEL_PICTURES)

    def slowly(data: bytes, _: object) -> picture.Labelled:
        nonlocal working, most
        with lock:
            working += 1
            most = max(most, working)
        enough.wait(30)
        with lock:
            working -= 1
        return picture.Labelled(data)

    monkeypatch.setattr(picture, "label", slowly)
    files = made(*((f"{n}.jpg", JPEG) for n in range(PARALLEL_PICTURES * 3)))
    await asyncio.wait_for(Labeller(settings_of()).apply(task(), wanting(iptc="warn"), files), 60)
    assert most == PARALLEL_PICTURES


async def test_mark_on_an_animation_ends_with_its_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """An animation may take minutes; a task that is cancelled leaves the threads to others."""
    frames = [noise((60, 40), "RGB", number) for number in range(1, 31)]
    data = encode(frames[0], "PNG", save_all=True, append_images=frames[1:])
    begun, may_go_on = threading.Event(), threading.Event()
    drawn: list[object] = []
    drawable = mark._drawable

    def slowly(frame: Image.Image) -> Image.Image:
        drawn.append(frame)
        begun.set()
        assert may_go_on.wait(30)
        return drawable(frame)

    monkeypatch.setattr(mark, "_drawable", slowly)
    labeller = Labeller(settings_of())
    labelling = asyncio.create_task(labeller.apply(task(), wanting(mark="warn"), made(("x.png", data))))
    assert await asyncio.to_thread(begun.wait, 30)
    labelling.cancel()
    await asyncio.wait({labelling})
    may_go_on.set()
    everybody = threading.Barrier(PARALLEL_PICTURES)  # who meet only when its place is free
    await asyncio.gather(*(labeller._gate.run(everybody.wait, 30) for _ in range(PARALLEL_PICTURES)))
    assert len(drawn) == 1


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"AGENT_LABEL_AIGC": "warn"}, "AGENT_LABEL_AIGC needs AGENT_LABEL_AIGC_PRODUCER"),
        ({"AGENT_LABEL_C2PA": "enforce"}, "AGENT_LABEL_C2PA needs AGENT_LABEL_C2PA_CERTIFICATE"),
        ({"AGENT_LABEL_C2PA_KEY": "/x"}, "belong together"),
        ({"AGENT_LABEL_MARK_HEIGHT": "4.9"}, "AGENT_LABEL_MARK_HEIGHT must be a number, at least 5"),
        ({"AGENT_LABEL_IPTC": "true"}, "AGENT_LABEL_IPTC must be off, warn or enforce"),
    ],
)
def test_settings_that_contradict_each_other(
    environ: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=says):
        load_settings(environ)


def test_unusable_certificate_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        Labeller(
            settings_of(label_c2pa_certificate=str(tmp_path / "no"), label_c2pa_key=str(tmp_path / "no"))
        )
