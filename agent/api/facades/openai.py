"""OpenAI's Images API: POST /v1/images/generations and /v1/images/edits, GET /v1/models.

Each picture is a task of its own. Answers are JSON, which may begin early, or a stream of events
(openai_stream.py).
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from agent.api.facades.answering import answer_early, run_tasks
from agent.api.facades.openai_answers import body_of, check_urls, render_error
from agent.api.facades.openai_input import Generation, read_edit, read_generation, wish_of
from agent.api.facades.openai_stream import stream
from agent.api.facades.request import Prepared, find_model, prepare
from agent.api.keys import MODELS
from agent.api.render import json_response
from agent.errors import NotFound

__all__ = ["edit", "generate", "list_models", "render_error", "show_model", "vary"]

#: Who made the models, and when: nobody knows.
OWNER, CREATED = "comfyui-agent", 0


async def generate(request: web.Request) -> web.StreamResponse:
    return await _make(request, await read_generation(request))


async def edit(request: web.Request) -> web.StreamResponse:
    return await _make(request, await read_edit(request))


async def vary(_request: web.Request) -> web.StreamResponse:
    raise NotFound("Variations were an API of DALL-E 2, and are not made here. Use /v1/images/edits.")


async def list_models(request: web.Request) -> web.Response:
    table = await asyncio.to_thread(request.app[MODELS])
    return json_response({"object": "list", "data": [_describe(name) for name in table.names]})


async def show_model(request: web.Request) -> web.Response:
    name = request.match_info["model"]
    await find_model(request.app, name)
    return json_response(_describe(name))


async def _make(request: web.Request, given: Generation) -> web.StreamResponse:
    check_urls(request.app, given)
    model = await find_model(request.app, given.model_name)
    prepared = await prepare(request.app, model, await wish_of(request.app, given))
    if given.stream:
        return await stream(request, given, prepared)
    return await answer_early(request, _result(request, given, prepared))


async def _result(request: web.Request, given: Generation, prepared: Prepared) -> web.Response:
    deliveries = await run_tasks(request, [prepared] * (given.n or 1))
    body = await body_of(request, given, prepared, deliveries)
    return json_response(body, headers={"task-id": deliveries[0].task_id})


def _describe(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": OWNER}
