"""From an HTTP request to what the runner takes. Everything here is untrusted input."""

from __future__ import annotations

import asyncio
import hashlib
import io
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NamedTuple, ParamSpec, TypeVar

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError, PayloadEncodingError
from pydantic import ValidationError
from pydantic_core import from_json

from agent.admission import RunRequest
from agent.api.keys import NOTIFIER, PARKING, PARSING, SETTINGS
from agent.api.models import CallerOptions, RunOptions
from agent.errors import (
    BodyTooLarge,
    BodyTooSlow,
    InvalidJson,
    InvalidOptions,
    InvalidRequest,
    InvalidTaskId,
    InvalidWorkflow,
    WorkflowTooLarge,
)
from comfyui.errors import InvalidWorkflowError
from comfyui.workflow import LONGEST_NAME, Workflow

P = ParamSpec("P")
T = TypeVar("T")
Options = TypeVar("Options", bound=CallerOptions)

#: A body up to this size is parsed on the event loop; a larger one in a thread.
INLINE_BYTES = 64 * 1024

#: How long a body may take to arrive. A trickling one would hold a connection, and a billed request, for ever.
BODY_SECONDS = 120

#: Many more than nodes have on the average. What is made of a workflow takes time by its links, of which a body of a
#: few megabytes can hold a million.
INPUTS_PER_NODE = 50

#: What callers of other services write where this envelope has "prompt".
WRONG_WORDS = ("workflow", "graph", "input")

TASK_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}")


async def read_run_request(request: web.Request) -> RunRequest:
    """Parse the body of a run. Raises BodyTooLarge, InvalidJson, InvalidWorkflow, InvalidOptions."""
    return await parse_run_request(request.app, await read_body(request))


async def parse_run_request(
    app: web.Application, body: bytes, *, ignores_unknown: bool = False
) -> RunRequest:
    """As `read_run_request`, for a body that is here already. `ignores_unknown`: options that nobody knows are left
    out, as ComfyUI leaves them out, instead of refused. Raises WorkflowTooLarge, and those for its content."""
    max_nodes, is_small = app[SETTINGS].max_nodes, len(body) <= INLINE_BYTES
    parse = partial(parse_envelope, ignores_unknown=ignores_unknown)
    envelope = parse(body) if is_small else await in_thread(app, parse, body)
    del body  # what is parsed is as large again
    check_webhook(app, envelope.options.webhook)
    if envelope.options.parked is not None:
        graph = await app[PARKING].restore(envelope.graph, envelope.options.parked)
        return await in_thread(app, check_envelope, envelope._replace(graph=graph), max_nodes)
    if is_small:
        return check_envelope(envelope, max_nodes)
    return await in_thread(app, check_envelope, envelope, max_nodes)


def check_webhook(app: web.Application, url: str | None) -> None:
    """Raises InvalidOptions for a URL that is not told of anything."""
    try:
        app[NOTIFIER].plan(url)
    except ValueError as exc:
        raise InvalidOptions(f'Option "webhook" beside the workflow: {exc}.', option="webhook") from None


