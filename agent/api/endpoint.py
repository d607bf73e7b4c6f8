"""One table of routes that drives both the router and the OpenAPI document."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web

from agent.api.parse import invite_body

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the path, the query or the headers. `schema` is JSON Schema."""

    name: str
    place: Literal["path", "query", "header"]
    schema: dict[str, Any]
    description: str = ""

    @property
    def is_required(self) -> bool:
        return self.place == "path"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a status means. `model` is the type of a JSON body; other bodies name their media type. `also`: media types
    that the caller may ask for instead."""

    description: str
    model: Any = None
    media_type: str | None = "application/json"
    also: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A route. Its handler's docstring is its description; every error has the common form. `body` is the type of a
    JSON body, `form` says what a multipart/form-data body in its place may hold, as JSON Schema."""

    method: str
    path: str
    handler: Handler
    answers: dict[int, Answer]
    parameters: tuple[Parameter, ...] = ()
    body: Any = None
    form: dict[str, Any] | None = None
    tag: str = field(default="tasks", kw_only=True)

    def route(self) -> web.RouteDef:
        return web.route(self.method, self.path, self.handler, expect_handler=invite_body)

    @property
    def description(self) -> str:
        return inspect.getdoc(self.handler) or ""


TASK_ID_SCHEMA = {"type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}$"}
TASK_ID_IN_PATH = Parameter("id", "path", TASK_ID_SCHEMA, "The task's id.")
TASK_ID_HEADER = Parameter("task-id", "header", TASK_ID_SCHEMA, "Names the task; without it an id is made.")
