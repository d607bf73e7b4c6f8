"""Which outputs come to the object store, and what becomes of those that do not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from agent.admission import RunRequest
from agent.errors import AgentError, AnswerTooLarge, InvalidOptions, ObjectStoreUnavailable, StoreUnavailable
from agent.object_access import Access
from agent.objects import ObjectStore
from agent.outputs.collect import Collected
from agent.outputs.places import PARALLEL_UPLOADS, OutputPlaces
from agent.settings import Outputs
from agent.tasks.live import LiveTask
from agent.tasks.memory import MemoryStore
from agent.tasks.record import Output, TaskRecord
from agent.tasks.store import Claim
from comfyui.workflow import Workflow
from tests.integration.agent.graphs import painted, sampled
from tests.integration.agent.service import settings_of

LIMIT = 1000
ACCESS = Access("bucket", None, None, None, is_virtual_hosted=False, credentials=None, timeout_seconds=1)


class Objects(ObjectStore):
    """Keeps what is put in a dict, and fails for the keys that hold a word."""

    def __init__(self, fails_for: str | None = None) -> None:
        super().__init__(ACCESS, "pre")
        self.kept: dict[str, tuple[bytes, str, str]] = {}
        self.asked = 0
        self._fails_for = fails_for

    async def put(self, key: str, data: bytes, media_type: str, disposition: str = "") -> None:
        self.asked += 1
        await asyncio.sleep(0)
        if self._fails_for is not None and self._fails_for in key:
            raise ObjectStoreUnavailable("It is away.")
        self.kept[key] = (data, media_type, disposition)


def collected(*files: tuple[str, str, bytes]) -> list[Collected]:
    """Files as (node id, file name, bytes)."""
    return [
        Collected(
            Output(
                index=i,
                node_id=node_id,
                filename=name,
                subfolder="",
                type="output",
                media_type="image/png" if name.endswith("png") else "text/html",
                bytes=len(data),
                url=f"/api/tasks/t/outputs/{i}",
            ),
            data,
        )
        for i, (node_id, name, data) in enumerate(files)
    ]


def wanting(outputs: Outputs | None = None, graph: Any = None) -> RunRequest:
    return RunRequest(Workflow.parse(graph or painted()), "digest", outputs=outputs)


def places(objects: ObjectStore | None, *, is_shared: bool = True, **settings: Any) -> OutputPlaces:
    return OutputPlaces(settings_of(max_answer_bytes=LIMIT, **settings), objects, is_shared=is_shared)


@pytest.fixture
async def live() -> LiveTask:
    return await make()


async def make(*, is_claimed: bool = True) -> LiveTask:
    record, store = TaskRecord(id="t", created_at=0), MemoryStore(record_ttl_seconds=9, output_ttl_seconds=9)
    claim = await store.take(record, expected_fence=0, owner="me", lease_seconds=60) if is_claimed else None
    assert claim is None or isinstance(claim, Claim)
    made = LiveTask(record, store, claim, is_background=False, must_keep=False)
    made.finish()  # nothing of it is written
    return made


def keys_of(live: LiveTask) -> list[str | None]:
    return [output.object_key for output in live.record.outputs]


async def test_uploaded_files_leave_the_task(live: LiveTask) -> None:
    objects = Objects()
    files = collected(("9", "ü a.png", b"one"), ("9", "page.html", b"two"))
    await places(objects).place(live, wanting(Outputs.URL), files)
    assert keys_of(live) == ["pre/t/1/0-__a.png", "pre/t/1/1-page.html"]
    assert objects.kept["pre/t/1/0-__a.png"] == (
        b"one",
        "image/png",
        "inline; filename*=UTF-8''%C3%BC%20a.png",
    )
    assert objects.kept["pre/t/1/1-page.html"][2].startswith("attachment;"), "it could run scripts there"
    assert live.outputs == [None, None]
    assert live.record.warnings == []
    assert "upload" in live.record.timings


async def test_without_a_wish_and_below_the_limit_nothing_is_uploaded(live: LiveTask) -> None:
    objects = Objects()
    for wish in (None, Outputs.INLINE):
        await places(objects).place(live, wanting(wish), collected(("9", "a.png", b"one")))
    assert (objects.asked, live.outputs, keys_of(live)) == (0, [b"one"], [None])


async def test_what_is_too_large_is_uploaded_against_the_wish(live: LiveTask) -> None:
    large = collected(("9", "a.png", bytes(LIMIT)))
    await places(Objects()).place(live, wanting(Outputs.INLINE), large)
    assert live.outputs == [None]


async def test_files_of_a_node_stay_together_where_one_of_them_fails(live: LiveTask) -> None:
    files = collected(("8", "ok.png", b"1"), ("9", "fine.png", b"2"), ("9", "bad.png", b"3"))
    await places(Objects(fails_for="bad")).place(live, wanting(Outputs.URL), files)
    assert keys_of(live) == ["pre/t/1/0-ok.png", None, None]
    assert live.outputs == [None, b"2", b"3"]
    (warning,) = live.record.warnings
    assert (warning["code"], warning["node_id"]) == ("OutputNotUploaded", "9")
    assert "It is away." in warning["detail"]


async def test_a_store_that_is_away_is_not_asked_again_for_each_file(live: LiveTask) -> None:
    objects = Objects(fails_for="")
    files = collected(*((str(n), f"{n}.png", b"x") for n in range(20)))
    await places(objects).place(live, wanting(Outputs.URL), files)
    assert objects.asked == PARALLEL_UPLOADS
    assert live.outputs == [b"x"] * 20
    assert len(live.record.warnings) == 20


@contextmanager
def left_alone(live: LiveTask, error: type[AgentError]) -> Iterator[None]:
    with pytest.raises(error):
        yield
    assert live.outputs == []


async def test_too_large_and_no_place(live: LiveTask) -> None:
    large, request = collected(("9", "a.png", bytes(LIMIT))), wanting()
    unclaimed = await make(is_claimed=False)
    with left_alone(live, AnswerTooLarge):
        await places(None, is_shared=False).place(live, request, large)
    with left_alone(live, ObjectStoreUnavailable):
        await places(Objects(fails_for=""), is_shared=False).place(live, request, large)
    with left_alone(unclaimed, StoreUnavailable):
        await places(None).place(unclaimed, request, large)
    await places(Objects(fails_for="")).place(live, request, large)
    assert live.outputs == [bytes(LIMIT)], "others fetch it from the shared store"


async def test_a_task_that_nobody_could_claim_has_keys_that_no_other_run_has() -> None:
    objects, keys = Objects(), set[str | None]()
    for _ in range(2):
        live = await make(is_claimed=False)
        await places(objects).place(live, wanting(Outputs.URL), collected(("9", "a.png", b"1")))
        keys |= set(keys_of(live))
    assert len(keys) == 2
    assert all(key is not None and key.startswith("pre/t/x") for key in keys)


def large_batch() -> Any:
    graph = sampled()
    graph["4"]["inputs"]["batch_size"] = 4096
    return graph


def test_only_what_has_no_place_is_refused_beforehand() -> None:
    request = wanting(graph=large_batch())
    with pytest.raises(AnswerTooLarge):
        places(None, is_shared=False).check(request)
    places(None).check(request)
    places(Objects(), is_shared=False).check(request)
    OutputPlaces(settings_of(), None, is_shared=False).check(request)
    places(None, is_shared=False).check(wanting(graph=sampled() | {"4": large_batch()["4"] | {"inputs": {}}}))


def test_a_wish_for_urls_needs_a_store() -> None:
    with pytest.raises(InvalidOptions, match="AGENT_OBJECT_STORE"):
        places(None).check(wanting(Outputs.URL))
    places(None).check(wanting(Outputs.INLINE))
    places(Objects()).check(wanting(Outputs.URL))