async def in_thread(app: web.Application, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run what takes a while for a large body in a thread, few at a time."""
    return await app[PARSING].run(work, *args, **kwargs)


def find_task_id(request: web.Request) -> str | None:
    """The caller's name for the task: header `task-id`, else the platform's. Raises InvalidTaskId."""
    given = request.headers.get("task-id", request.headers.get("x-fc-async-task-id"))
    return None if given is None else check_task_id(given)


def check_task_id(given: str) -> str:
    if not TASK_ID.fullmatch(given):
        raise InvalidTaskId
    return given


async def invite_body(request: web.Request) -> None:
    """Answer `Expect: 100-continue`, unless the announced body will be refused: then it need not be sent."""
    if not _is_too_large(request):
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def _is_too_large(request: web.Request) -> bool:
    return (request.content_length or 0) > request.app[SETTINGS].max_body_bytes


async def read_body(request: web.Request) -> bytes:
    """Raises BodyTooLarge, BodyTooSlow, InvalidRequest."""
    if hdrs.CONTENT_ENCODING not in request.headers:
        async with reading(request):
            return await _read_whole(request)

    from agent.api.unpacking import packing_of, unpack  # noqa: PLC0415 - bodies are seldom packed

    packing = packing_of(request)
    async with reading(request):
        body = await _read_whole(request)
        if packing is None or not body:
            return body
        return await in_thread(request.app, unpack, body, packing, request.app[SETTINGS].max_body_bytes)


async def _read_whole(request: web.Request) -> bytes:
    """The body as it came. Raises HTTPRequestEntityTooLarge.

    Not by `request.read`, which copies a large body and keeps it until the connection's next request, with the task
    that this one waits for: this body is whoever's who reads it, and gone when he has parsed it.
    """
    limit = request.app[SETTINGS].max_body_bytes
    body = io.BytesIO()  # grows in place, and gives its memory away at the end
    async for piece in request.content.iter_any():
        if body.tell() + len(piece) > limit:
            raise web.HTTPRequestEntityTooLarge(limit)
        body.write(piece)
    return body.getvalue()


@asynccontextmanager
async def reading(request: web.Request) -> AsyncIterator[None]:
    """Give a body that is read inside its limits of size and time, and name what goes wrong with it.

    Raises BodyTooLarge, BodyTooSlow, InvalidRequest.
    """
    limit = request.app[SETTINGS].max_body_bytes
    too_large = BodyTooLarge(
        f"The request body is larger than {limit} bytes. Send input images as URLs, or raise AGENT_MAX_BODY_BYTES.",
        limit=limit,
    )
    if _is_too_large(request):
        raise too_large
    try:
        async with asyncio.timeout(BODY_SECONDS):
            yield
    except TimeoutError:
        raise BodyTooSlow from None
    except web.HTTPRequestEntityTooLarge:
        raise too_large from None
    except (web.RequestPayloadError, HttpProcessingError, PayloadEncodingError):
        raise InvalidRequest("The body is not what its length or its headers say.") from None


async def read_object(request: web.Request, *, or_nothing: bool = False) -> dict[str, Any]:
    """A body that is a JSON object; `or_nothing`: one that is empty is an empty object. Raises InvalidJson, and what
    `read_body` raises."""
    body = await read_body(request)
    if or_nothing and not body.strip():
        return {}
    return (
        parse_object(body) if len(body) <= INLINE_BYTES else await in_thread(request.app, parse_object, body)
    )


def parse_object(body: bytes) -> dict[str, Any]:
    """A body that is a JSON object. Raises InvalidJson. Takes a while for megabytes."""
    try:
        data = from_json(body, allow_inf_nan=False)
    except ValueError as exc:
        raise InvalidJson(f"The body is not JSON: {exc}.") from None
    if not isinstance(data, dict):
        raise InvalidJson("The body is not a JSON object.")
    return data


class Envelope(NamedTuple):
    """A body taken apart: the graph, which is still unchecked, and what stood beside it, as sent and as understood."""

    graph: Any
    beside: dict[str, Any]
    options: RunOptions


def parse_envelope(body: bytes, *, ignores_unknown: bool = False) -> Envelope:
    """Raises InvalidJson, InvalidWorkflow, InvalidOptions. Takes a while for megabytes."""
    try:
        data = from_json(body, allow_inf_nan=False)
    except ValueError as exc:
        raise InvalidJson(f"The body is not JSON: {exc}. Send the workflow as application/json.") from None
    return _split(data, ignores_unknown=ignores_unknown)


def check_envelope(envelope: Envelope, max_nodes: int) -> RunRequest:
    """Raises WorkflowTooLarge, InvalidWorkflow. Takes a while for megabytes."""
    graph, options = envelope.graph, envelope.options
    if isinstance(graph, dict):
        _check_size(graph, max_nodes)
    try:
        workflow = Workflow.parse(graph)
        digest = _digest(workflow, options)
    except InvalidWorkflowError as exc:
        raise InvalidWorkflow(str(exc), node_id=exc.node_id, input=exc.input_name) from None
    beside = {name: value for name, value in envelope.beside.items() if name != "parked"}
    return RunRequest(
        workflow,
        digest,
        options.extra_data or {},
        options.for_engine(),
        beside,
        options.outputs,
        options.safety,
        options.labels,
    )


def _check_size(graph: dict[str, Any], max_nodes: int) -> None:
    """Raises WorkflowTooLarge for more nodes, or inputs, than any workflow of that many nodes has."""
    if len(graph) > max_nodes:
        raise WorkflowTooLarge(
            f"The workflow has {len(graph)} nodes, more than {max_nodes} (AGENT_MAX_NODES).", limit=max_nodes
        )
    inputs = sum(
        len(node["inputs"])
        for node in graph.values()
        if isinstance(node, dict) and isinstance(node.get("inputs"), dict)
    )
    if inputs > (limit := INPUTS_PER_NODE * max_nodes):
        raise WorkflowTooLarge(
            f"The workflow has {inputs} inputs, more than {limit}: {INPUTS_PER_NODE} for each of AGENT_MAX_NODES.",
            limit=limit,
        )


def _digest(workflow: Workflow, options: RunOptions) -> str:
    """What a task is of: two requests of the same task-id ask for the same, or are in conflict. One that asks for a
    stricter review, or for more labels, must not be given what an earlier one has made."""
    digest = workflow.digest(options.partial_execution_targets)
    for asked in (options.safety, options.labels):
        if asked is not None:
            digest = hashlib.sha256(f"{digest} {asked.model_dump_json()}".encode()).hexdigest()
    return digest


def _split(data: Any, *, ignores_unknown: bool = False) -> Envelope:
    """A body is the workflow itself or an envelope around it. A node may be called "prompt", but has a class."""
    is_envelope = isinstance(data, dict) and "prompt" in data and not _is_node(data["prompt"])
    if not is_envelope:
        _refuse_wrong_word(data)
        return Envelope(data, {}, RunOptions())
    beside = {name: value for name, value in data.items() if name != "prompt"}
    if ignores_unknown:
        beside = {name: value for name, value in beside.items() if name in RunOptions.model_fields}
    return Envelope(data["prompt"], beside, check_options(RunOptions, beside))


def _refuse_wrong_word(data: Any) -> None:
    """Name the right word, rather than a node "workflow" that nobody meant. Raises InvalidWorkflow."""
    if not isinstance(data, dict) or len(data) != 1:
        return
    ((word, graph),) = data.items()
    if word in WRONG_WORDS and isinstance(graph, dict) and graph and all(map(_is_node, graph.values())):
        raise InvalidWorkflow(
            f'The workflow stands under "{word}", but the word is "prompt": send {{"prompt": {{...}}}}, or the '
            "workflow alone."
        )


def check_options(kind: type[Options], beside: dict[str, Any]) -> Options:
    """Raises InvalidOptions."""
    try:
        return kind.model_validate(beside)
    except ValidationError as exc:
        found = exc.errors()[0]
        name = ".".join(str(part) for part in found["loc"])[:LONGEST_NAME]
        what = "unknown option" if found["type"] == "extra_forbidden" else found["msg"]
        raise InvalidOptions(f'Option "{name}" beside the workflow: {what}.', option=name) from None


def _is_node(value: Any) -> bool:
    return isinstance(value, dict) and "class_type" in value
