"""Builds the application from the settings: the parts that every role has, and the order in which all of them start
and stop. Nothing else is global."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from functools import cache, partial
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from agent.api import hooks
from agent.api.keys import (
    API_KEYS,
    BOARD,
    EVENTS,
    EXPOSITION,
    FREEZES,
    LABELLER,
    LIBRARY,
    METRICS,
    MODELS,
    NOTIFIER,
    ORPHANS,
    PARKING,
    PARSING,
    RUNNER,
    SETTINGS,
    TRACES,
)
from agent.api.latest_events import LatestEvents
from agent.api.routes import MIDDLEWARES, add_routes
from agent.build import (
    build_notifier,
    build_orphans,
    build_store,
    models_opener,
    open_exposition,
    open_named_workflows,
)
from agent.freeze import FreezeWatch
from agent.gate import Gate
from agent.labels.labeller import Labeller
from agent.metrics import Metrics
from agent.objects import open_object_store
from agent.parking import Parking
from agent.roles import run_front, run_with_engine
from agent.settings import Role, Settings, read_api_keys
from agent.tasks.board import TaskBoard
from agent.traces import Traces

if TYPE_CHECKING:
    from agent.exposition import Exposition
    from agent.library.library import Library

log = structlog.get_logger(__name__)


def build_app(settings: Settings) -> web.Application:
    """The whole service. Running it starts the engine; cleaning it up stops it."""
    app = web.Application(middlewares=MIDDLEWARES, client_max_size=settings.max_body_bytes)
    app[SETTINGS] = settings
    app[FREEZES] = FreezeWatch()
    app[PARSING] = Gate(2)
    app[API_KEYS] = read_api_keys(settings)
    _warn_of_open_doors(settings, app[API_KEYS])
    app[BOARD] = TaskBoard(
        build_store(settings),
        objects=open_object_store(settings),
        signed_url_seconds=settings.signed_url_seconds,
        answer_limit=settings.answer_limit,
    )
    app[NOTIFIER] = build_notifier(settings, app[BOARD])
    app[ORPHANS] = build_orphans(settings, app[BOARD], app[NOTIFIER], partial(_is_ours, app))
    app[METRICS] = Metrics()
    app[TRACES] = Traces(settings.traces_endpoint)
    app[EVENTS] = LatestEvents()
    app[LABELLER] = Labeller(settings)
    app[PARKING] = Parking(app[BOARD].store, app[BOARD].objects, max_bytes=settings.max_body_bytes)
    exposition: Callable[[], Exposition] = cache(partial(open_exposition, settings, app[METRICS]))
    app[EXPOSITION] = exposition
    library: Callable[[], Library] = cache(partial(open_named_workflows, settings))
    app[LIBRARY] = library
    app[MODELS] = models_opener(settings)
    add_routes(app, settings)
    app.cleanup_ctx.append(_open_traces)
    app.cleanup_ctx.append(_watch_freezes)
    app.cleanup_ctx.append(run_front if settings.role is Role.FRONT else run_with_engine)
    app.cleanup_ctx.append(_end_orphans)
    app.on_shutdown.append(hooks.drain)  # while the open requests can still be answered
    return app


def _warn_of_open_doors(settings: Settings, keys: tuple[bytes, ...]) -> None:
    if not keys and not settings.behind_gateway:
        log.warning("agent.open", note="no AGENT_API_KEYS: whoever reaches the port can run workflows")
    if keys and settings.keyless_facades:
        log.warning(
            "agent.keyless",
            facades=[name.value for name in settings.keyless_facades],
            note="AGENT_KEYLESS_FACADES: whoever reaches the port can use these",
        )


async def _open_traces(app: web.Application) -> AsyncGenerator[None, None]:
    opening = asyncio.create_task(app[TRACES].start())  # the port does not wait for it
    yield
    await opening
    await app[TRACES].flush()


def _is_ours(app: web.Application, task_id: str) -> bool:
    queue = app[RUNNER].queue()
    return task_id in queue["running"] or task_id in queue["queued"]


async def _end_orphans(app: web.Application) -> AsyncGenerator[None, None]:
    app[FREEZES].on_thaw(app[ORPHANS].thaw)
    app[ORPHANS].start()
    yield
    await app[ORPHANS].stop()


async def _watch_freezes(app: web.Application) -> AsyncGenerator[None, None]:
    app[FREEZES].on_thaw(lambda _: app[BOARD].store.renew())
    app[FREEZES].start()
    yield
    app[FREEZES].stop()
