"""Media inputs become files of the engine: each kind of value, and what is said of those that cannot."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from agent.errors import AgentError, InputNotFetched, InputTooLarge, InvalidInput
from agent.inputs.fetch import Fetcher
from agent.inputs.fetched import Fetched
from agent.inputs.kinds import MediaLimits
from agent.inputs.resolve import InputResolver, parse_file_name
from comfyui.catalog import Catalog
from comfyui.client import Client, FileRef
from comfyui.errors import EngineUnreachableError
from comfyui.workflow import Workflow
from tests.unit.comfyui.recordings import object_info

DEADLINE = 5


def png(color: int = 0, side: int = 2) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), color).save(buffer, "PNG")
    return buffer.getvalue()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Engine(Client):
    """Has these files, and takes uploads."""

    def __init__(self, *files: FileRef) -> None:
        super().__init__("http://127.0.0.1:1")
        self.files, self.asked = set(files), list[FileRef]()
        self.uploads: list[tuple[str, bytes]] = []
        self.failures = 0

    async def has_file(self, file: FileRef) -> bool:
        self.asked.append(file)
        return file in self.files

    async def upload(self, name: str, data: bytes, folder: str = "input") -> str:
        assert folder == "input"
        self.uploads.append((name, data))
        await asyncio.sleep(0)  # others get their turn, as over HTTP
        if self.failures:
            self.failures -= 1
            raise EngineUnreachableError("POST /upload/image: refused")
        return f"stored-{name}"


class Web(Fetcher):
    """Has these pages."""

    def __init__(self, pages: dict[str, Fetched | Exception]) -> None:
        self.pages, self.fetched = pages, list[str]()

    async def fetch(self, url: str) -> Fetched:
        self.fetched.append(url)
        await asyncio.sleep(0)
        page = self.pages[url]
        if isinstance(page, Exception):
            raise page
        return page


CATALOG = Catalog(object_info())
LIMITS = MediaLimits(max_bytes=100_000, max_pixels=1_000_000)


class Case:
    """An engine, a web and a resolver between them."""

    def __init__(
        self,
        files: Iterable[FileRef] = (),
        pages: dict[str, Fetched | Exception] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.engine, self.web = Engine(*files), Web(pages or {})
        self.resolver = InputResolver(self.engine, self.web, LIMITS, folder=folder)

    async def resolve(self, *values: Any, kind: str = "LoadImage", name: str = "image") -> list[Any]:
        """What becomes of these values, each on a node of its own."""
        graph = {str(i): {"class_type": kind, "inputs": {name: value}} for i, value in enumerate(values, 1)}
        workflow = Workflow(graph)
        prefetch = self.resolver.prefetch(workflow)
        try:
            async with asyncio.timeout(DEADLINE):
                resolved = await self.resolver.resolve(workflow, CATALOG, prefetch)
        finally:
            await prefetch.aclose()
        return [node.inputs[name] for node in resolved.nodes.values()]

    async def refusal(self, value: Any) -> AgentError:
        with pytest.raises(AgentError) as refused:
            await self.resolve(value)
        return refused.value


@pytest.fixture
def case() -> Case:
    return Case()


@pytest.mark.parametrize(
    ("value", "file"),
    [
        ("cat.png", FileRef("cat.png", "", "input")),
        ("sub/cat.png", FileRef("cat.png", "sub", "input")),
        ("a/b/c d.png", FileRef("c d.png", "a/b", "input")),
        ("cat.png [output]", FileRef("cat.png", "", "output")),
        ("cat.png [temp]", FileRef("cat.png", "", "temp")),
        ("sub/cat.png [input]", FileRef("cat.png", "sub", "input")),
        ("cat.png [other]", FileRef("cat.png [other]", "", "input")),
        ("cat.png[output]", FileRef("cat.png[output]", "", "input")),
        ("猫 & co+1 50%.png", FileRef("猫 & co+1 50%.png", "", "input")),
        ("a..b.png", FileRef("a..b.png", "", "input")),
        (".hidden", FileRef(".hidden", "", "input")),
        ("...", FileRef("...", "", "input")),
        ("..", None),
        ("../cat.png", None),
        ("../output/cat.png", None),
        ("a/../../cat.png", None),
        ("a/..", None),
        ("..\\cat.png", None),
        ("a\\..\\cat.png", None),
        ("../cat.png [output]", None),
        ("/etc/passwd", None),
        ("\\etc\\passwd", None),
        ("//host/share", None),
        ("", None),
        (" [output]", FileRef(" [output]", "", "input")),
        ("sub/", None),
        ("sub/ [output]", None),
        ("a\0b", None),
        ("a\nb", None),
        ("cat.png\n", None),
    ],
)
def test_a_file_name_is_read_as_comfyui_does_but_never_leaves_its_folder(
    value: str, file: FileRef | None
) -> None:
    assert parse_file_name(value) == file


async def test_base64_becomes_an_upload_named_by_its_content(case: Case) -> None:
    (name,) = await case.resolve(b64(png()))
    ((uploaded, data),) = case.engine.uploads
    assert data == png()
    assert name == f"stored-{uploaded}"
    assert len(uploaded) == len("64 digits of SHA-256") - 20 + 64 + len(".png")
    assert uploaded.isascii()


@pytest.mark.parametrize(
    "value", [f"data:image/png;base64,{b64(png())}", f"  {b64(png())}\n", f"DATA:;base64,{b64(png())}"]
)
async def test_every_spelling_of_a_value_gives_the_same_file(case: Case, value: str) -> None:
    assert await case.resolve(value) == await Case().resolve(b64(png()))


async def test_a_url_becomes_an_upload(case: Case) -> None:
    case.web.pages["http://x/cat.png?sign=1"] = Fetched(png(), "image/png", "cat.png")
    (name,) = await case.resolve("http://x/cat.png?sign=1")
    assert name.endswith(".png")
    assert case.engine.uploads[0][1] == png()


async def test_a_file_that_the_engine_has_is_left_alone() -> None:
    case = Case([FileRef("mine.png", "sub dir", "input"), FileRef("old.png", "", "output")])
    assert await case.resolve("sub dir/mine.png", "old.png [output]") == [
        "sub dir/mine.png",
        "old.png [output]",
    ]
    assert case.engine.uploads == []


async def test_a_name_that_the_catalogue_lists_is_not_even_asked_for(case: Case) -> None:
    assert await case.resolve("example.png") == ["example.png"]
    assert case.engine.asked == []


async def test_a_file_name_that_looks_like_base64_is_the_file(case: Case) -> None:
    name = "a" * 64
    case.engine.files.add(FileRef(name, "", "input"))
    assert await case.resolve(name) == [name]


async def test_the_same_value_is_fetched_and_uploaded_once(case: Case) -> None:
    url = "http://x/a.png"
    case.web.pages[url] = Fetched(png(), None, None)
    names = await case.resolve(url, url, url)
    assert len(set(names)) == 1
    assert case.web.fetched == [url]
    assert len(case.engine.uploads) == 1


async def test_the_same_bytes_in_different_spellings_are_uploaded_once(case: Case) -> None:
    urls = [f"http://x/{i}.png" for i in range(3)]
    case.web.pages |= {url: Fetched(png(), None, None) for url in urls}
    names = await case.resolve(b64(png()), f"data:image/png;base64,{b64(png())}", *urls)
    assert len(set(names)) == 1
    assert len(case.engine.uploads) == 1


async def test_the_same_bytes_of_workflows_at_the_same_time_are_uploaded_once(case: Case) -> None:
    await asyncio.gather(*(case.resolve(b64(png())) for _ in range(5)))
    assert len(case.engine.uploads) == 1
    await case.resolve(b64(png()))
    assert len(case.engine.uploads) == 1


async def test_an_upload_that_failed_is_tried_again_by_who_needs_it_too(case: Case) -> None:
    case.engine.failures = 1
    results = await asyncio.gather(*(case.resolve(b64(png())) for _ in range(3)), return_exceptions=True)
    assert [isinstance(result, EngineUnreachableError) for result in results].count(True) == 1
    assert len(case.engine.uploads) == 2


async def test_an_engine_that_was_started_anew_gets_the_files_again(case: Case) -> None:
    await case.resolve(b64(png()))
    case.resolver.forget_uploads()
    await case.resolve(b64(png()))
    assert len(case.engine.uploads) == 2


async def test_other_inputs_pass_through_untouched(case: Case) -> None:
    graph = {
        "1": {"class_type": "CLIPTextEncode", "inputs": {"text": b64(png()), "clip": ["2", 1]}},
        "2": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "http://x/model"}},
        "3": {"class_type": "LoadImage", "inputs": {"image": ["1", 0]}},
        "4": {"class_type": "Custom", "inputs": {"image": b64(png())}},
    }
    workflow = Workflow(graph)
    prefetch = case.resolver.prefetch(workflow)
    assert await case.resolver.resolve(workflow, CATALOG, prefetch) is workflow
    await prefetch.aclose()
    assert case.engine.uploads == []


async def test_a_download_begun_early_is_used_and_no_second_one_made(case: Case) -> None:
    url = "https://x/a.png"
    case.web.pages[url] = Fetched(png(), None, None)
    workflow = Workflow({"1": {"class_type": "LoadImage", "inputs": {"image": url}}})
    prefetch = case.resolver.prefetch(workflow)
    await asyncio.sleep(0)
    assert case.web.fetched == [url]
    await case.resolver.resolve(workflow, CATALOG, prefetch)
    assert case.web.fetched == [url]
    await prefetch.aclose()


async def test_an_early_download_that_nobody_needed_harms_nobody(case: Case) -> None:
    case.web.pages["http://x/a"] = InputNotFetched("no")
    workflow = Workflow({"1": {"class_type": "Custom", "inputs": {"image": "http://x/a"}}})
    prefetch = case.resolver.prefetch(workflow)
    await case.resolver.resolve(workflow, CATALOG, prefetch)
    await prefetch.aclose()
    assert case.engine.uploads == []


@pytest.mark.parametrize("value", [None, 5, 1.5, True, {}, {"a": 1}, ""])
async def test_a_value_that_cannot_name_a_file_is_refused(case: Case, value: Any) -> None:
    error = await case.refusal(value)
    assert isinstance(error, InvalidInput)
    assert 'Input "image" of node "1" (LoadImage) names no file' in error.detail
    assert error.facts == {"node_id": "1", "node_title": "LoadImage", "input": "image"}


@pytest.mark.parametrize(
    "value",
    [
        "nope.png",
        "../../etc/passwd",
        "/etc/passwd",
        "ftp://x/a.png",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "   ",
        "a\0b",
        "x" * 2000 + "!",
        b64(png())[:-10] + "*" * 10,
        b64(b"this is no picture, but well-formed base64 of enough length"),
        "data:image/png;base64,####",
        "data:image/png",
        "data:text/plain,hello",
    ],
)
async def test_every_refusal_names_node_and_input_and_does_not_repeat_the_value(
    case: Case, value: str
) -> None:
    error = await case.refusal(value)
    assert isinstance(error, InvalidInput)
    assert error.detail.startswith('Input "image" of node "1" (LoadImage): ')
    assert error.facts | {"node_id": "1", "node_title": "LoadImage", "input": "image"} == error.facts
    assert len(error.detail) < 500
    assert case.engine.uploads == []


async def test_what_a_url_answers_is_told_with_its_node(case: Case) -> None:
    case.web.pages["http://x/a.png"] = InputNotFetched("http://x/a.png answered 404.", url="http://x/a.png")
    error = await case.refusal("http://x/a.png")
    assert isinstance(error, InputNotFetched)
    assert error.detail == 'Input "image" of node "1" (LoadImage): http://x/a.png answered 404.'
    assert error.facts["url"] == "http://x/a.png"


async def test_an_input_over_the_limit_is_refused(case: Case) -> None:
    error = await case.refusal(b64(bytes(100_001)))
    assert isinstance(error, InputTooLarge)
    assert error.facts["input"] == "image"


async def test_a_picture_of_too_many_pixels_is_refused(case: Case) -> None:
    assert isinstance(await case.refusal(b64(png(side=1001))), InputTooLarge)


async def test_one_bad_input_refuses_the_workflow(case: Case) -> None:
    with pytest.raises(InvalidInput) as refused:
        await case.resolve(b64(png()), "nope.png")
    assert refused.value.facts["node_id"] == "2"


async def test_an_engine_that_cannot_be_reached_is_no_fault_of_the_caller(case: Case) -> None:
    case.engine.failures = 1
    with pytest.raises(EngineUnreachableError):
        await case.resolve(b64(png()))


async def test_a_picture_for_a_video_input_is_judged_as_video(case: Case) -> None:
    with pytest.raises(InvalidInput):
        await case.resolve(b64(png()), kind="LoadVideo", name="file")


class Looking(Engine):
    """Shows what lies in this folder, if it looks there."""

    def __init__(self, folder: Path, *, looks_there: bool) -> None:
        super().__init__()
        self.folder, self.looks_there = folder, looks_there

    async def has_file(self, file: FileRef) -> bool:
        self.asked.append(file)
        return self.looks_there and (self.folder / file.filename).is_file()


def case_with(folder: Path, *, looks_there: bool = True) -> Case:
    case = Case(folder=folder)
    case.engine = Looking(folder, looks_there=looks_there)
    case.resolver = InputResolver(case.engine, case.web, LIMITS, folder=folder)
    return case


async def test_file_is_put_into_the_engines_folder_where_that_can_be_written(tmp_path: Path) -> None:
    case, pictures = case_with(tmp_path), [png(1), png(2)]
    names = await case.resolve(*map(b64, pictures))
    assert [(tmp_path / name).read_bytes() for name in names] == pictures
    assert case.engine.uploads == []
    assert len(list(tmp_path.iterdir())) == 2, "nothing else is left there"
    proofs = len(case.engine.asked)
    await case.resolve(b64(png(3)))
    assert len(case.engine.asked) == proofs + 1, "base64 is asked for as a name; the folder is proven"
    (tmp_path / names[0]).write_bytes(b"damaged")
    case.resolver.forget_uploads()
    assert await case.resolve(b64(pictures[0])) == [names[0]]
    assert (tmp_path / names[0]).read_bytes() == pictures[0]


async def test_engine_that_looks_elsewhere_is_sent_the_file(tmp_path: Path) -> None:
    case = case_with(tmp_path, looks_there=False)
    (name,) = await case.resolve(b64(png(1)))
    assert name.startswith("stored-")
    await case.resolve(b64(png(2)))
    assert len(case.engine.uploads) == 2
    assert list(tmp_path.iterdir()) == []


async def test_folder_that_cannot_be_written_is_no_reason_to_fail(tmp_path: Path) -> None:
    case = case_with(tmp_path / "missing")
    (name,) = await case.resolve(b64(png(1)))
    assert name.startswith("stored-")
    assert len(case.engine.uploads) == 1
