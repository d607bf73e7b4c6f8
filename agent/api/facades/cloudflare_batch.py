"""The asynchronous form of Workers AI: `?queueRequest=true` queues a batch of requests, and tells of it later.

A batch is as many tasks, whose ids are made of that of the batch, so that every instance can answer for it.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from typing import Any

from aiohttp import web
from pydantic_core import to_json

from agent.api.facades.answering import blame
from agent.api.facades.cloudflare_answers import describe, result_of, success
from agent.api.facades.cloudflare_input import prepare_input
from agent.api.facades.models import Model
from agent.api.keys import BOARD, LIBRARY, RUNNER
from agent.api.render import json_response
from agent.api.response import Response
from agent.errors import (
    AgentError,
    AnswerTooLarge,
    InvalidParameter,
    InvalidRequest,
    TaskNotFound,
    WorkflowNotFound,
)
from agent.service import Delivery
from agent.tasks.record import State, TaskRecord

#: Most requests of one batch.
MOST_REQUESTS = 100

#: An error takes about so many bytes of an answer.
ERROR_BYTES = 500

#: The id of a batch says how many tasks it has.
BATCH_ID = re.compile(r"batch-([1-9][0-9]{0,2})-[0-9a-f]{32}")


async def queue_batch(request: web.Request, model: Model, data: dict[str, Any]) -> web.Response:
    """Take the requests of `data`, or the one that it is. Raises InvalidParameter, and what admission raises."""
    runner = request.app[RUNNER]
    if not runner.can_submit:
        raise InvalidRequest(
            "On this platform an instance does not go on after its answer, so an engine takes no queueRequest. "
            "Send it to a front (AGENT_ROLE=front)."
        )
    wanted = data.get("requests", [data])
    if not isinstance(wanted, list) or not 1 <= len(wanted) <= MOST_REQUESTS:
        raise InvalidParameter(f'Parameter "requests": 1 to {MOST_REQUESTS} requests.', parameter="requests")
    if not all(isinstance(item, dict) for item in wanted):
        raise InvalidParameter('Parameter "requests": each is an object.', parameter="requests")
    prepared = [await prepare_input(request.app, model, item) for item in wanted]
    batch = f"batch-{len(prepared)}-{uuid.uuid4().hex}"
    submitted: list[TaskRecord] = []
    try:
        for task_id, item in zip(_tasks(batch), prepared, strict=True):
            submitted.append(await runner.submit(item.run, task_id))
    except AgentError:
        for record in submitted:
            await runner.cancel(record.id)
        raise
    return json_response(success(_pending(request, batch, "queued")))


async def tell_batch(request: web.Request, model: Model, data: dict[str, Any]) -> web.Response:
    """How the batch is that `data` names; all its results once it is over. Raises InvalidParameter."""
    batch = data["request_id"]
    if not isinstance(batch, str) or not BATCH_ID.fullmatch(batch):
        raise InvalidParameter('Parameter "request_id": there is no such batch.', parameter="request_id")
    board = request.app[BOARD]
    try:
        records = [await board.get(task_id) for task_id in _tasks(batch)]
    except TaskNotFound:
        raise InvalidParameter(
            'Parameter "request_id": there is no such batch.', parameter="request_id"
        ) from None
    if not all(record.state.is_final for record in records):
        is_queued = all(record.state is State.QUEUED for record in records)
        return json_response(success(_pending(request, batch, "queued" if is_queued else "running")))
    room = board.answer_limit
    if room is not None:  # for what stands there where results do not
        room = max(0, room - ERROR_BYTES * len(records))
    responses: list[bytes] = []
    for index, record in enumerate(records):
        responses.append(await _response(request, model, index, record, room))
        room = None if room is None else max(0, room - len(responses[-1]))
    before, after = to_json(success({"responses": []})).split(b"[]", 1)
    body = b"".join((before, b"[", b",".join(responses), b"]", after))
    return Response(body=body, content_type="application/json")


async def _response(
    request: web.Request, model: Model, index: int, record: TaskRecord, room: int | None
) -> bytes:
    """One request's result or error as JSON. A result of more bytes than there is room for is an error that says where
    it lies: a platform would cut the answer off, and none of them would be had."""
    try:
        if record.error is not None:
            raise blame(AgentError.from_dict(record.error, record.id))
        delivery = Delivery(record, await request.app[BOARD].outputs(record.id))
        result = await result_of(request.app, model, await _nodes(request, record), delivery)
        told = await asyncio.to_thread(to_json, {"id": index, "success": True, "result": result})
        if room is None or len(told) <= room:
            return told
        raise AnswerTooLarge(
            f"The results of this batch are too large for one answer. Fetch this one from "
            f"/api/tasks/{record.id}/outputs/0, or send smaller batches.",
            task_id=record.id,
        )
    except AgentError as error:
        return to_json({"id": index, "success": False, "errors": [describe(error)]})


async def _nodes(request: web.Request, record: TaskRecord) -> list[str]:
    """The nodes whose outputs count."""
    library = await asyncio.to_thread(request.app[LIBRARY])
    try:
        named = await asyncio.to_thread(library.get, record.workflow_name or "")
    except WorkflowNotFound:  # it was taken away since
        return []
    return named.manifest.outputs


def _pending(request: web.Request, batch: str, status: str) -> dict[str, str]:
    return {"status": status, "request_id": batch, "model": request.match_info["model"]}


def _tasks(batch: str) -> list[str]:
    """The ids of a batch's tasks."""
    count = int(batch.split("-")[1])
    return [f"{batch}-{number}" for number in range(1, count + 1)]
