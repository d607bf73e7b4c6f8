"""Is the agent alive; can it take work."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from agent.api.endpoint import Answer, Endpoint
from agent.api.keys import BOARD, ENGINE, RUNNER, SETTINGS, WARM_UP
from agent.api.models import Status
from agent.api.render import json_response
from agent.errors import EngineUnavailable, ShuttingDown
from comfyui.engine import Engine, EngineState


async def alive(request: web.Request) -> web.Response:
    """Answers at once, whatever the engine and the store do: a platform that hears nothing kills the instance.

    503 with the reason once the engine has been given up, so that a platform replaces an instance that can do no
    work. An engine that starts, restarts or is away for a moment is none of its business.
    """
    engine = request.app.get(ENGINE)
    if engine is None:  # a front
        return json_response({"status": "ok"})
    if engine.state is EngineState.FAILED:
        raise _unavailable(engine)
    about = {**_shown(engine), "simulated": request.app[SETTINGS].is_simulated}
    return json_response({"status": "ok", "engine": about})


async def ready(request: web.Request) -> web.Response:
    """200 when the engine is up and warm (of a front: the task store is there) and tasks are taken, else 503 with the
    reason. A task that comes earlier waits."""
    if request.app[RUNNER].is_stopping:
        raise ShuttingDown
    engine = request.app.get(ENGINE)
    if engine is None:  # a front needs the task store in the engine's place
        await request.app[BOARD].store.ping()
        return json_response({"status": "ready"})
    if engine.state is EngineState.READY:
        if request.app[WARM_UP].is_under_way:
            raise EngineUnavailable(
                "ComfyUI is up and runs the warm-up workflow.", engine=_shown(engine), retry_after=2
            )
        return json_response({"status": "ready", "engine": _shown(engine)})
    raise _unavailable(engine)


def _shown(engine: Engine) -> dict[str, Any]:
    return {"state": engine.state, "restarts": engine.restarts}


def _unavailable(engine: Engine) -> EngineUnavailable:
    # The lines after the first quote the engine's output, which is for the log: these routes are open to everybody.
    reason = engine.reason.partition("\n")[0] or "it has not been started yet"
    return EngineUnavailable(f"ComfyUI is not ready: {reason}.", engine=_shown(engine), retry_after=2)


ENDPOINTS = [
    Endpoint("GET", "/healthz", alive, {200: Answer("Alive.", Status)}, tag="service"),
    Endpoint("GET", "/readyz", ready, {200: Answer("Ready.", Status)}, tag="service"),
]
