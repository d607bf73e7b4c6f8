"""Turns the media inputs of a workflow into files that the engine can read.

An input is an http(s) URL, an s3:// or oss:// reference, a data URI, base64, or the name of a file that the engine has
already. Which inputs are media is the engine's to say (`Catalog.media_inputs`); every other value passes through
untouched.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from agent.errors import AgentError, InvalidInput
from agent.inputs.decode import decode_base64, looks_like_base64, parse_data_uri
from agent.inputs.fetched import Fetched
from agent.inputs.folder import InputFolder
from agent.inputs.kinds import MediaKind, MediaLimits
from comfyui.catalog import Catalog, MediaInput
from comfyui.client import Client, FileRef
from comfyui.workflow import Workflow

if TYPE_CHECKING:
    from agent.inputs.media import Media

#: No file name is longer; longer values are not looked up.
LONGEST_NAME = 1024

#: Below this a check is done before a thread has started.
INLINE_BYTES = 32 * 1024

#: Inputs of all tasks that are fetched, checked and handed over at the same time.
PARALLEL_INPUTS = 8

#: Files of all tasks that wait in memory for the engine to start.
PARALLEL_PREFETCHES = 8

#: Names of uploaded files to remember; a forgotten one is uploaded again, which ComfyUI notices and skips.
REMEMBERED_UPLOADS = 10_000

#: Names under which loaders take files. Only these are fetched before the engine has said which inputs are media.
MEDIA_NAMES = ("image", "mask", "video", "audio", "file")

WANTED = "Send an http(s), s3:// or oss:// URL, a data URI, base64, or the name of a file in ComfyUI's input folder."


class Source(Protocol):
    """Where references lead."""

    async def fetch(self, reference: str) -> Fetched:
        """Raises InputForbidden, InputTooLarge and InputNotFetched."""


@dataclass(slots=True)
class _Upload:
    """A file of ours in the engine's input folder. `is_sure`: it is there, as far as we know."""

    name: str
    users: int = 0
    idle_since: float = 0.0
    is_sure: bool = True


class Prefetch:
    """Downloads that were begun early. `gate` bounds those of all tasks; one that it has not let through when the file
    is needed was not begun. Close it when the task needs them no more."""

    def __init__(self, fetcher: Source, gate: asyncio.Semaphore, workflow: Workflow) -> None:
        self._fetcher, self._gate = fetcher, gate
        self._through: set[str] = set()
        self._held: list[_Upload] = []
        self._begun = {url: asyncio.create_task(self._download(url)) for url in _likely_urls(workflow)}

    async def fetch(self, url: str) -> Fetched:
        """The file at `url`, from the download under way if there is one. Raises as `Fetcher.fetch`."""
        begun = self._begun.pop(url, None)
        if begun is None or url not in self._through:
            if begun is not None:
                await _cancel(begun)
            return await self._fetcher.fetch(url)
        try:
            return await begun
        finally:
            self._let_out(url)

    def hold(self, upload: _Upload) -> None:
        """Use an uploaded file until the task needs it no more."""
        upload.users += 1
        self._held.append(upload)

    async def aclose(self) -> None:
        for upload in self._held:
            upload.users -= 1
            upload.idle_since = time.monotonic()
        self._held.clear()
        for task in self._begun.values():
            await _cancel(task)
        for url in tuple(self._through):
            self._let_out(url)

    async def _download(self, url: str) -> Fetched:
        """Holds its place at the gate until the file is handed over: it is in memory as long."""
        await self._gate.acquire()
        self._through.add(url)
        return await self._fetcher.fetch(url)

    def _let_out(self, url: str) -> None:
        if url in self._through:
            self._through.remove(url)
            self._gate.release()


