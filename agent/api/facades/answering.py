"""Runs the tasks of a facade's request, and answers early where a gateway in between would give up."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from aiohttp import web

from agent.admission import new_task_id
from agent.api.access import shown_key
from agent.api.facades import facade_of
from agent.api.facades.request import Prepared
from agent.api.keys import API_KEYS, RUNNER, SETTINGS
from agent.api.parse import check_task_id, find_task_id
from agent.api.render import ErrorResponse, error_response
from agent.api.slow import SlowReader, cut_off, reading_limit
from agent.errors import (
    AgentError,
    InternalError,
    InvalidModel,
    InvalidWorkflow,
    NodeNotAllowed,
    UnknownNodeClass,
    WorkflowRejected,
    WorkflowTooLarge,
)
from agent.service import Delivery, Forwarded, Show

log = structlog.get_logger(__name__)


#: Errors that are the fault of the workflow, and so of the table of models.
OF_WORKFLOWS = (InvalidWorkflow, NodeNotAllowed, UnknownNodeClass, WorkflowRejected, WorkflowTooLarge)


@dataclass(frozen=True, slots=True)
class Form:
    """How an answer looks that begins before its result is there. `filler` means nothing to its readers; `before` and
    `after` frame the JSON of an error that comes late."""

    media_type: str
    filler: bytes
    before: bytes = b""
    after: bytes = b""


#: JSON allows spaces before a value.
JSON = Form("application/json", b" ")

#: Readers of event streams skip comments.
EVENTS = Form("text/event-stream", b": \n\n", b"data: ", b"\n\n")


class EarlyAnswer(web.StreamResponse):
    """An answer that began before its result was there. `code`: that of the error that it ends with."""

    code: str | None = None


def name_tasks(request: web.Request) -> str | None:
    """How the caller names what he asks for: by `task-id`, or by the `Idempotency-Key` of other APIs, so that what he
    sends again does not run again. Raises InvalidTaskId."""
    task_id = find_task_id(request)
    key = request.headers.get("Idempotency-Key")
    if task_id is None and key:
        digest = hashlib.sha256(f"{request.path} {key}".encode(errors="surrogateescape"))
        return f"key-{digest.hexdigest()[:40]}"
    return task_id


def task_ids(request: web.Request, wanted: Sequence[Prepared]) -> tuple[list[str], bool]:
    """An id for the task of each, and whether the caller chose them. Raises InvalidTaskId.

    Ids that callers without a key choose, where there are keys, are in a space of their own: from outside nobody could
    tell which of them a caller with a key is going to need, or has used. What is asked for is a part of them, since
    such callers are strangers to each other as well: one of the same name and another wish is in nobody's way.
    """
    name = name_tasks(request)
    if name is None:
        return [new_task_id() for _ in wanted], False
    names = [name] if len(wanted) == 1 else [check_task_id(f"{name}-{n}") for n in range(1, len(wanted) + 1)]
    if request.app[API_KEYS] and shown_key(request) is None:
        return [_keyless_id(name, item) for name, item in zip(names, wanted, strict=True)], True
    return names, True


def _keyless_id(name: str, wanted: Prepared) -> str:
    return f"keyless-{hashlib.sha256(f'{wanted.run.digest} {name}'.encode()).hexdigest()[:40]}"


async def run_tasks(
    request: web.Request, wanted: Sequence[Prepared], *, show: Show | None = None
) -> list[Delivery | Forwarded]:
    """Run one task for each, all at once, and wait. The first that fails ends the others. Raises its error."""
    runner = request.app[RUNNER]
    ids, is_named = task_ids(request, wanted)
    try:
        async with asyncio.TaskGroup() as group:
            runs = [
                group.create_task(runner.run(prepared.run, task_id, is_named=is_named, show=show))
                for prepared, task_id in zip(wanted, ids, strict=True)
            ]
    except ExceptionGroup as failures:
        raise blame(failures.exceptions[0]) from None
    return [run.result() for run in runs]


def blame(error: Exception) -> Exception:
    """The error as the caller of a model shall see it: he did not choose the workflow that was refused."""
    return InvalidModel(f"The workflow of this model: {error}") if isinstance(error, OF_WORKFLOWS) else error


async def answer_early(
    request: web.Request, work: Coroutine[Any, Any, web.Response], form: Form = JSON
) -> web.StreamResponse:
    """The answer that `work` makes. When it takes longer than AGENT_EARLY_ANSWER_SECONDS, the answer begins with
    status 200 and goes on with what its readers skip, until the body follows.

    An error that comes after that can only be told by its body. One that comes before has its own status.
    """
    seconds = request.app[SETTINGS].early_answer_seconds
    working = asyncio.create_task(_worked(request, work))
    try:
        done, _ = await asyncio.wait({working}, timeout=seconds or None)
        return working.result() if done else await _keep_alive(request, working, form, seconds)
    finally:
        if not working.done():  # the caller left
            working.cancel()
            await asyncio.wait({working})


async def _keep_alive(
    request: web.Request, working: asyncio.Task[web.Response], form: Form, seconds: float
) -> web.StreamResponse:
    response = EarlyAnswer(headers={"Content-Type": form.media_type, "Cache-Control": "no-store"})
    response.headers["X-Accel-Buffering"] = "no"  # or nginx would keep the filler to itself
    await response.prepare(request)
    try:
        done: set[asyncio.Task[web.Response]] = set()
        while not done:
            async with reading_limit():
                await response.write(form.filler)
            done, _ = await asyncio.wait({working}, timeout=seconds)
        late = working.result()
        body = late.body if isinstance(late.body, bytes) else b""
        if isinstance(late, ErrorResponse):
            response.code, body = late.code, form.before + body + form.after
            log.warning("answer.failed_late", code=late.code)
        async with reading_limit():
            await response.write(body)
            await response.write_eof()
    except SlowReader:
        cut_off(request)
    return response


async def _worked(request: web.Request, work: Coroutine[Any, Any, web.Response]) -> web.Response:
    """What `work` makes, an error as the answer that says it."""
    facade = facade_of(request)
    render = facade.render_error if facade else error_response
    try:
        return await work
    except AgentError as error:
        return render(error)
    except Exception:  # after the status has been sent nobody else can say it
        log.exception("request.crashed", method=request.method, path=request.path)
        return render(InternalError())
