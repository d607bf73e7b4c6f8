"""ComfyUI's HTTP routes, typed: those that the agent uses.

Every foreign exception is translated here: no answer is EngineUnreachableError, an answer outside the protocol
is UnexpectedAnswerError. Methods may be called at the same time; one keep-alive connection pool serves them all.
"""

from __future__ import annotations

import contextlib
import io
import re
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from pydantic_core import to_json

from comfyui.answers import parse_json
from comfyui.errors import (
    EngineUnreachableError,
    FileMissingError,
    PromptRejectedError,
    UnexpectedAnswerError,
)


def _patience(connect: float, silence: float) -> ClientTimeout:
    """Seconds that a connection may take, and that the engine may be silent."""
    return ClientTimeout(total=None, sock_connect=connect, sock_read=silence)


#: A heavy node can hold the interpreter lock for long; short timeouts would take a busy engine for a dead one.
USUAL_PATIENCE = _patience(connect=5, silence=60)

#: How long an idle connection may be used again. Short, since this instance may be frozen meanwhile, when connections
#: die without a sign; the clock goes on, and a new connection on loopback takes less than a millisecond.
KEEPALIVE_SECONDS = 3

#: A large body goes out in pieces of this size.
PIECE_BYTES = 256 * 1024


#: ComfyUI saves files under such names, and breaks the connection off where it is asked for one: its web server puts no
#: such name into a header.
UNSERVED = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class FileRef:
    """A file in one of the engine's folders: `type` is output, input or temp."""

    filename: str
    subfolder: str = ""
    type: str = "output"


@dataclass(frozen=True, slots=True)
class Submitted:
    """Answer to POST /prompt. `node_errors` is not empty when only a part of the outputs will be made."""

    prompt_id: str
    number: float
    node_errors: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Queue:
    """Prompt ids of GET /queue; `pending` in the order in which they will run."""

    running: tuple[str, ...]
    pending: tuple[str, ...]

    def __contains__(self, prompt_id: str) -> bool:
        return prompt_id in self.running or prompt_id in self.pending


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """A prompt that ended. `outputs` maps node ids to what they gave, also when the prompt failed later on;
    `messages` are the last events as (type, data)."""

    succeeded: bool
    outputs: dict[str, dict[str, Any]]
    messages: tuple[tuple[str, dict[str, Any]], ...]


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")


def _any_size(_: int) -> None:
    """A file may be as large as it is."""


