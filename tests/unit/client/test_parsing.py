"""What the client makes of bytes, without a server."""

from __future__ import annotations

import subprocess
import sys

import pytest

from agent.client import AgentClient, OutputFile, Result, TaskFailed, new_task_id
from agent.client.following import EventReader


@pytest.mark.parametrize(
    ("sent", "events"),
    [
        ([b"data: 1\n\ndata: 2\n\n"], ["1", "2"]),
        ([b"da", b"ta: 1", b"\n", b"\nda", b"ta: 2\n\n"], ["1", "2"]),
        ([b"data: 1\r\n\r\n"], ["1"]),
        ([b"data: a\ndata:b\n\n"], ["a\nb"]),
        ([b": still here\n\n:\n\ndata: 1\n\n"], ["1"]),
        ([b"id: 7\nevent: x\nretry: 10\ndata: 1\n\n"], ["1"]),
        ([b"\n\n\n"], []),
        ([b"data: cut of"], []),
        ([b"data: no blank line after it\n"], []),
        ([], []),
    ],
)
def test_events_are_read_however_they_are_cut(sent, events):
    reader = EventReader()
    assert [data.decode() for chunk in sent for data in reader.feed(chunk)] == events


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:9000",
        "ftp://x",
        "http://",
        "/api",
        "http://x:99999",
        "http://x:port",
        "http://[::1",
        "http://two words",
        "http://x/#",
        "http://x/comfyui/?key=sesame",
        "http://me:sesame@x/?",
    ],
)
def test_address_that_is_none_is_refused_at_once(url):
    with pytest.raises(ValueError, match="no address of an agent") as refused:
        AgentClient(url)
    assert "sesame" not in str(refused.value)


def test_address_from_a_file_may_end_with_its_line():
    with AgentClient("http://x/prefix/\n") as client:
        assert client.url == "http://x/prefix"


@pytest.mark.parametrize("task_id", ["", "..", "a/b", "a b", "a" * 129, "a\n", "é"])
def test_task_id_that_would_leave_its_place_in_the_path_is_refused(task_id):
    with AgentClient("http://127.0.0.1:1") as client, pytest.raises(ValueError, match="task-id"):
        client.task(task_id)


def test_new_task_ids_begin_with_a_letter_and_differ():
    first, second = new_task_id(), new_task_id()
    assert first[0].isalpha()
    assert first != second


def test_images_are_the_outputs_whose_names_say_so(picture_bytes):
    names = ["a.png", "b.mp4", "c.WEBP", "d.txt", "e"]
    result = Result("t", {}, [OutputFile("9", name, picture_bytes) for name in names])
    assert [image.size for image in result.images()] == [(3, 2), (3, 2)]


def test_failed_task_says_what_happened():
    record = {"id": "t1", "state": "failed", "error": {"code": "NodeFailed", "detail": "It broke."}}
    failure = TaskFailed(record)
    assert (failure.task_id, failure.state, failure.code, failure.detail) == (
        "t1",
        "failed",
        "NodeFailed",
        "It broke.",
    )
    assert str(failure) == "task t1 failed: NodeFailed: It broke."


def test_import_brings_nothing_of_the_service_and_no_pillow():
    heavy = {"PIL", "aiohttp", "httpx", "pydantic", "rich", "structlog", "typer", "websockets"}
    code = f"import sys; from agent.client import AgentClient; print(sorted({heavy!r} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=20
    )
    assert done.stdout == "[]\n", done.stderr
