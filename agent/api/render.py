"""From records to answers."""

from __future__ import annotations

import asyncio
from typing import Any

import pybase64
from aiohttp import web
from pydantic_core import to_json

from agent.errors import AgentError
from agent.service import Delivery, Forwarded
from agent.tasks.record import TaskRecord

#: Up to this many bytes of outputs are encoded on the event loop; more in a thread.
INLINE_BYTES = 64 * 1024


def json_response(data: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=to_json(data), status=status, content_type="application/json", headers=headers)


def error_response(error: AgentError, task_id: str | None = None) -> web.Response:
    """The one form of every error answer."""
    task_id = task_id or error.task_id or error.facts.get("task_id")
    headers = {"task-id": task_id} if task_id else {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    return json_response(error.to_body(task_id), status=error.status, headers=headers)


def render_task(record: TaskRecord) -> dict[str, Any]:
    """The task record as the API shows it."""
    return {**record.model_dump(mode="json", exclude={"nodes"}), "nodes": progress_map(record)}


def progress_map(record: TaskRecord) -> dict[str, Any]:
    """Node id -> progress, without results."""
    return {node_id: node.model_dump(exclude_none=True) for node_id, node in record.nodes.items()}


async def result_body(delivery: Delivery | Forwarded) -> bytes:
    """The final progress map as JSON, each output as base64 in the order of its node's `images`."""
    if isinstance(delivery, Forwarded):
        return delivery.body
    if sum(map(len, delivery.outputs)) <= INLINE_BYTES:
        return _encode(delivery)
    return await asyncio.to_thread(_encode, delivery)


def _encode(delivery: Delivery) -> bytes:
    nodes = progress_map(delivery.record)
    for output, data in zip(delivery.record.outputs, delivery.outputs, strict=True):
        nodes[output.node_id].setdefault("results", []).append(pybase64.b64encode_as_string(data))
    return to_json(nodes)
