"""GET /openapi.json: the OpenAPI 3.1 document, made from the endpoints and the models that also validate."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from aiohttp import web
from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from agent import __version__
from agent.api.endpoint import Answer, Endpoint, Parameter
from agent.api.models import ErrorBody
from agent.api.render import json_response

DESCRIPTION = (
    "Runs ComfyUI workflows: send one in API format, get its images back. Every error has the same form."
)


def endpoints(others: Sequence[Endpoint]) -> list[Endpoint]:
    """The endpoint that describes the others and itself. The document is built at its first request."""
    document: dict[str, Any] = {}

    async def openapi(_request: web.Request) -> web.Response:
        """This document."""
        if not document:
            document.update(build_document([*others, *own]))
        return json_response(document)

    own = [
        Endpoint("GET", "/openapi.json", openapi, {200: Answer("OpenAPI 3.1", dict[str, Any])}, tag="service")
    ]
    return own


def build_document(table: Sequence[Endpoint]) -> dict[str, Any]:
    """The whole document as JSON data."""
    models = [(model, mode) for endpoint in table for model, mode in _models(endpoint)]
    adapters = [(str(number), mode, TypeAdapter(model)) for number, (model, mode) in enumerate(models)]
    schemas, definitions = TypeAdapter.json_schemas(adapters, ref_template="#/components/schemas/{model}")
    refs = {(repr(m), mode): schemas[(str(n), mode)] for n, (m, mode) in enumerate(models)}
    paths: dict[str, Any] = {}
    for endpoint in table:
        paths.setdefault(_plain(endpoint.path), {})[endpoint.method.lower()] = _operation(endpoint, refs)
    return {
        "openapi": "3.1.0",
        "info": {"title": "comfyui-agent", "version": __version__, "description": DESCRIPTION},
        "paths": paths,
        "components": {
            "schemas": definitions.get("$defs", {}),
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
        "security": [{}, {"key": []}, {"bearer": []}],
    }


def _models(endpoint: Endpoint) -> list[tuple[Any, JsonSchemaMode]]:
    answers: list[tuple[Any, JsonSchemaMode]] = [
        (answer.model, "serialization") for answer in endpoint.answers.values() if answer.model is not None
    ]
    body: list[tuple[Any, JsonSchemaMode]] = (
        [(endpoint.body, "validation")] if endpoint.body is not None else []
    )
    return [*answers, *body, (ErrorBody, "serialization")]


def _operation(endpoint: Endpoint, refs: dict[tuple[str, JsonSchemaMode], Any]) -> dict[str, Any]:
    summary, _, rest = endpoint.description.partition("\n\n")
    answers = {str(status): _answer(answer, refs) for status, answer in endpoint.answers.items()}
    error = Answer("An error; `message` is its code.", ErrorBody)
    operation: dict[str, Any] = {
        "summary": " ".join(summary.split()),
        "operationId": endpoint.handler.__name__,
        "tags": [endpoint.tag],
        "parameters": [_parameter(parameter) for parameter in endpoint.parameters],
        "responses": {**answers, "default": _answer(error, refs)},
    }
    if rest:
        operation["description"] = rest
    if endpoint.body is not None:
        content = {"application/json": {"schema": refs[(repr(endpoint.body), "validation")]}}
        if endpoint.form is not None:
            content["multipart/form-data"] = {"schema": endpoint.form}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _answer(answer: Answer, refs: dict[tuple[str, JsonSchemaMode], Any]) -> dict[str, Any]:
    if answer.media_type is None:
        return {"description": answer.description}
    schema = {} if answer.model is None else refs[(repr(answer.model), "serialization")]
    content: dict[str, Any] = {answer.media_type: {"schema": schema}}
    content |= {media_type: {"schema": {}} for media_type in answer.also}
    return {"description": answer.description, "content": content}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.is_required,
        "schema": parameter.schema,
        "description": parameter.description,
    }


def _plain(path: str) -> str:
    """aiohttp allows a pattern in `{name:pattern}`, OpenAPI does not."""
    return re.sub(r"\{(\w+):[^}]*\}", r"{\1}", path)
