"""The synchronous client, on requests."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from math import isinf
from types import TracebackType
from typing import Any, Self, TypeVar

import requests
from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError

from agent.client.conversation import RUN_SECONDS, Conversation, Done, Steps, advance, named_body
from agent.client.errors import AgentClientError, AgentUnreachable, TaskFailed, tls_reason
from agent.client.following import STREAM_SILENCE_SECONDS, Following
from agent.client.results import OutputFile, Result
from agent.client.retries import RETRY_PAUSES
from agent.client.wire import (
    FINAL_STATES,
    KEY_HEADER,
    Answer,
    Call,
    Deadline,
    Pause,
    Source,
    Workflow,
    checked_key,
    has_same_origin,
    is_loopback,
    origin,
)

OnProgress = Callable[[dict[str, Any]], object]
T = TypeVar("T")


class AgentClient:
    """Talks to one agent, or to any instance behind one address. Use one client a thread.

    `timeout` bounds connecting, and the silence before and within an ordinary answer, in seconds. A request whose
    connection breaks, or that is answered 429, 502, 503 or 504, is made again after each of `retry_pauses` (seconds),
    or later where the answer says so; a task-id never runs twice. Who cannot be reached at all is not tried again.

    `platform_queue`: the agent runs tasks within its requests and Function Compute's gateway stands before it, with no
    front between: `submit` then asks the gateway. Without it the client finds that out by its first `submit`, which
    lasts as long as the run.

    Methods raise AgentRequestError when the agent refuses, and AgentUnreachable when nobody answers. The constructor
    raises ValueError for an address or a key that cannot be one.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        timeout: float = 30,
        *,
        retry_pauses: Sequence[float] = RETRY_PAUSES,
        platform_queue: bool = False,
    ) -> None:
        self._agent = Conversation(url, retry_pauses, platform_queue=platform_queue)
        self.url, self.timeout = self._agent.url, timeout
        self._key = None if api_key is None else checked_key(api_key)
        self._session = requests.Session()
        self._session.headers["User-Agent"] = "comfyui-agent-client"
        self._session.trust_env = not is_loopback(url)

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
        """Run a workflow (or `{"prompt": workflow, ...options}`) and wait for its outputs.

        A task-id never runs twice: sent again, it joins the run or returns what is stored. After `timeout` seconds
        it raises TimeoutError. To hang up cancels the run, so for long ones, or over a bad line, `submit` and `wait`
        are the better pair. A task that fails is an AgentRequestError here.
        """
        return self._do(self._agent.run(workflow, task_id, timeout))

    def submit(self, workflow: Workflow, task_id: str | None = None) -> str:
        """Hand a workflow over to be run in the background; returns its task-id at once.

        An agent that has to work within its requests answers only when the run is over (see `platform_queue`).
        """
        return self._do(self._agent.submit(workflow, task_id))

    def workflows(self) -> list[dict[str, Any]]:
        """The named workflows of this agent: `name`, `title`, `description`, `tags`, `available`, `missing`."""
        return self._do(self._agent.workflows())

    def workflow(self, name: str) -> dict[str, Any]:
        """One of them, with the JSON Schema of its parameters as `schema`, and its graph as `workflow`."""
        return self._do(self._agent.workflow(name))

    def run_workflow(
        self,
        name: str,
        parameters: Mapping[str, Any] | None = None,
        files: Mapping[str, Source] | None = None,
        task_id: str | None = None,
        *,
        options: Mapping[str, Any] | None = None,
        timeout: float = RUN_SECONDS,
    ) -> Result:
        """Run a named workflow with values for its parameters, as `run` does.

        `files` are values too: the bytes of a file, or its path. `options` is what may stand beside a workflow:
        `{"outputs": "url", "webhook": ...}`. A wrong value is an AgentRequestError 422 `InvalidParameter`. Raises
        OSError for a file that cannot be read.
        """
        body = named_body(parameters, files, options)
        return self._do(self._agent.run_workflow(name, body, task_id, timeout))

    def submit_workflow(
        self,
        name: str,
        parameters: Mapping[str, Any] | None = None,
        files: Mapping[str, Source] | None = None,
        task_id: str | None = None,
        *,
        options: Mapping[str, Any] | None = None,
    ) -> str:
        """Hand a named workflow over to be run in the background, as `submit` does."""
        return self._do(self._agent.submit_workflow(name, named_body(parameters, files, options), task_id))

    def task(self, task_id: str) -> dict[str, Any]:
        """The whole record of a task."""
        return self._do(self._agent.task(task_id))

    def events(self, task_id: str) -> Generator[dict[str, Any], None, None]:
        """The record of a task now and after each change; the last one is final.

        A connection that drops before is opened again, a few times in a row at most. What is unchanged after that is
        not repeated.
        """
        return self._events(self._agent.follow(task_id, None))

    def wait(
        self, task_id: str, on_progress: OnProgress | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        """Wait until a task has succeeded; returns its record.

        `on_progress` is called with each record, the final one included. Raises TaskFailed for another end, and
        TimeoutError after `timeout` seconds; the task goes on then.
        """
        with closing(self._events(self._agent.follow(task_id, timeout))) as records:
            for record in records:
                if on_progress is not None:
                    on_progress(record)
                if record["state"] in FINAL_STATES:
                    if record["state"] != "succeeded":
                        raise TaskFailed(record)
                    return record
        raise AssertionError("the event stream ends with a final record or raises")

    def fetch_output(self, task_id: str, number: int) -> bytes:
        """The bytes of one output; they are numbered from 0 as in the record's `outputs`."""
        return self._do(self._agent.output(task_id, number))

    def fetch_outputs(self, task_id: str) -> list[OutputFile]:
        """All outputs of a task, in order; none of one that has not succeeded."""
        return self._do(self._agent.outputs(task_id))

    def cancel(self, task_id: str) -> dict[str, Any]:
        """End a task; returns its record. A task that is over stays as it is."""
        return self._do(self._agent.cancel(task_id))

    def ready(self) -> bool:
        """Whether the agent answers and its engine can take work."""
        return self._do(self._agent.ready())

    def _do(self, steps: Steps[T]) -> T:
        step = advance(steps, None)
        while not isinstance(step, Done):
            step = advance(steps, self._take(step))
        return step.value

    def _take(self, step: Call | Pause) -> Answer | AgentUnreachable | None:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        try:
            with self._open(step, step.read_seconds or self.timeout) as response, _reaching(step.url):
                return _answer(response, response.content)
        except AgentUnreachable as error:
            return error

    @contextmanager
    def _open(self, call: Call, read_seconds: float) -> Iterator[requests.Response]:
        """The head of an answer; its body is read within."""
        headers = dict(call.headers)
        if self._key is not None and has_same_origin(call.url, self.url):
            headers[KEY_HEADER] = self._key
        with _reaching(call.url):
            response = self._session.request(
                call.method,
                call.url,
                data=call.body,
                headers=headers,
                timeout=(min(self.timeout, read_seconds), None if isinf(read_seconds) else read_seconds),
                allow_redirects=False,
                stream=True,
            )
        with closing(response):
            yield response

    def _events(self, task: Following) -> Generator[dict[str, Any], None, None]:
        while True:
            lost: AgentClientError = task.ended()
            try:
                with self._open(task.call, task.deadline.cap(self.timeout)) as response:
                    with _reaching(task.call.url):
                        body = b"" if response.ok else response.content
                    task.opened(_answer(response, body))
                    for chunk in _chunks(response, task.deadline):
                        yield from task.feed(chunk)
                        if task.is_over:
                            return
            except AgentClientError as error:
                lost = error
            time.sleep(task.lost(lost))


def _answer(response: requests.Response, body: bytes) -> Answer:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.url, response.status_code, headers, body)


