"""A synchronous client of the agent's HTTP interface, for scripts and back ends.

    with AgentClient("http://localhost:9000") as agent:
        for picture in agent.run(workflow).images():
            picture.show()

It needs nothing of the service but its address. Numbers are exact in both directions.
"""

from __future__ import annotations

import base64
import json
import mimetypes
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urljoin, urlsplit

import requests
from urllib3.exceptions import HTTPError

if TYPE_CHECKING:
    from PIL.Image import Image

Workflow = Mapping[str, Any]
OnProgress = Callable[[dict[str, Any]], None]
T = TypeVar("T")

#: How long a run may be silent. The agent itself ends tasks after an hour unless it is told otherwise.
RUN_SECONDS = 3600.0

#: An event stream carries at least a comment every 20 seconds; after three missing ones it is dead.
STREAM_SILENCE_SECONDS = 65.0

#: Pauses before opening a dropped event stream again, in seconds; after the last one it is given up.
RECONNECT_PAUSES = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)

#: A stream that held for so long was not refused: what broke it says nothing about the next one.
SETTLED_SECONDS = 5.0

#: Answers of proxies and of instances that start or stop; a stream that was open before is tried again.
UNAVAILABLE = (429, 502, 503, 504)

FINAL_STATES = ("succeeded", "failed", "cancelled")
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")

#: What Python's own table may lack.
PICTURE_SUFFIXES = (".webp", ".avif")

_TASK_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}")


class AgentClientError(Exception):
    """The base of what this module raises. `code` is stable, `detail` is a sentence for people."""

    code = "AgentClientError"

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(detail)


class AgentUnreachable(AgentClientError):
    """Nobody answers at the agent's address, or the connection broke before the answer was complete."""

    code = "AgentUnreachable"


class AgentRequestError(AgentClientError):
    """The agent, or something in front of it, refused a request or failed to serve it.

    `status` is HTTP's, `code` the agent's stable word, `body` the whole answer (a dict if it was JSON), and
    `retry_after` the seconds after which another try makes sense, if the answer said so.
    """

    def __init__(
        self, status: int, code: str, detail: str, body: Any, retry_after: float | None = None
    ) -> None:
        self.status, self.code, self.body, self.retry_after = status, code, body, retry_after
        super().__init__(detail)

    def __str__(self) -> str:
        return f"{self.status} {self.code}: {self.detail}"

    @property
    def task_id(self) -> str | None:
        return self.body.get("task_id") if isinstance(self.body, dict) else None


class TaskFailed(AgentClientError):
    """A task ended without a result. `state` is failed or cancelled, `record` is its final record."""

    def __init__(self, record: dict[str, Any]) -> None:
        self.record = record
        self.task_id: str = record["id"]
        self.state: str = record["state"]
        error = record.get("error") or {}
        self.code = error.get("code", "TaskCancelled" if self.state == "cancelled" else "InternalError")
        super().__init__(error.get("detail") or f"The task was {self.state}.")

    def __str__(self) -> str:
        return f"task {self.task_id} {self.state}: {self.code}: {self.detail}"


@dataclass(frozen=True, slots=True)
class OutputFile:
    """One file that a node produced."""

    node_id: str
    filename: str
    data: bytes = field(repr=False)

    @property
    def is_picture(self) -> bool:
        """Whether its name says that it is one; an animation counts."""
        guessed = mimetypes.guess_type(self.filename)[0] or ""
        return guessed.startswith("image/") or self.filename.lower().endswith(PICTURE_SUFFIXES)

    def image(self) -> Image:
        """The file as a Pillow image. Raises PIL.UnidentifiedImageError for anything else."""
        import io  # noqa: PLC0415

        from PIL import Image as PillowImage  # noqa: PLC0415 - who only moves bytes does not need Pillow

        return PillowImage.open(io.BytesIO(self.data))


@dataclass(frozen=True, slots=True)
class Result:
    """A task that succeeded. `nodes` is the progress map without the results; these are in `outputs`, in order."""

    task_id: str
    nodes: dict[str, dict[str, Any]] = field(repr=False)
    outputs: list[OutputFile]

    def images(self) -> list[Image]:
        """The outputs that are pictures, as Pillow images, in order."""
        return [output.image() for output in self.outputs if output.is_picture]