class Client:
    """Speaks to the engine at `url`, for example http://127.0.0.1:9001."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.version = ""
        self._opened: ClientSession | None = None

    async def close(self) -> None:
        """Close all connections. A later call opens new ones."""
        session, self._opened = self._opened, None
        if session is not None:
            await session.close()

    async def system_stats(self, timeout: float | None = None) -> dict[str, Any]:
        """Version, memory and devices. Answers as soon as the engine is ready for prompts; `timeout` in seconds."""
        stats = await self._get_json("/system_stats", timeout=timeout)
        with _reading("GET /system_stats"):
            self.version = str((stats.get("system") or {}).get("comfyui_version") or "")
        return stats

    async def object_info(self) -> dict[str, Any]:
        """Every node class with its inputs: half a megabyte or more."""
        return await self._get_json("/object_info")

    async def submit(
        self,
        graph: Mapping[str, Any],
        *,
        prompt_id: str,
        client_id: str,
        extra_data: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Submitted:
        """Queue a workflow. `prompt_id` must be a canonical lower-case UUID for later versions.

        `extra_data` is left out when empty: null kills the engine's worker thread. `options` are further fields
        of the request (front, number, partial_execution_targets).

        Raises PromptRejectedError when ComfyUI refuses the workflow.
        """
        body = {**(options or {}), "prompt": graph, "client_id": client_id, "prompt_id": prompt_id}
        if extra_data:
            body["extra_data"] = extra_data
        response = await self._post("/prompt", body)
        if response.status == 400:
            answer = _json(response, "POST /prompt")
            error = answer.get("error")
            if not isinstance(error, dict):  # a mere sentence in versions of 2023
                error = {"message": error}
            raise PromptRejectedError(error, _node_errors(answer))
        answer = _json(_expect_200(response, "POST /prompt"), "POST /prompt")
        with _reading("POST /prompt"):
            return Submitted(str(answer["prompt_id"]), float(answer["number"]), _node_errors(answer))

    async def queue(self) -> Queue:
        answer = await self._get_json("/queue")
        with _reading("GET /queue"):
            pending = sorted(answer["queue_pending"], key=lambda item: (item[0], item[1]))
            return Queue(tuple(i[1] for i in answer["queue_running"]), tuple(i[1] for i in pending))

    async def dequeue(self, prompt_id: str) -> None:
        """Take a pending prompt out of the queue. Nothing tells whether it was there."""
        await self._tell("/queue", {"delete": [prompt_id]})

    async def interrupt(self, prompt_id: str) -> None:
        """Stop the prompt if it is the running one: at its next node or progress step, or never if it ends first.

        Versions before 0.3.57 interrupt whatever runs (ComfyUI pull request 9607), so there the queue is asked
        first; a neighbour that starts between the two questions is still hit.
        """
        if _is_before(self.version, (0, 3, 57)) and prompt_id not in (await self.queue()).running:
            return
        await self._tell("/interrupt", {"prompt_id": prompt_id})

    async def history(self, prompt_id: str) -> HistoryEntry | None:
        """The prompt's entry; None while it waits or runs, and for a prompt that the engine does not know."""
        entry = (await self._get_json(f"/history/{prompt_id}")).get(prompt_id)
        if entry is None:
            return None
        with _reading("GET /history"):
            status = entry.get("status") or {}
            messages = tuple((m[0], m[1]) for m in status.get("messages") or ())
            outputs = {node: ui for node, ui in (entry.get("outputs") or {}).items() if isinstance(ui, dict)}
            return HistoryEntry(status.get("status_str") == "success", outputs, messages)

    async def forget(self, prompt_ids: Iterable[str]) -> None:
        """Remove history entries; each holds its whole graph."""
        await self._tell("/history", {"delete": list(prompt_ids)})

    async def free(self, *, unload_models: bool, free_memory: bool) -> None:
        """Give memory back after the running prompt. `free_memory` also forgets every cached node result."""
        await self._tell("/free", {"unload_models": unload_models, "free_memory": free_memory})

    async def has_file(self, file: FileRef) -> bool:
        """Whether /view would serve this file."""
        response = await self._request("HEAD", "/view", params=_query(file))
        return response.status == 200

    async def fetch_file(self, file: FileRef, reserve: Callable[[int], None] = _any_size) -> bytes:
        """The whole file. `reserve` is called with a number of bytes before so many more of them are kept, and with the
        length of the file first where the engine says it: what it raises ends the download.

        Raises FileMissingError for 400, 403 and 404.
        """
        async with self._asking("GET", "/view", params=_query(file)) as response:
            if response.status in (400, 403, 404):
                raise FileMissingError(f"{file.type} file {file.subfolder}/{file.filename} is not there")
            if response.status != 200:
                _expect_200(_Answer(response.status, await response.read()), "GET /view")
            announced = response.headers.get("Content-Length", "")
            reserved = int(announced) if announced.isdecimal() else 0
            reserve(reserved)
            # Grows in place and gives its memory away at the end: a list of pieces would be a second copy of the file.
            data = io.BytesIO()
            async for piece in response.content.iter_any():
                size = data.tell() + len(piece)
                if size > reserved:  # unpacked, it is longer than it said
                    reserve(size - reserved)
                    reserved = size
                data.write(piece)
            return data.getvalue()

    async def upload(self, name: str, data: bytes, folder: Literal["input", "temp"] = "input") -> str:
        """Put a file at the top of a folder and return the name that a loader node must be given.

        The same name with the same bytes is not written again. Use plain ASCII names: others are stored
        percent-encoded.
        """
        boundary = uuid.uuid4().hex
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="type"\r\n\r\n{folder}\r\n'
            f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
        response = await self._send(
            "/upload/image", f"multipart/form-data; boundary={boundary}", head, data, tail
        )
        answer = _json(_expect_200(response, "POST /upload/image"), "POST /upload/image")
        with _reading("POST /upload/image"):
            subfolder = answer.get("subfolder")
            return f"{subfolder}/{answer['name']}" if subfolder else str(answer["name"])

    async def _get_json(self, path: str, timeout: float | None = None) -> dict[str, Any]:
        patience = USUAL_PATIENCE if timeout is None else _patience(timeout, timeout)
        response = await self._request("GET", path, timeout=patience)
        return _json(_expect_200(response, f"GET {path}"), f"GET {path}")

    async def _tell(self, path: str, body: Mapping[str, Any]) -> None:
        _expect_200(await self._post(path, body), f"POST {path}")

    async def _post(self, path: str, body: Mapping[str, Any]) -> _Answer:
        return await self._send(path, "application/json", to_json(body))

    async def _send(self, path: str, content_type: str, *parts: bytes) -> _Answer:
        headers = {"Content-Type": content_type, "Content-Length": str(sum(map(len, parts)))}
        return await self._request("POST", path, data=_in_pieces(*parts), headers=headers)

    async def _request(self, method: str, path: str, **more: Any) -> _Answer:
        async with self._asking(method, path, **more) as response:
            return _Answer(response.status, await response.read())

    @contextlib.asynccontextmanager
    async def _asking(self, method: str, path: str, **more: Any) -> AsyncIterator[ClientResponse]:
        """The engine's answer. None, or only a part of one, is an unreachable engine."""
        try:
            url = f"{self.url}{path}"
            async with self._session().request(method, url, allow_redirects=False, **more) as response:
                yield response
        except (ClientError, TimeoutError) as exc:
            reason = str(exc) or type(exc).__name__
            raise EngineUnreachableError(f"{method} {path}: {reason}") from exc

    def _session(self) -> ClientSession:
        if self._opened is None:
            self._opened = ClientSession(
                connector=TCPConnector(limit=64, keepalive_timeout=KEEPALIVE_SECONDS),
                timeout=USUAL_PATIENCE,
                cookie_jar=DummyCookieJar(),
                headers={"Accept-Encoding": "identity"},  # on one machine, packing costs more than it saves
                read_bufsize=PIECE_BYTES,
            )
        return self._opened


