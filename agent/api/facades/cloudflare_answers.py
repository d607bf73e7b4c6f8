"""What is answered as Cloudflare's Workers AI would: results by the kind of the model, and errors with its codes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pybase64
from aiohttp import web
from pydantic_core import from_json, to_json

from agent.api.facades.models import Answer, Model
from agent.api.facades.results import as_bytes, check_size, pictures_of, texts_of
from agent.api.render import ErrorResponse
from agent.errors import AgentError, InvalidModel
from agent.service import Delivery, Forwarded

#: Error -> Cloudflare's code and HTTP status. docs/compatibility.md says which of them are documented there.
CODES = {
    "ModelNotFound": (5007, 400),
    "InvalidJson": (3003, 400),
    "InvalidRequest": (3003, 400),
    "Unauthorized": (10000, 401),
    "OriginNotAllowed": (10000, 403),
    "NotFound": (7000, 404),
    "MethodNotAllowed": (7001, 405),
    "PromptRefused": (3030, 400),
    "UnsafeImage": (3030, 400),
    "BodyTooLarge": (3006, 413),
    "InputTooLarge": (3006, 413),
    "AnswerTooLarge": (3006, 413),
    "BodyTooSlow": (3007, 408),
    "TaskTimeout": (3007, 408),
    "CallerGone": (3008, 408),
    "TaskCancelled": (3008, 408),
    "QueueFull": (3040, 429),
    "EngineBusy": (3040, 429),
    "EngineUnavailable": (3040, 429),
    "ShuttingDown": (3040, 429),
}

#: For the errors that are not in CODES: the caller's, and ours.
WRONG_INPUT, INTERNAL = (5006, 400), (3043, 500)


async def result_of(
    app: web.Application, model: Model, nodes: Sequence[str], delivery: Delivery | Forwarded
) -> Any:
    """What stands under `result`. `nodes`: those whose outputs count; none: all."""
    match model.answer:
        case Answer.PICTURE | Answer.JSON as answer:
            first = (await pictures_of(app, nodes, delivery))[0]
            kind = "image/png" if answer is Answer.PICTURE else "image/jpeg"
            data = await as_bytes(app, first, kind)
            check_size(app, len(data) * 4 // 3)
            return {"image": await asyncio.to_thread(pybase64.b64encode_as_string, data)}
        case Answer.RESPONSE:
            return {"response": "\n".join(await texts_of(nodes, delivery))}
        case Answer.TRANSLATION:
            return {"translated_text": "\n".join(await texts_of(nodes, delivery))}
        case Answer.LABELS:
            return _labels((await texts_of(nodes, delivery))[0])


def success(result: Any) -> dict[str, Any]:
    """The envelope of all that went well."""
    return {"result": result, "success": True, "errors": [], "messages": []}


def describe(error: AgentError) -> dict[str, Any]:
    """The error as an item of `errors`."""
    code = CODES.get(error.code, WRONG_INPUT if error.status < 500 else INTERNAL)[0]
    return {"code": code, "message": f"AiError: {error.code}: {error.detail}"}


def render_error(error: AgentError, task_id: str | None = None) -> ErrorResponse:
    _, status = CODES.get(error.code, WRONG_INPUT if error.status < 500 else INTERNAL)
    headers = {"task-id": found} if (found := task_id or error.task_id) else {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    body = {"result": None, "success": False, "errors": [describe(error)], "messages": []}
    response = ErrorResponse(
        body=to_json(body), status=status, content_type="application/json", headers=headers
    )
    response.code = error.code
    return response


def _labels(text: str) -> list[dict[str, Any]]:
    """Labels with scores, from the JSON that a classifier's node puts out: a list of them, or an object of scores by
    label. Raises InvalidModel."""
    try:
        found = from_json(text, allow_inf_nan=False)
        pairs = (
            found.items() if isinstance(found, dict) else [(item["label"], item["score"]) for item in found]
        )
        return [{"label": str(label), "score": float(score)} for label, score in pairs]
    except (ValueError, TypeError, KeyError, OverflowError):
        raise InvalidModel(
            'The workflow of this model has put out no labels: they are JSON, [{"label": "cat", "score": 0.9}].'
        ) from None
