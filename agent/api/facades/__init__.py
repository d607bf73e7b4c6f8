"""Other image APIs, whose callers change nothing but the base URL: each a thin adapter onto named workflows.

A facade maps the parameters of its API to those of a named workflow (models.py, request.py), runs it as any other task
(answering.py), and maps results and errors back. docs/compatibility.md says of each parameter what becomes of it.

Only this table is read at the start; the module of a facade is imported at the first request for one of its routes.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from aiohttp import web

from agent.api.keys import FACADES, SETTINGS
from agent.api.parse import invite_body
from agent.settings_facades import FacadeName

if TYPE_CHECKING:
    from agent.api.endpoint import Handler
    from agent.api.render import ErrorResponse
    from agent.errors import AgentError


@dataclass(frozen=True, slots=True)
class Facade:
    """One API. `module` lies in this package and has the handlers that `routes` names (method, path, function), and
    `render_error`, which gives an error the form of that API. `paths` matches every path that belongs to the API, also
    those that it has no route for. `takes_password`: its clients send the key as the password of HTTP Basic."""

    name: FacadeName
    module: str
    paths: re.Pattern[str]
    routes: tuple[tuple[str, str, str], ...]
    takes_password: bool = False

    def definitions(self) -> list[web.RouteDef]:
        return [
            web.route(method, path, self._handler(function), expect_handler=invite_body)
            for method, path, function in self.routes
        ]

    def render_error(self, error: AgentError, task_id: str | None = None) -> ErrorResponse:
        """The answer that says this error as the API would."""
        response: ErrorResponse = self._load("render_error")(error, task_id)
        return response

    def _handler(self, function: str) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            # In a thread, since the first time it imports all that the facade needs.
            answer: Handler = await asyncio.to_thread(self._load, function)
            return await answer(request)

        return handle

    def _load(self, function: str) -> Any:
        return getattr(import_module(f"{__name__}.{self.module}"), function)


ALL = (
    Facade(
        FacadeName.CLOUDFLARE,
        "cloudflare",
        re.compile(r"/client/v4(/.*)?"),
        (("POST", "/client/v4/accounts/{account}/ai/run/{model:.+}", "run"),),
    ),
    Facade(
        FacadeName.OPENAI,
        "openai",
        re.compile(r"/v1(/.*)?"),
        (
            ("POST", "/v1/images/generations", "generate"),
            ("POST", "/v1/images/edits", "edit"),
            ("POST", "/v1/images/variations", "vary"),
            ("GET", "/v1/models", "list_models"),
            ("GET", "/v1/models/{model:.+}", "show_model"),
        ),
    ),
    Facade(
        FacadeName.RUNPOD,
        "runpod",
        re.compile(
            r"/v2/[^/]+/.*|/run|/runsync|/health|/(status|status-sync|stream|cancel|retry)/[^/]+|/purge-queue"
        ),
        tuple(
            (method, f"{base}{path}", function)
            for base in ("", "/v2/{endpoint}")
            for method, path, function in (
                ("POST", "/run", "run"),
                ("POST", "/runsync", "runsync"),
                ("GET", "/status/{id}", "status"),
                ("POST", "/status/{id}", "status"),
                ("GET", "/status-sync/{id}", "status_sync"),
                ("GET", "/stream/{id}", "stream"),
                ("POST", "/cancel/{id}", "cancel"),
                ("GET", "/health", "health"),
                ("POST", "/retry/{id}", "refuse"),
                ("POST", "/purge-queue", "refuse"),
            )
        ),
    ),
    Facade(
        FacadeName.AUTOMATIC1111,
        "automatic1111",
        re.compile(r"/sdapi/v1(/.*)?"),
        tuple(
            (method, f"/sdapi/v1/{path}", function)
            for method, path, function in (
                ("POST", "txt2img", "txt2img"),
                ("POST", "img2img", "img2img"),
                ("GET", "progress", "progress"),
                ("POST", "interrupt", "interrupt"),
                ("POST", "skip", "skip"),
                ("GET", "options", "show_options"),
                ("POST", "options", "set_options"),
                ("GET", "sd-models", "list_checkpoints"),
                ("GET", "loras", "list_loras"),
                ("GET", "samplers", "list_samplers"),
                ("GET", "schedulers", "list_schedulers"),
                ("GET", "upscalers", "list_nothing"),
                ("GET", "latent-upscale-modes", "list_nothing"),
                ("GET", "sd-vae", "list_nothing"),
                ("GET", "hypernetworks", "list_nothing"),
                ("GET", "face-restorers", "list_nothing"),
                ("GET", "realesrgan-models", "list_nothing"),
                ("GET", "prompt-styles", "list_nothing"),
                ("GET", "script-info", "list_nothing"),
                ("GET", "embeddings", "list_embeddings"),
                ("GET", "scripts", "list_scripts"),
                ("GET", "cmd-flags", "show_flags"),
                ("GET", "memory", "show_memory"),
                ("POST", "refresh-checkpoints", "refresh"),
                ("POST", "refresh-loras", "refresh"),
                ("POST", "refresh-vae", "refresh"),
            )
        ),
        takes_password=True,
    ),
)


def chosen(names: Iterable[FacadeName]) -> tuple[Facade, ...]:
    """The facades of these names."""
    return tuple(facade for facade in ALL if facade.name in names)


def facade_of(request: web.Request) -> Facade | None:
    """The open facade whose API the request speaks."""
    return next((f for f in request.app[FACADES] if f.paths.fullmatch(request.path)), None)


def is_keyless(request: web.Request) -> bool:
    """Whether the operator lets everybody use the facade that is asked."""
    keyless = request.app[SETTINGS].keyless_facades
    return bool(keyless) and (facade := facade_of(request)) is not None and facade.name in keyless