async def _in_pieces(*parts: bytes) -> AsyncIterator[memoryview]:
    """A body that is not copied, and that leaves the event loop time between its pieces."""
    for part in parts:
        view = memoryview(part)
        for start in range(0, len(view), PIECE_BYTES):
            yield view[start : start + PIECE_BYTES]


def _is_before(version: str, bound: tuple[int, ...]) -> bool:
    """Whether a version such as "0.3.43" is older. An unknown one counts as new."""
    numbers = [int(part) for part in version.split(".")[:3] if part.isdigit()]
    return bool(numbers) and tuple(numbers) < bound


def _query(file: FileRef) -> dict[str, str]:
    return {"filename": file.filename, "subfolder": file.subfolder, "type": file.type}


def _expect_200(response: _Answer, what: str) -> _Answer:
    if response.status != 200:
        raise UnexpectedAnswerError(what, response.status, response.text)
    return response


def _node_errors(answer: dict[str, Any]) -> dict[str, Any]:
    """Older versions send an empty list for none."""
    found = answer.get("node_errors")
    return found if isinstance(found, dict) else {}


@contextlib.contextmanager
def _reading(what: str) -> Iterator[None]:
    """What goes wrong while an answer is read is the answer's fault: it lacks what the protocol promises."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as exc:
        raise UnexpectedAnswerError(what, 200, f"not as expected ({type(exc).__name__}: {exc})") from exc


def _json(response: _Answer, what: str) -> dict[str, Any]:
    try:
        answer = parse_json(response.body)
    except ValueError as exc:
        raise UnexpectedAnswerError(what, response.status, "not JSON") from exc
    if not isinstance(answer, dict):
        raise UnexpectedAnswerError(what, response.status, "not an object")
    return answer
