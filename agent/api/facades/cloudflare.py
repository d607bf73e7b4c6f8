"""Cloudflare Workers AI: POST /client/v4/accounts/ACCOUNT/ai/run/MODEL.

The account may be any. Models that answer with a picture's bytes there do so here; the others answer JSON, which may
begin early. `?queueRequest=true` is the asynchronous form (cloudflare_batch.py).
"""

from __future__ import annotations

from aiohttp import web
from pydantic_core import to_json

from agent.api.facades.answering import EVENTS, answer_early, run_tasks
from agent.api.facades.cloudflare_answers import render_error, result_of, success
from agent.api.facades.cloudflare_batch import queue_batch, tell_batch
from agent.api.facades.cloudflare_input import parse_body, prepare_input
from agent.api.facades.models import Answer
from agent.api.facades.request import Prepared, find_model
from agent.api.facades.results import as_bytes, check_size, pictures_of
from agent.api.parse import in_thread, read_body
from agent.api.render import json_response
from agent.api.response import Response

__all__ = ["render_error", "run"]


async def run(request: web.Request) -> web.StreamResponse:
    model = await find_model(request.app, request.match_info["model"])
    data = await in_thread(request.app, parse_body, await read_body(request), model)
    if request.query.get("queueRequest", "").lower() in ("true", "1"):
        take = tell_batch if "request_id" in data else queue_batch
        return await take(request, model, data)
    prepared = await prepare_input(request.app, model, data)
    if model.answer is Answer.PICTURE:
        return await _picture(request, prepared)
    if model.answer is Answer.RESPONSE and data.get("stream") is True:
        return await answer_early(request, _events(request, prepared), EVENTS)
    return await answer_early(request, _result(request, prepared))


async def _picture(request: web.Request, prepared: Prepared) -> web.Response:
    (delivery,) = await run_tasks(request, [prepared])
    first = (await pictures_of(request.app, prepared.nodes, delivery))[0]
    data = await as_bytes(request.app, first, "image/png")
    check_size(request.app, len(data))
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "task-id": delivery.task_id}
    return Response(body=data, content_type="image/png", headers=headers)


async def _result(request: web.Request, prepared: Prepared) -> web.Response:
    (delivery,) = await run_tasks(request, [prepared])
    result = await result_of(request.app, prepared.model, prepared.nodes, delivery)
    return json_response(success(result), headers={"task-id": delivery.task_id})


async def _events(request: web.Request, prepared: Prepared) -> web.Response:
    """Generated text as a stream, in one piece: a workflow puts it out when it has all of it."""
    (delivery,) = await run_tasks(request, [prepared])
    result = await result_of(request.app, prepared.model, prepared.nodes, delivery)
    return Response(
        body=b"data: " + to_json(result) + b"\n\ndata: [DONE]\n\n",
        content_type=EVENTS.media_type,
        headers={"Cache-Control": "no-store", "task-id": delivery.task_id},
    )
