"""Requests and answers as both clients see them, and what answers mean."""

from __future__ import annotations

import base64
import json
import mimetypes
import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent.client.errors import AgentRequestError

#: A graph in ComfyUI's API format, or `{"prompt": graph, ...options}`.
Workflow = Mapping[str, Any]

#: A file to be sent: its bytes, or where it lies.
Source = bytes | PathLike[str] | str

KEY_HEADER = "X-Api-Key"
FINAL_STATES = ("succeeded", "failed", "cancelled")
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")

TASK_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}")
WORKFLOW_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `read_seconds`: how long its answer may be silent; None: as long as the client waits usually."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = field(default=None, repr=False)
    read_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing is to be done for so long."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whole. The names of `headers` are in lower case."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def is_ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def location(self) -> str | None:
        """Where a redirect leads."""
        return self.headers.get("location") if self.status in (301, 302, 303, 307, 308) else None

    @property
    def text(self) -> str:
        """The beginning of the body, to be shown."""
        return self.body[:4000].decode(errors="replace")[:1000]

    def object(self) -> dict[str, Any]:
        """The body as a JSON object; its numbers are exact. Raises AgentRequestError for anything else."""
        try:
            found = json.loads(self.body)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise not_an_agent(self.status, "no JSON object", self.text)
        return found


class Deadline:
    """The moment until which the caller is willing to wait; None: for ever."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._at = None if seconds is None else time.monotonic() + seconds

    def cap(self, seconds: float) -> float:
        """At most `seconds`, and no longer than what is left. Raises TimeoutError when nothing is."""
        self.check()
        return seconds if self._at is None else min(seconds, max(self._at - time.monotonic(), 0.001))

    def check(self) -> None:
        """Raises TimeoutError when it is over."""
        if self._at is not None and time.monotonic() >= self._at:
            raise TimeoutError(f"The task was not over after {self._seconds:g} s.")


def new_task_id() -> str:
    """A fresh task-id. It begins with a letter, as Function Compute wants its own."""
    return f"t-{uuid.uuid4()}"


def checked_url(url: str) -> str:
    """The agent's address without its last slash. Raises ValueError for what cannot be one; the sentence repeats
    neither a password nor a query, which may be an API key."""
    address = url.strip()
    try:
        parts = urlsplit(address)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one or not re.fullmatch(r"[^\s?#]+", address):
        seen = re.sub(r"([?#]).+", r"\1...", re.sub(r"//[^/]*@", "//", address))
        raise ValueError(f"{seen!r} is no address of an agent; it looks like http://localhost:9000")
    return address.rstrip("/")


def checked_key(api_key: str) -> str:
    """Raises ValueError for what no header can carry; the sentence does not repeat it."""
    if not re.fullmatch(r"[!-~]+", api_key):
        raise ValueError("The API key has blanks, line ends or letters that are not ASCII.")
    return api_key


def is_loopback(url: str) -> bool:
    """A proxy of the environment cannot stand between two processes of one machine."""
    return urlsplit(url).hostname in LOOPBACK_NAMES


def has_same_origin(url: str, other: str) -> bool:
    """Whether both lead to the same server; only there an API key may go."""
    one, two = urlsplit(url), urlsplit(other)
    return (one.scheme, one.netloc.lower()) == (two.scheme, two.netloc.lower())


def shown(url: str) -> str:
    """An address as errors name it: the query of a signed URL is a secret, and so is what stands before an @."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def origin(url: str) -> str:
    """The server of an address."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def checked_task_id(task_id: str) -> str:
    """Raises ValueError for what would leave its place in a path."""
    if not TASK_ID.fullmatch(task_id):
        raise ValueError(f"{task_id[:140]!r} is no task-id: 1 to 128 of A-Z a-z 0-9 . _ : -, not . : - first")
    return task_id


def task_path(task_id: str) -> str:
    return f"/api/tasks/{checked_task_id(task_id)}"


def workflow_path(name: str) -> str:
    """Raises ValueError for what is no name."""
    if not WORKFLOW_NAME.fullmatch(name):
        raise ValueError(f"{name[:80]!r} is no name of a workflow: 1 to 64 of A-Z a-z 0-9 _ -, not _ - first")
    return f"/api/workflows/{name}"


def to_body(data: Any) -> bytes:
    """JSON with exact numbers. Raises ValueError for NaN and infinity, which JSON lacks."""
    return json.dumps(data, allow_nan=False).encode()


def data_uri(source: Source) -> str:
    """A file as it stands in JSON. Raises OSError if it cannot be read."""
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    name = "" if isinstance(source, bytes) else Path(source).name
    media_type = mimetypes.guess_type(name)[0] or ""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def error_of(answer: Answer) -> AgentRequestError:
    """The agent's own error, or what something in front of it said instead."""
    retry_after = answer.headers.get("retry-after", "")
    seconds = float(retry_after) if re.fullmatch("[0-9]{1,6}", retry_after) else None
    try:
        body = json.loads(answer.body)
        code, detail = str(body["message"]), str(body["error"]["detail"])
    except (ValueError, TypeError, KeyError):
        seen = answer.text.strip()[:200] or f"status {answer.status}"
        return not_an_agent(answer.status, seen, answer.text, seconds)
    return AgentRequestError(answer.status, code, detail, body, seconds)


def not_an_agent(status: int, seen: str, body: Any, retry_after: float | None = None) -> AgentRequestError:
    detail = f"The answer does not come from an agent: {seen}"
    return AgentRequestError(status, "NotAnAgent", detail, body, retry_after)