class AgentClient:
    """Talks to one agent, or to any instance behind one address. Use one client a thread.

    `timeout` bounds connecting, and the silence before and within an ordinary answer, in seconds.
    `reconnect_pauses` are waited one after the other before a dropped event stream is opened again. Every method
    raises AgentRequestError when the agent refuses, and AgentUnreachable when nobody answers.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        timeout: float = 30,
        *,
        reconnect_pauses: Sequence[float] = RECONNECT_PAUSES,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no address of an agent; it looks like http://localhost:9000")
        self.url = url.rstrip("/")
        self.timeout = timeout
        self._reconnect_pauses = tuple(reconnect_pauses)
        self._session = _Session()
        self._session.headers["User-Agent"] = "comfyui-agent-client"
        # A proxy of the environment cannot stand between two processes of one machine.
        self._session.trust_env = parts.hostname not in LOOPBACK_NAMES
        if api_key is not None:
            self._session.headers[_Session.KEY_HEADER] = api_key

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. The client can be used again."""
        self._session.close()

    def run(self, workflow: Workflow, task_id: str | None = None, *, timeout: float = RUN_SECONDS) -> Result:
        """Run a workflow (or `{"prompt": workflow, ...options}`) and wait up to `timeout` seconds for its outputs.

        A task-id never runs twice: sent again, it joins the run or returns what is stored. A connection that breaks
        cancels the run, so for long ones, or over a bad line, `submit` and `wait` are the better pair.
        """
        task_id = task_id or new_task_id()
        return self._read_result(self._post_run(workflow, task_id, {}, timeout), task_id)

    def submit(self, workflow: Workflow, task_id: str | None = None) -> str:
        """Hand a workflow over to be run in the background; returns its task-id at once.

        An agent that is told to work within its requests (AGENT_INVOCATION=gateway, and no platform in front)
        answers only when the run is over, so this waits as long as `run` does.
        """
        task_id = task_id or new_task_id()
        response = self._post_run(workflow, task_id, {"X-Fc-Invocation-Type": "Async"}, RUN_SECONDS)
        # Where a platform answers for the agent, the body is empty and the id is the one that was sent.
        return response.headers.get("task-id", task_id)

    def task(self, task_id: str) -> dict[str, Any]:
        """The whole record of a task."""
        return _read_object(self._request("GET", _task_path(task_id)))

    def events(self, task_id: str) -> Iterator[dict[str, Any]]:
        """The record of a task now and after each change; the last one is final.

        A connection that drops before is opened again, a few times in a row at most; then AgentUnreachable or
        AgentRequestError says why. What is unchanged after a reconnect is not repeated.
        """
        return self._events(task_id, _Deadline(None))

    def wait(
        self, task_id: str, on_progress: OnProgress | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        """Wait until a task has succeeded; returns its record.

        `on_progress` is called with each record, the final one included. Raises TaskFailed for another end, and
        TimeoutError after `timeout` seconds; the task goes on then.
        """
        for record in self._events(task_id, _Deadline(timeout)):
            if on_progress is not None:
                on_progress(record)
            if record["state"] in FINAL_STATES:
                if record["state"] != "succeeded":
                    raise TaskFailed(record)
                return record
        raise AssertionError("the event stream ends with a final record or raises")

    def fetch_output(self, task_id: str, number: int) -> bytes:
        """The bytes of one output; they are numbered from 0 as in the record's `outputs`."""
        return self._fetch(f"{_task_path(task_id)}/outputs/{number:d}")

    def cancel(self, task_id: str) -> dict[str, Any]:
        """End a task; returns its record. A task that is over stays as it is."""
        return _read_object(self._request("DELETE", _task_path(task_id)))

    def ready(self) -> bool:
        """Whether the agent answers and its engine can take work."""
        try:
            self._request("GET", "/readyz")
        except AgentUnreachable:
            return False
        except AgentRequestError as error:
            if error.status in UNAVAILABLE:
                return False
            raise
        return True

    def _read_result(self, response: requests.Response, task_id: str) -> Result:
        nodes, outputs = _read_object(response), list[OutputFile]()
        for node_id, node in nodes.items():
            results = [base64.b64decode(text, validate=True) for text in node.pop("results", [])]
            results += [self._fetch(url) for url in node.pop("urls", [])]
            for entry, data in zip(node["images"], results, strict=bool(results)):
                outputs.append(OutputFile(node_id, entry["filename"], data))
        return Result(response.headers.get("task-id", task_id), nodes, outputs)

    def _fetch(self, url: str) -> bytes:
        """A file of the agent, by its path, or of the object store, by a signed URL."""
        if not url.startswith("/"):
            return self._get_signed(url)
        try:
            return self._request("GET", url, allow_redirects=True).content
        except AgentRequestError as error:
            if error.code != "AnswerTooLarge":
                raise
            limits = error.body["error"]
        step, parts = limits["limit"], list[bytes]()
        for first in range(0, limits["bytes"], step):
            wanted = {"Range": f"bytes={first}-{first + step - 1}"}
            parts.append(self._request("GET", url, headers=wanted).content)
        return b"".join(parts)

    def _get_signed(self, url: str) -> bytes:
        """What lies at a URL of another host, which is not told the API key, and whose query is a secret."""
        shown = url.partition("?")[0]
        headers = {_Session.KEY_HEADER: None}  # leaves the session's own out
        response = _reaching(shown, lambda: self._session.get(url, headers=headers, timeout=self.timeout))
        if not response.ok:
            raise _not_an_agent(response.status_code, f"{shown} answers {response.status_code}", None)
        return response.content

    def _post_run(
        self, workflow: Workflow, task_id: str, headers: dict[str, str], timeout: float
    ) -> requests.Response:
        return self._request(
            "POST",
            "/api/run",
            # Not requests' own `json=`: other JSON modules that it may pick up round large numbers.
            data=json.dumps(workflow, allow_nan=False).encode(),
            headers={"Content-Type": "application/json", "task-id": task_id, **headers},
            timeout=(self.timeout, timeout),
        )

    def _request(self, method: str, path: str, **options: Any) -> requests.Response:
        options = {"timeout": self.timeout, "allow_redirects": False, **options}
        response = _reaching(self.url, lambda: self._session.request(method, self.url + path, **options))
        # Followed, a redirected POST would come out as a GET of something else.
        if response.is_redirect:
            target = urljoin(response.url, response.headers["Location"])
            detail = f"{self.url} redirects to {target.partition('?')[0]}. Give the client that address."
            raise AgentRequestError(response.status_code, "Redirected", detail, None)
        if not response.ok:
            raise _error_of(response)
        return response

    def _events(self, task_id: str, deadline: _Deadline) -> Iterator[dict[str, Any]]:
        path = _task_path(task_id) + "/events"
        last: dict[str, Any] | None = None
        failures = 0
        while True:
            opened = time.monotonic()
            try:
                for record in self._stream(path, deadline):
                    if record != last:
                        last, failures = record, 0
                        yield record
                    if record["state"] in FINAL_STATES:
                        return
                lost: AgentClientError = AgentUnreachable("The event stream ended before the task did.")
            except (AgentUnreachable, AgentRequestError) as error:
                is_drop = isinstance(error, AgentUnreachable) or error.status in UNAVAILABLE
                if last is None or not is_drop:
                    raise
                lost = error
            failures = 0 if time.monotonic() - opened > SETTLED_SECONDS else failures
            if failures == len(self._reconnect_pauses):
                raise lost
            time.sleep(deadline.cap(self._reconnect_pauses[failures]))
            failures += 1

    def _stream(self, path: str, deadline: _Deadline) -> Iterator[dict[str, Any]]:
        """The events of one connection. It may end, or raise AgentUnreachable, at any point."""
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-cache", "Accept-Encoding": "identity"}
        timeout = (deadline.cap(self.timeout), deadline.cap(self.timeout))
        try:
            with self._request("GET", path, headers=headers, stream=True, timeout=timeout) as response:
                if not response.headers.get("Content-Type", "").startswith("text/event-stream"):
                    raise _not_an_agent(response.status_code, "no event stream", None)
                for data in _read_events(_read_chunks(response, deadline)):
                    yield json.loads(data)
        except AgentUnreachable:
            deadline.check()  # its own limit ended the connection
            raise


def new_task_id() -> str:
    """A fresh task-id. It begins with a letter, as Function Compute wants its own."""
    return f"t-{uuid.uuid4()}"


class _Session(requests.Session):
    """Keeps the API key from other hosts: an output may be redirected to object storage."""

    KEY_HEADER = "X-Api-Key"

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        super().rebuild_auth(prepared_request, response)  # type: ignore[no-untyped-call]  # the stubs lack it
        old, new = response.request.url or "", prepared_request.url or ""
        if self.should_strip_auth(old, new):  # type: ignore[no-untyped-call]  # the stubs lack it
            prepared_request.headers.pop(self.KEY_HEADER, None)


class _Deadline:
    """The moment until which the caller is willing to wait; None: for ever."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._at = None if seconds is None else time.monotonic() + seconds

    def cap(self, seconds: float) -> float:
        """At most `seconds`, and no longer than what is left. Raises TimeoutError when nothing is."""
        self.check()
        return seconds if self._at is None else min(seconds, max(self._at - time.monotonic(), 0.001))

    def check(self) -> None:
        if self._at is not None and time.monotonic() >= self._at:
            raise TimeoutError(f"The task was not over after {self._seconds:g} s.")


def _reaching(url: str, call: Callable[[], T]) -> T:
    """Call, and translate what requests and urllib3 raise when a connection cannot be had or breaks."""
    try:
        return call()
    except requests.RequestException as exc:
        what = "does not answer in time" if isinstance(exc, requests.Timeout) else "cannot be reached"
        raise AgentUnreachable(f"The agent at {url} {what}: {_cause(exc)}") from exc
    except (HTTPError, OSError) as exc:
        raise AgentUnreachable(f"The connection to the agent at {url} broke: {_cause(exc)}") from exc


def _cause(exc: BaseException) -> str:
    """The innermost reason: urllib3 wraps it several times in words about pools."""
    while isinstance(inner := getattr(exc, "reason", None) or next(iter(exc.args), None), BaseException):
        exc = inner
    return str(exc).rpartition(": ")[2] or type(exc).__name__


def _read_chunks(response: requests.Response, deadline: _Deadline) -> Iterator[bytes]:
    """What the server sends, as soon as it is there."""
    while True:
        _limit_silence(response, deadline.cap(STREAM_SILENCE_SECONDS))
        chunk = _reaching(response.url, lambda: response.raw.read1(65536))
        if not chunk:
            return
        yield chunk


def _limit_silence(response: requests.Response, seconds: float) -> None:
    """How long the next read may take: what is left of a deadline shrinks while the connection stays.

    A server that closes the connection after its answer leaves no socket to be found here; then the limit that
    the request was opened with stays.
    """
    socket = getattr(getattr(response.raw, "connection", None), "sock", None)
    if socket is not None:
        socket.settimeout(seconds)


def _read_events(chunks: Iterator[bytes]) -> Iterator[str]:
    """The data of each Server-Sent Event. An event that is cut off by the end is none."""
    rest, data = b"", list[bytes]()
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            text = line.rstrip(b"\r")
            name, _, value = text.partition(b":")
            if name == b"data":
                data.append(value.removeprefix(b" "))
            elif not text and data:
                yield b"\n".join(data).decode()
                data.clear()


def _task_path(task_id: str) -> str:
    if not _TASK_ID.fullmatch(task_id):
        raise ValueError(f"{task_id[:140]!r} is no task-id: 1 to 128 of A-Z a-z 0-9 . _ : -, not . : - first")
    return f"/api/tasks/{task_id}"


def _read_object(response: requests.Response) -> dict[str, Any]:
    try:
        found = json.loads(response.content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise _not_an_agent(response.status_code, "no JSON object", response.text[:1000])
    return found


def _error_of(response: requests.Response) -> AgentRequestError:
    """The agent's own error body, or what something in front of it said instead."""
    retry_after = response.headers.get("Retry-After", "")
    seconds = float(retry_after) if retry_after.isdecimal() else None
    try:
        body = json.loads(response.content)
        code, detail = str(body["message"]), str(body["error"]["detail"])
    except (ValueError, TypeError, KeyError):
        text = response.text[:1000]
        return _not_an_agent(response.status_code, text.strip()[:200] or response.reason, text, seconds)
    return AgentRequestError(response.status_code, code, detail, body, seconds)


def _not_an_agent(status: int, seen: str, body: Any, retry_after: float | None = None) -> AgentRequestError:
    detail = f"The answer does not come from an agent: {seen}"
    return AgentRequestError(status, "NotAnAgent", detail, body, retry_after)
