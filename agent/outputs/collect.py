"""Gets the files of a finished prompt, from the engine's folders or from the engine itself, and checks each one."""

from __future__ import annotations

import asyncio
import io
import mimetypes
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Any, Protocol

from agent.errors import AgentError, OutputCorrupt, OutputMissing, OutputTooLarge
from agent.tasks.progress import Progress
from agent.tasks.record import NodeProgress, Output
from comfyui.client import UNSERVED, FileRef
from comfyui.errors import FileMissingError

#: Files fetched from the engine at the same time.
PARALLEL_FETCHES = 4

#: Below this a file is checked before a thread has started.
INLINE_BYTES = 32 * 1024

#: What Python's own table lacks.
MEDIA_TYPES = {
    ".webp": "image/webp",
    ".avif": "image/avif",
    ".glb": "model/gltf-binary",
    ".flac": "audio/flac",
}

#: Formats whose verify() reads the whole file; for the others it would only repeat the header check.
VERIFIED = (".png", ".apng")


@dataclass(frozen=True, slots=True)
class Collected:
    """One output and its bytes."""

    output: Output
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Wanted:
    index: int
    node_id: str
    file: FileRef
    data: bytes | None = field(default=None, repr=False)


class _Room:
    """What a task's outputs may still take up in memory. Asked in threads too."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = self._left = max_bytes
        self._lock = Lock()

    def take(self, item: _Wanted, size: int) -> None:
        """Raises OutputTooLarge when there is no room for so many more bytes of this file."""
        with self._lock:
            self._left -= size
            is_full = self._left < 0
        if is_full:
            reason = (
                f"the outputs of the task are larger together than {self._max_bytes} bytes, and "
                "AGENT_MAX_OUTPUT_BYTES allows for no more"
            )
            raise _fault(OutputTooLarge, item, reason).with_facts(limit=self._max_bytes)


class Files(Protocol):
    """Where the engine's files come from."""

    async def fetch_file(self, file: FileRef, reserve: Callable[[int], None]) -> bytes:
        """As `Client.fetch_file`."""


async def collect(files: Files, task_id: str, progress: Progress, max_bytes: int) -> list[Collected]:
    """Every file that the nodes produced, in the order of the workflow's nodes and of each node's list.

    Raises OutputMissing, OutputCorrupt, and OutputTooLarge where they are more than `max_bytes` together, with
    `node_id` and `filename`; EngineUnreachableError.
    """
    room = check_streamed(progress, max_bytes)
    gate = asyncio.Semaphore(PARALLEL_FETCHES)

    async def fetch(item: _Wanted) -> Collected:
        async with gate:
            data = item.data if item.data is not None else await _fetch(files, item, room)
        if len(data) <= INLINE_BYTES:
            _check(item, data)
        else:
            await asyncio.to_thread(_check, item, data)
        return Collected(_describe(task_id, item, len(data)), data)

    try:
        async with asyncio.TaskGroup() as group:
            fetches = [group.create_task(fetch(item)) for item in _wanted(progress)]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [done.result() for done in fetches]


def check_streamed(progress: Progress, max_bytes: int) -> _Room:
    """What is left of `max_bytes` beside the pictures that came over the WebSocket. Raises OutputTooLarge."""
    room = _Room(max_bytes)
    for item in _wanted(progress):
        if item.data is not None:
            room.take(item, len(item.data))
    return room


def named_files(progress: Progress) -> list[FileRef]:
    """The files that the nodes have named so far."""
    return files_of(progress.snapshot())


def files_of(nodes: Mapping[str, NodeProgress]) -> list[FileRef]:
    """The files that a progress map names."""
    return [_file_of(entry) for node in nodes.values() for entry in node.images]


def _wanted(progress: Progress) -> Iterator[_Wanted]:
    index = 0
    for node_id, node in progress.snapshot().items():
        for number, entry in enumerate(node.images):
            streamed = progress.streamed.get(node_id, [])
            data = streamed[number] if entry.get("type") == "websocket" and number < len(streamed) else None
            yield _Wanted(index, node_id, _file_of(entry), data)
            index += 1


def _file_of(entry: dict[str, Any]) -> FileRef:
    return FileRef(entry["filename"], str(entry.get("subfolder") or ""), str(entry.get("type") or "output"))


async def _fetch(files: Files, item: _Wanted, room: _Room) -> bytes:
    if UNSERVED.search(item.file.filename):
        reason = "its name has a line break or another control character, and ComfyUI does not hand such a file out"
        raise _fault(OutputMissing, item, reason)
    try:
        return await files.fetch_file(item.file, partial(room.take, item))
    except FileMissingError:
        raise _fault(
            OutputMissing, item, "ComfyUI names it as a result, but does not have it (any more)"
        ) from None


def _check(item: _Wanted, data: bytes) -> None:
    if not data:
        raise _fault(OutputCorrupt, item, "the file is empty")
    if not item.file.filename.lower().endswith(VERIFIED):
        return
    from PIL.PngImagePlugin import PngImageFile  # noqa: PLC0415 - keeps the start of the process light

    try:
        # Not Image.open: it takes an upscaled picture of 180 megapixels for an attack. Nothing is decoded here.
        with PngImageFile(io.BytesIO(data)) as picture:
            picture.verify()
    except Exception as exc:  # noqa: BLE001 - Pillow raises whatever it meets in a broken file
        raise _fault(OutputCorrupt, item, f"the picture is broken ({exc})") from None


def _fault(kind: type[AgentError], item: _Wanted, reason: str) -> AgentError:
    return kind(
        f'Output file "{item.file.filename}" of node "{item.node_id}" cannot be used: {reason}.',
        node_id=item.node_id,
        filename=item.file.filename,
    )


def _describe(task_id: str, item: _Wanted, size: int) -> Output:
    return Output(
        index=item.index,
        node_id=item.node_id,
        filename=item.file.filename,
        subfolder=item.file.subfolder,
        type=item.file.type,
        media_type=media_type_of(item.file.filename),
        bytes=size,
        url=f"/api/tasks/{task_id}/outputs/{item.index}",
    )


def media_type_of(filename: str) -> str:
    """Media type by the name's extension; application/octet-stream when it says nothing."""
    suffix = "." + filename.rpartition(".")[2].lower()
    return MEDIA_TYPES.get(suffix) or mimetypes.guess_type(filename)[0] or "application/octet-stream"
