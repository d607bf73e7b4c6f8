"""What is answered as OpenAI's Images API would: pictures, models and errors."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pybase64
from aiohttp import web
from pydantic_core import to_json

from agent.api.facades.openai_input import Generation
from agent.api.facades.request import Prepared
from agent.api.facades.results import as_bytes, check_size, links_of, pictures_of
from agent.api.keys import API_KEYS, BOARD
from agent.api.render import ErrorResponse
from agent.errors import AgentError, InvalidParameter
from agent.service import Delivery, Forwarded

#: Error -> OpenAI's code. The others have ours.
CODES = {
    "ModelNotFound": "model_not_found",
    "Unauthorized": "invalid_api_key",
    "QueueFull": "rate_limit_exceeded",
    "EngineBusy": "rate_limit_exceeded",
    "PromptRefused": "moderation_blocked",
    "UnsafeImage": "moderation_blocked",
    "NotFound": "unknown_url",
}

#: Errors whose status is another one there.
STATUSES = {"InvalidParameter": 400, "PromptRefused": 400, "UnsafeImage": 400}


def describe(error: AgentError) -> dict[str, Any]:
    """The error as it stands under `error`."""
    status = STATUSES.get(error.code, error.status)
    if error.code in ("PromptRefused", "UnsafeImage"):
        kind = "image_generation_user_error"
    elif status == 429:
        kind = "requests"
    else:
        kind = "invalid_request_error" if status < 500 else "server_error"
    return {
        "message": error.detail,
        "type": kind,
        "param": error.facts.get("parameter"),
        "code": CODES.get(error.code, error.code),
    }


def render_error(error: AgentError, task_id: str | None = None) -> ErrorResponse:
    # The official clients send again what failed with 5xx, unless they are told not to.
    headers = {"x-should-retry": "true" if error.transient else "false"}
    if found := task_id or error.task_id:
        headers["task-id"] = found
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    response = ErrorResponse(
        body=to_json({"error": describe(error)}),
        status=STATUSES.get(error.code, error.status),
        content_type="application/json",
        headers=headers,
    )
    response.code = error.code
    return response


def check_urls(app: web.Application, given: Generation) -> None:
    """Raises InvalidParameter where a URL could not be opened by whoever gets it."""
    if given.wants_url and not given.stream and app[BOARD].objects is None and app[API_KEYS]:
        raise InvalidParameter(
            'Parameter "response_format": without an object store (AGENT_OBJECT_STORE) a URL would need the API key. '
            'Ask for "b64_json".',
            parameter="response_format",
        )


async def body_of(
    request: web.Request, given: Generation, prepared: Prepared, deliveries: list[Delivery | Forwarded]
) -> dict[str, Any]:
    """The whole answer."""
    found: list[dict[str, str]] = []
    for delivery in deliveries:
        if given.wants_url:
            links = await links_of(request.app, prepared.nodes, delivery)
            found += [{"url": _absolute(request, link)} for link in links]
            continue
        for picture in await pictures_of(request.app, prepared.nodes, delivery):
            data = await as_bytes(request.app, picture, given.media_type, quality=given.output_compression)
            found.append({"b64_json": await asyncio.to_thread(pybase64.b64encode_as_string, data)})
    check_size(request.app, sum(len(item.get("b64_json", "")) for item in found))
    body: dict[str, Any] = {"created": int(time.time()), "data": found, "background": "opaque"}
    body["output_format"] = given.output_format or "png"
    if given.quality not in (None, "auto", "standard", "hd"):
        body["quality"] = given.quality
    return body


def _absolute(request: web.Request, link: str) -> str:
    """The link as others can open it. Behind a gateway that ends TLS we see http."""
    if not link.startswith("/"):
        return link
    given = request.headers.get("X-Forwarded-Proto", "")
    scheme = given if given in ("http", "https") else request.scheme
    return f"{scheme}://{request.host}{link}"