def _chunks(response: requests.Response, deadline: Deadline) -> Iterator[bytes]:
    """What the server sends, as soon as it is there."""
    while True:
        _limit_silence(response, deadline.cap(STREAM_SILENCE_SECONDS))
        with _reaching(response.url):
            chunk = response.raw.read1(65536)
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


@contextmanager
def _reaching(url: str) -> Iterator[None]:
    """Translate what requests and urllib3 raise when a connection cannot be had or breaks."""
    try:
        yield
    except (requests.RequestException, HTTPError, OSError) as exc:
        cause = _cause(exc)
        if isinstance(exc, requests.Timeout) or isinstance(cause, TimeoutError | ReadTimeoutError):
            raise AgentUnreachable(f"{origin(url)} does not answer in time.") from exc
        if isinstance(cause, ssl.SSLError):
            raise AgentUnreachable(f"{origin(url)} cannot be reached: {tls_reason(cause)}.") from exc
        reason = str(cause.args[0] if cause.args else cause).rpartition(": ")[2].rstrip(".")
        # What urllib3 says of a connection that stood; it wraps what kept one from being made otherwise.
        if isinstance(cause, ProtocolError):
            raise AgentUnreachable(f"The connection to {origin(url)} broke: {reason}.", broke=True) from exc
        raise AgentUnreachable(f"{origin(url)} cannot be reached: {reason}.") from exc


def _cause(exc: BaseException) -> BaseException:
    """The innermost reason: urllib3 wraps it several times in words about pools."""
    while isinstance(inner := getattr(exc, "reason", None) or next(iter(exc.args), None), BaseException):
        exc = inner
    return exc
