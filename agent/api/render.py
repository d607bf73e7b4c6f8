"""From records to answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aiohttp import web
from pydantic_core import to_json

from agent.api.pieces import Files, InPieces
from agent.api.response import Response
from agent.errors import AgentError, AnswerTooLarge, StoreUnavailable
from agent.service import Delivery, Forwarded
from agent.tasks.board import TaskBoard
from agent.tasks.record import TaskRecord

#: Up to this many bytes of outputs are encoded on the event loop; more in a thread.
INLINE_BYTES = 64 * 1024


def json_response(data: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(body=to_json(data), status=status, content_type="application/json", headers=headers)


class ErrorResponse(web.Response):
    """An error answer that says its code to those who look at it on its way out."""

    code = ""


def error_response(error: AgentError, task_id: str | None = None) -> ErrorResponse:
    """The one form of every error answer."""
    task_id = task_id or error.task_id or error.facts.get("task_id")
    headers = {"task-id": task_id} if task_id else {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    response = ErrorResponse(
        body=to_json(error.to_body(task_id)),
        status=error.status,
        content_type="application/json",
        headers=headers,
    )
    response.code = error.code
    return response


async def show_task(board: TaskBoard, record: TaskRecord) -> dict[str, Any]:
    """The task record as the API shows it, with fresh URLs of the outputs that lie in the object store."""
    return render_task(record, await board.links(record))


def render_task(record: TaskRecord, links: Mapping[int, str] | None = None) -> dict[str, Any]:
    """The task record as JSON data. `links`: output index -> signed URL."""
    shown = record.model_dump(mode="json", exclude={"nodes": True, "webhook": {"target"}})
    shown["nodes"] = progress_map(record)
    for output in shown["outputs"]:
        output["signed_url"] = (links or {}).get(output["index"])
    return shown


def progress_map(record: TaskRecord) -> dict[str, Any]:
    """Node id -> progress, without results."""
    return {node_id: node.model_dump(exclude_none=True) for node_id, node in record.nodes.items()}


async def answer_result(board: TaskBoard, delivery: Delivery | Forwarded) -> web.Response:
    """The result as an answer that is not too large: then all outputs are given as URLs. What another agent answered
    is as it should be.

    Raises AnswerTooLarge where they could not be fetched from there, StoreUnavailable where that is so only for now.
    """
    if isinstance(delivery, Forwarded):
        return Response(body=delivery.body, content_type="application/json")
    return (await _fitting(board, delivery)).response()


async def answer_body(board: TaskBoard, delivery: Delivery | Forwarded) -> bytes:
    """The same as one text. Raises what `answer_result` raises."""
    if isinstance(delivery, Forwarded):
        return delivery.body
    body = await _fitting(board, delivery)
    return bytes(body) if body.size <= INLINE_BYTES else await asyncio.to_thread(bytes, body)


async def _fitting(board: TaskBoard, delivery: Delivery) -> InPieces:
    if not board.fits(delivery.record):
        if not board.store.is_shared:
            raise AnswerTooLarge(limit=board.answer_limit, task_id=delivery.record.id)
        if not delivery.is_kept:
            raise StoreUnavailable(
                "The answer is too large for one response, and the task store, which would have its parts, is away. "
                "Ask for the task again later.",
                task_id=delivery.record.id,
            )
        delivery = replace(delivery, outputs=[None] * len(delivery.outputs))
    return result_body(delivery, await board.links(delivery.record))


def result_body(delivery: Delivery, links: Mapping[int, str] | None = None) -> InPieces:
    """The final progress map as JSON, with each output in the order of its node's `images`: in `results` as base64, or
    in `urls`, signed where `links` has it."""
    files, nodes = Files(), progress_map(delivery.record)
    for output, data in zip(delivery.record.outputs, delivery.outputs, strict=True):
        node = nodes[output.node_id]
        if data is None:
            node.setdefault("urls", []).append((links or {}).get(output.index, output.url))
        else:
            node.setdefault("results", []).append(files.add(data))
    return files.body(nodes)
