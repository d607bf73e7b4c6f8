"""What is asked of an agent, and what its answers come to, without any I/O: each method is a generator that yields
requests and pauses and is sent the answers. Both clients carry out the same ones."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Generic, TypeVar
from urllib.parse import urljoin

from agent.client.errors import AgentRequestError, AgentUnreachable
from agent.client.following import Following
from agent.client.results import OutputFile, Result
from agent.client.retries import Retries
from agent.client.wire import (
    Answer,
    Call,
    Deadline,
    Pause,
    Source,
    Workflow,
    checked_task_id,
    checked_url,
    data_uri,
    error_of,
    has_same_origin,
    new_task_id,
    not_an_agent,
    shown,
    task_path,
    to_body,
    workflow_path,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """Nothing is left to do."""

    value: T


#: Yields what is to be done, is sent the answer of a Call and None after a Pause, and returns the result.
Steps = Generator[Call | Pause, Answer | None, T]

#: How long a run may take. The agent itself ends tasks after an hour unless it is told otherwise.
RUN_SECONDS = 3600.0

#: From an agent's redirect to where a file lies in an object store, and what that may redirect to.
MOST_REDIRECTS = 3

#: Ask for a run in the background: an agent, and the gateway of Function Compute.
BY_AGENT = {"Prefer": "respond-async"}
BY_PLATFORM = {"X-Fc-Invocation-Type": "Async"}
PLATFORM_HEADER = "x-fc-request-id"


class Conversation:
    """Everything that can be asked of the agent at `url`, and what is remembered of it: whether the platform in front
    of it has to be asked for runs in the background, and which of those it has not shown yet."""

    def __init__(self, url: str, retry_pauses: Sequence[float], *, platform_queue: bool) -> None:
        self.url = checked_url(url)
        self._pauses = tuple(retry_pauses)
        self._platform_queue = platform_queue
        self._on_their_way: set[str] = set()

    def run(self, workflow: Workflow, task_id: str | None, timeout: float) -> Steps[Result]:
        return self._run("/api/run", workflow, task_id, timeout)

    def submit(self, workflow: Workflow, task_id: str | None) -> Steps[str]:
        return self._submit("/api/run", workflow, task_id)

    def run_workflow(
        self, name: str, body: Mapping[str, Any], task_id: str | None, timeout: float
    ) -> Steps[Result]:
        return self._run(f"{workflow_path(name)}/run", body, task_id, timeout)

    def submit_workflow(self, name: str, body: Mapping[str, Any], task_id: str | None) -> Steps[str]:
        return self._submit(f"{workflow_path(name)}/run", body, task_id)

    def workflows(self) -> Steps[list[dict[str, Any]]]:
        answer = yield from self._ask(Call("GET", f"{self.url}/api/workflows"))
        found = answer.object().get("workflows")
        if not isinstance(found, list):
            raise not_an_agent(answer.status, "no list of workflows", answer.text)
        return found

    def workflow(self, name: str) -> Steps[dict[str, Any]]:
        return self._object("GET", workflow_path(name))

    def task(self, task_id: str) -> Steps[dict[str, Any]]:
        return self._object("GET", task_path(task_id))

    def cancel(self, task_id: str) -> Steps[dict[str, Any]]:
        return self._object("DELETE", task_path(task_id))

    def follow(self, task_id: str, timeout: float | None) -> Following:
        url = f"{self.url}{task_path(task_id)}/events"
        return Following(url, self._pauses, Deadline(timeout), is_on_its_way=task_id in self._on_their_way)

    def output(self, task_id: str, number: int) -> Steps[bytes]:
        return self._fetch(f"{task_path(task_id)}/outputs/{number:d}")

    def outputs(self, task_id: str) -> Steps[list[OutputFile]]:
        record = yield from self.task(task_id)
        files = []
        for entry in record["outputs"]:
            data = yield from self.output(task_id, entry["index"])
            files.append(OutputFile(entry["node_id"], entry["filename"], data))
        return files

    def ready(self) -> Steps[bool]:
        try:
            answer = yield Call("GET", f"{self.url}/readyz")
        except AgentUnreachable:
            return False
        assert answer is not None  # noqa: S101 - a call is answered
        if not answer.is_ok and not (error := error_of(answer)).is_passing and error.status != 503:
            raise error
        return answer.is_ok

    def _run(self, path: str, body: Mapping[str, Any], task_id: str | None, timeout: float) -> Steps[Result]:
        deadline = Deadline(timeout)
        task_id = checked_task_id(new_task_id() if task_id is None else task_id)
        answer = yield from self._post(path, body, task_id, {}, deadline)
        nodes, outputs = _nodes(answer), list[OutputFile]()
        for node_id, node in nodes.items():
            files = [_decoded(answer, text) for text in node.pop("results", [])]
            for url in node.pop("urls", []):
                file = yield from self._fetch(url)
                files.append(file)
            entries = node.get("images", [])
            outputs += [
                OutputFile(node_id, entry["filename"], data)
                for entry, data in zip(entries, files, strict=bool(files))
            ]
        return Result(_task_id(answer, task_id), nodes, outputs)

    def _submit(self, path: str, body: Mapping[str, Any], task_id: str | None) -> Steps[str]:
        task_id = checked_task_id(new_task_id() if task_id is None else task_id)
        how = BY_PLATFORM if self._platform_queue else BY_AGENT
        answer = yield from self._post(path, body, task_id, how, Deadline(RUN_SECONDS))
        if answer.status != 202 and PLATFORM_HEADER in answer.headers:
            # It had to do the work within the request. The platform can hold the next one for it.
            self._platform_queue = True
        # Where a platform answers for the agent, the body is empty and the id is the one that was sent.
        if answer.status == 202 and "task-id" not in answer.headers:
            self._on_their_way.add(task_id)
        return _task_id(answer, task_id)

    def _post(
        self, path: str, body: Mapping[str, Any], task_id: str, how: Mapping[str, str], deadline: Deadline
    ) -> Steps[Answer]:
        headers = {"Content-Type": "application/json", "task-id": task_id, **how}
        return self._ask(Call("POST", self.url + path, headers, to_body(body)), deadline)

    def _object(self, method: str, path: str) -> Steps[dict[str, Any]]:
        answer = yield from self._ask(Call(method, self.url + path))
        return answer.object()

    def _fetch(self, place: str) -> Steps[bytes]:
        """A file of the agent, by its path, or of the object store, by a signed URL."""
        url = self.url + place if place.startswith("/") else place
        try:
            answer = yield from self._follow_redirects(Call("GET", url))
        except AgentRequestError as error:
            if error.code != "AnswerTooLarge":
                raise
            limits = error.body["error"]
        else:
            return answer.body
        step, parts = max(int(limits["limit"]), 1), list[bytes]()
        for first in range(0, limits["bytes"], step):
            wanted = {"Range": f"bytes={first}-{first + step - 1}"}
            part = yield from self._ask(Call("GET", url, wanted))
            parts.append(part.body)
        return b"".join(parts)

    def _follow_redirects(self, call: Call) -> Steps[Answer]:
        for _ in range(MOST_REDIRECTS):
            answer = yield from self._ask(call, may_redirect=True)
            if answer.location is None:
                return answer
            call = Call("GET", urljoin(call.url, answer.location))
        return (yield from self._ask(call))

    def _ask(
        self, call: Call, deadline: Deadline | None = None, *, may_redirect: bool = False
    ) -> Steps[Answer]:
        """The answer to a request of any number of tries. Raises AgentRequestError, AgentUnreachable and, after the
        deadline, TimeoutError."""
        retries = Retries(self._pauses, deadline or Deadline(None))
        while True:
            try:
                answer = yield replace(call, read_seconds=deadline.cap(inf)) if deadline else call
                assert answer is not None  # noqa: S101 - a call is answered
                if answer.is_ok or (may_redirect and answer.location is not None):
                    return answer
                raise self._refusal(answer)
            except (AgentUnreachable, AgentRequestError) as error:
                if isinstance(error, AgentRequestError) and error.status == 504 and call.method == "POST":
                    raise  # whoever did not wait for the run will not do so the next time either
                pause = retries.pause(error)
            yield Pause(pause)

    def _refusal(self, answer: Answer) -> AgentRequestError:
        # Followed, a redirected POST would come out as a GET of something else.
        if answer.location is not None:
            target = shown(urljoin(answer.url, answer.location))
            detail = f"{shown(self.url)} redirects to {target}. Give the client that address."
            return AgentRequestError(answer.status, "Redirected", detail, None)
        if has_same_origin(answer.url, self.url):
            return error_of(answer)
        # The body of another host may repeat the signature.
        return not_an_agent(answer.status, f"{shown(answer.url)} answers {answer.status}", None)


def advance(steps: Steps[T], given: Answer | AgentUnreachable | None) -> Call | Pause | Done[T]:
    """Hand over what the last step gave (None at the beginning); returns the next one. Megabytes of JSON and base64
    make it take a while."""
    try:
        return steps.throw(given) if isinstance(given, AgentUnreachable) else steps.send(given)
    except StopIteration as end:
        return Done(end.value)


def named_body(
    parameters: Mapping[str, Any] | None,
    files: Mapping[str, Source] | None,
    options: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The body of a named workflow's run. Raises OSError for a file that cannot be read."""
    values = {**(parameters or {}), **{name: data_uri(source) for name, source in (files or {}).items()}}
    return {**(options or {}), "parameters": values}


def _nodes(answer: Answer) -> dict[str, dict[str, Any]]:
    nodes = answer.object()
    if not all(isinstance(node, dict) for node in nodes.values()):
        raise not_an_agent(answer.status, "no progress map", answer.text)
    return nodes


def _task_id(answer: Answer, sent: str) -> str:
    given = answer.headers.get("task-id", sent)
    try:
        return checked_task_id(given)
    except ValueError as exc:
        raise not_an_agent(answer.status, str(exc), None) from None


def _decoded(answer: Answer, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise not_an_agent(answer.status, "a result that is no base64", None) from None
