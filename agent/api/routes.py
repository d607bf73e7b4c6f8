"""Every route of the service, and what each request passes on its way to one."""

from __future__ import annotations

from aiohttp import web

from agent.api import (
    facades,
    health,
    hooks,
    metrics,
    middleware,
    openapi,
    pages,
    passing,
    run,
    socket,
    tasks,
    workflows,
)
from agent.api.facades.automatic1111_state import WebUi
from agent.api.keys import FACADES, WEB_UI
from agent.settings import Settings

#: The first one is the outermost.
MIDDLEWARES = (
    middleware.count_request,
    middleware.name_request,
    middleware.end_orphans,
    middleware.render_errors,
    middleware.check_origin,
    middleware.check_key,
)


def add_routes(app: web.Application, settings: Settings) -> None:
    """Our own routes, which the OpenAPI document describes, then those of ComfyUI and of other APIs."""
    table = [e for group in (run, socket, tasks, workflows, health, metrics, hooks) for e in group.ENDPOINTS]
    app.add_routes(endpoint.route() for endpoint in (*table, *openapi.endpoints(table)))
    app.add_routes(pages.ROUTES)
    if settings.serves_comfyui_clients:
        from agent.api import editor  # noqa: PLC0415 - few open it

        app.add_routes(editor.routes())
    else:
        app.add_routes(passing.routes(settings.pass_through))
    app[FACADES] = facades.chosen(settings.facades)
    app[WEB_UI] = WebUi()
    app.add_routes(route for facade in app[FACADES] for route in facade.definitions())
    app.on_response_prepare.append(middleware.keep_quiet)
    app.on_response_prepare.append(middleware.show_to_page)
    app.on_response_prepare.append(run.tell_platform)
