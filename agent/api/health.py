"""Is the agent alive; can it take work."""

from __future__ import annotations

from aiohttp import web

from agent.api.endpoint import Answer, Endpoint
from agent.api.keys import ENGINE, RUNNER
from agent.api.models import Status
from agent.api.render import json_response
from agent.errors import EngineUnavailable, ShuttingDown
from comfyui.engine import EngineState


async def alive(_request: web.Request) -> web.Response:
    """Answers at once, whatever the engine and the store do: a platform that hears nothing kills the instance."""
    return json_response({"status": "ok"})


async def ready(request: web.Request) -> web.Response:
    """200 when the engine is up and tasks are taken, else 503 with the reason."""
    if request.app[RUNNER].is_stopping:
        raise ShuttingDown
    engine = request.app[ENGINE]
    if engine.state is EngineState.READY:
        return json_response(
            {"status": "ready", "engine": {"state": engine.state, "restarts": engine.restarts}}
        )
    # The lines after the first quote the engine's output, which is for the log: this route is open to everybody.
    reason = engine.reason.partition("\n")[0] or "it has not been started yet"
    raise EngineUnavailable(f"ComfyUI is not ready: {reason}.", state=engine.state.value, retry_after=2)


ENDPOINTS = [
    Endpoint("GET", "/healthz", alive, {200: Answer("Alive.", Status)}, tag="service"),
    Endpoint("GET", "/readyz", ready, {200: Answer("Ready.", Status)}, tag="service"),
]
