"""From a job of RunPod's worker-comfyui to a run, and from a task's record to what RunPod tells of a job."""

from __future__ import annotations

import asyncio
from typing import Any

import pybase64
from aiohttp import web
from pydantic_core import from_json

from agent.admission import RunRequest
from agent.api.keys import BOARD, SETTINGS
from agent.api.models import RunOptions
from agent.api.parse import Envelope, check_envelope, check_options, in_thread, read_body
from agent.errors import AnswerTooLarge, InvalidJson, InvalidOptions, InvalidParameter
from agent.tasks.record import Output, State, TaskRecord
from comfyui.workflow import LONGEST_NAME

STATUSES = {
    State.QUEUED: "IN_QUEUE",
    State.RUNNING: "IN_PROGRESS",
    State.SUCCEEDED: "COMPLETED",
    State.FAILED: "FAILED",
    State.CANCELLED: "CANCELLED",
}

#: Beside `input`: what has no meaning here. Limits are the server's, and results go where its settings say.
IGNORED = ("policy", "s3Config", "id")

#: What `input` may have beside the workflow and its pictures.
INPUTS = ("workflow", "images", "comfy_org_api_key")

#: Of the largest body: so large may all pictures be together once they are in place. One that is sent once may be named
#: by a hundred thousand inputs.
MOST_BODIES = 4


async def read_job(request: web.Request) -> RunRequest:
    """The run that a body `{"input": {"workflow": ..., "images": [...]}}` asks for.

    Raises InvalidJson, InvalidParameter, InvalidOptions, and what is wrong with the workflow.
    """
    body, settings = await read_body(request), request.app[SETTINGS]
    return await in_thread(
        request.app, _parse, body, settings.max_nodes, MOST_BODIES * settings.max_body_bytes
    )


def status_of(record: TaskRecord) -> str:
    """The word that RunPod has for how a job is."""
    is_late = record.error is not None and record.error["code"] == "TaskTimeout"
    return "TIMED_OUT" if is_late else STATUSES[record.state]


async def describe(app: web.Application, record: TaskRecord, now: float) -> dict[str, Any]:
    """A job as /status tells of it; times are milliseconds."""
    began = record.started_at or record.finished_at or now
    told: dict[str, Any] = {"id": record.id, "status": status_of(record)}
    told["delayTime"] = _milliseconds(record.created_at, began)
    if record.started_at is not None:
        told["executionTime"] = _milliseconds(began, record.finished_at or now)
    if record.attempts:
        told["workerId"] = record.attempts[-1].instance
    if record.state is State.SUCCEEDED:
        told["output"] = await _output(app, record)
    elif record.error is not None:
        told["error"] = record.error["detail"]
    return told


async def _output(app: web.Application, record: TaskRecord) -> dict[str, Any]:
    """The files as worker-comfyui gives them, those of temporary previews left out. Raises AnswerTooLarge."""
    files = [output for output in record.outputs if output.type != "temp"]
    if not files:
        return {"status": "success_no_images", "images": []}
    if any(output.object_key is None for output in files) and not app[BOARD].fits(record):
        raise AnswerTooLarge(
            f"The files are too large for one answer. Fetch them one by one from /api/tasks/{record.id}/outputs/0 "
            "and so on, or have the operator set AGENT_OBJECT_STORE: then there are URLs.",
            task_id=record.id,
        )
    told: dict[str, Any] = {"images": await asyncio.gather(*(_file(app, record, output) for output in files))}
    if record.warnings:
        told["errors"] = [str(warning.get("detail", "")) for warning in record.warnings]
    return told


async def _file(app: web.Application, record: TaskRecord, output: Output) -> dict[str, str]:
    _, found = await app[BOARD].output(record.id, output.index)
    if isinstance(found, str):
        return {"filename": output.filename, "type": "s3_url", "data": found}
    data = await asyncio.to_thread(pybase64.b64encode_as_string, found)
    return {"filename": output.filename, "type": "base64", "data": data}


def _parse(body: bytes, max_nodes: int, max_pictures: int) -> RunRequest:
    try:
        job = from_json(body, allow_inf_nan=False)
    except ValueError as exc:
        raise InvalidJson(f"The body is not JSON: {exc}.") from None
    if not isinstance(job, dict) or not isinstance(given := job.get("input"), dict):
        raise InvalidParameter('A job is {"input": {"workflow": {...}}}.', parameter="input")
    if job.get("webhook") is not None:
        raise InvalidOptions(
            "webhook is not answered in RunPod's form here. Poll /status, or use POST /api/run, whose webhooks are "
            "those of Standard Webhooks.",
            option="webhook",
        )
    for name in (
        *(n for n in job if n not in ("input", "webhook", *IGNORED)),
        *(n for n in given if n not in INPUTS),
    ):
        short = name[:LONGEST_NAME]
        raise InvalidParameter(f'"{short}" is nothing that worker-comfyui takes.', parameter=short)
    if "workflow" not in given:
        raise InvalidParameter('"input" has no "workflow".', parameter="workflow")
    graph = _with_pictures(given["workflow"], _pictures(given.get("images")), max_pictures)
    key = given.get("comfy_org_api_key")
    if not isinstance(key, str | None):
        raise InvalidParameter('"comfy_org_api_key" is a text.', parameter="comfy_org_api_key")
    beside = {} if key is None else {"extra_data": {"api_key_comfy_org": key}}
    return check_envelope(Envelope(graph, beside, check_options(RunOptions, beside)), max_nodes)


def _pictures(given: Any) -> dict[str, str]:
    """Name -> data URI, of `[{"name": ..., "image": base64 or data URI or URL}]`."""
    if given is None:
        return {}
    found: dict[str, str] = {}
    for number, item in enumerate(given if isinstance(given, list) else [None]):
        name, image = (item.get("name"), item.get("image")) if isinstance(item, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(image, str) or not name or not image:
            raise InvalidParameter(
                '"images" is a list of {"name": ..., "image": base64}.', parameter=f"images.{number}"
            )
        found[name] = image if image.startswith(("data:", "http://", "https://")) else f"data:;base64,{image}"
    return found


def _with_pictures(graph: Any, pictures: dict[str, str], most: int) -> Any:
    """The workflow with each picture in place of its name: nothing is left in the engine's folder for the next job.

    Raises InvalidParameter for one that no node names, which would be missed silently, and where they would be more
    than `most` characters together.
    """
    missing = set(pictures)
    if not pictures or not isinstance(graph, dict):
        return graph
    filled = {}
    for node_id, node in graph.items():
        inputs = node.get("inputs") if isinstance(node, dict) else None
        if not isinstance(inputs, dict):
            filled[node_id] = node
            continue
        placed = {
            name: pictures[value] if isinstance(value, str) and value in pictures else value
            for name, value in inputs.items()
        }
        named = [value for value in inputs.values() if isinstance(value, str) and value in pictures]
        missing.difference_update(named)
        most -= sum(len(pictures[name]) for name in named)
        if most < 0:
            raise InvalidParameter(
                "The workflow names the pictures so often that they are too large together. Send their URLs.",
                parameter="images",
            )
        filled[node_id] = {**node, "inputs": placed}
    if missing:
        name = min(missing)[:LONGEST_NAME]
        raise InvalidParameter(f'No node of the workflow names the picture "{name}".', parameter="images")
    return filled


def _milliseconds(begin: float, end: float) -> int:
    return max(0, round((end - begin) * 1000))