class InputResolver:
    """Fetches, checks and uploads inputs. Calls may run at the same time; the same bytes are uploaded once."""

    def __init__(
        self, client: Client, fetcher: Source, limits: MediaLimits, *, folder: Path | None = None
    ) -> None:
        """`folder`: the engine's input folder, if it is known and on this machine."""
        self._client, self._fetcher, self._limits = client, fetcher, limits
        self._folder = InputFolder(client, folder)
        self._uploaded: dict[str, _Upload] = {}
        self._uploading: dict[str, asyncio.Lock] = {}
        self._gate = asyncio.Semaphore(PARALLEL_INPUTS)
        self._prefetch_gate = asyncio.Semaphore(PARALLEL_PREFETCHES)

    def prefetch(self, workflow: Workflow) -> Prefetch:
        """Begin to download what must be media, while the engine that could say for certain still starts."""
        return Prefetch(self._fetcher, self._prefetch_gate, workflow)

    def forget_uploads(self) -> None:
        """The engine was started anew and may have lost its input folder."""
        self._folder.doubt()
        for upload in self._uploaded.values():
            upload.is_sure = False

    def idle_uploads(self) -> dict[str, float]:
        """Names of the files that were uploaded and that no task uses, with the time since when."""
        return {u.name: u.idle_since for u in self._uploaded.values() if u.users == 0}

    def forget_upload(self, name: str) -> None:
        """The file was removed: the next task that needs it uploads it again."""
        self._uploaded = {key: u for key, u in self._uploaded.items() if u.name != name or u.users > 0}

    async def resolve(self, workflow: Workflow, catalog: Catalog, prefetch: Prefetch) -> Workflow:
        """The workflow with every media input replaced by a file name; all inputs are fetched at the same time.

        Raises the first InvalidInput, InputNotFetched, InputForbidden or InputTooLarge with `node_id`, `node_title`
        and `input`, and ComfyUIError when the engine does not take a file.
        """
        wanted: dict[tuple[str, str], list[MediaInput]] = {}
        changes: dict[tuple[str, str], str] = {}
        for item in catalog.media_inputs(workflow):
            if not isinstance(item.value, str) or not item.value:
                raise _at(InvalidInput(f"{_say(item, workflow)} names no file. {WANTED}"), item, workflow)
            if not item.is_known:
                wanted.setdefault((item.kind, item.value), []).append(item)

        async def settle(kind: str, value: str, items: list[MediaInput]) -> None:
            try:
                async with self._gate:
                    name = await self._resolve_one(value, MediaKind(kind), prefetch)
            except AgentError as error:
                error.detail = f"{_say(items[0], workflow)}: {error.detail}"
                raise _at(error, items[0], workflow) from None
            changes.update({(item.node_id, item.input_name): name for item in items})

        try:
            async with asyncio.TaskGroup() as group:
                for (kind, value), items in wanted.items():
                    group.create_task(settle(kind, value, items))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return workflow.with_inputs(changes) if changes else workflow

    async def _resolve_one(self, value: str, kind: MediaKind, prefetch: Prefetch) -> str:
        text = value.strip()
        scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", text[:32])
        match scheme and scheme[1].lower():
            case "http" | "https" | "s3" | "oss":
                fetched = await prefetch.fetch(text)
                size = len(fetched.data)
                return await self._hand_over(partial(_named, fetched), kind, size, prefetch)
            case "data":
                read = partial(parse_data_uri, text, self._limits.max_bytes)
                return await self._hand_over(read, kind, len(text), prefetch)
            case _:
                return await self._resolve_bare(value, kind, prefetch)

    async def _resolve_bare(self, value: str, kind: MediaKind, prefetch: Prefetch) -> str:
        """A file name where the engine has such a file, else base64."""
        if len(value) <= LONGEST_NAME and await self._names_file(value):
            return value
        if not looks_like_base64(value):
            raise InvalidInput(f"ComfyUI has no such file, and the value is no URL and no base64. {WANTED}")
        read = partial(_unnamed, value, self._limits.max_bytes)
        return await self._hand_over(read, kind, len(value), prefetch)

    async def _names_file(self, value: str) -> bool:
        file = parse_file_name(value)
        return file is not None and await self._client.has_file(file)

    async def _hand_over(
        self, read: Callable[[], tuple[str | None, bytes]], kind: MediaKind, size: int, prefetch: Prefetch
    ) -> str:
        """The name under which the engine finds the file. `read` gives a hint at its type, and its bytes, and takes a
        while where what it reads is of some `size`."""
        from agent.inputs.media import inspect  # noqa: PLC0415 - Pillow need not be there before the first picture

        def read_and_inspect() -> Media:
            hint, data = read()
            return inspect(data, kind, self._limits, hint=hint)

        media = read_and_inspect() if size <= INLINE_BYTES else await asyncio.to_thread(read_and_inspect)
        async with self._uploading.setdefault(media.name, asyncio.Lock()):
            if upload := self._uploaded.get(media.name):
                prefetch.hold(upload)  # before anything is waited for: it must not be cleaned away meanwhile
            if upload is None or not upload.is_sure:
                name = media.name
                if not await self._folder.put(name, media.data):
                    name = await self._client.upload(name, media.data)
                if upload is None:
                    upload = self._uploaded[media.name] = _Upload(name)
                    prefetch.hold(upload)
                upload.name, upload.is_sure = name, True
                if len(self._uploaded) > REMEMBERED_UPLOADS:
                    del self._uploaded[next(iter(self._uploaded))]
            self._uploading.pop(media.name, None)
            return upload.name


def _likely_urls(workflow: Workflow) -> set[str]:
    """URLs in inputs that are called as loaders call theirs, on nodes that load: those without a link."""
    loaders = (node for node in workflow.nodes.values() if not any(node.links()))
    values = (node.inputs.get(name) for node in loaders for name in MEDIA_NAMES)
    texts = {value.strip() for value in values if isinstance(value, str)}
    return {text for text in texts if re.match(r"(?:https?|s3|oss)://\S+$", text, re.IGNORECASE)}


def parse_file_name(value: str) -> FileRef | None:
    """Read a loader's value as ComfyUI does: `sub/cat.png`, optionally with ` [input]`, ` [output]` or ` [temp]`.

    None for what no file of the engine's own folders can be called.
    """
    match = re.fullmatch(r"(?P<path>[^\x00-\x1f]+?)(?: \[(?P<type>input|output|temp)\])?", value)
    if match is None or match["path"].startswith(("/", "\\")) or ".." in re.split(r"[/\\]", match["path"]):
        return None
    subfolder, _, filename = match["path"].rpartition("/")
    return FileRef(filename, subfolder, match["type"] or "input") if filename else None


async def _cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _named(fetched: Fetched) -> tuple[str | None, bytes]:
    return fetched.filename or fetched.content_type, fetched.data


def _unnamed(text: str, max_bytes: int) -> tuple[str | None, bytes]:
    return None, decode_base64(text, max_bytes)


def _at(error: AgentError, item: MediaInput, workflow: Workflow) -> AgentError:
    return error.with_facts(
        node_id=item.node_id, node_title=workflow.title(item.node_id), input=item.input_name
    )


def _say(item: MediaInput, workflow: Workflow) -> str:
    return f'Input "{item.input_name}" of node "{item.node_id}" ({workflow.title(item.node_id)})'
