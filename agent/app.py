"""Builds the application from the settings: which parts there are, what they are given, and in which order they
start and stop. Nothing else is global."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from functools import cache, partial
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from agent import __version__
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
from agent.api.keys import (
    API_KEYS,
    BOARD,
    DESK,
    DEVICE_MEMORY,
    ENGINE,
    EVENTS,
    EXPOSITION,
    FACADES,
    FREEZES,
    INVENTORY,
    LABELLER,
    LIBRARY,
    METRICS,
    MODELS,
    NOTIFIER,
    ORPHANS,
    PARKING,
    PARSING,
    PASSAGE,
    RUNNER,
    SAFETY,
    SETTINGS,
    TRACES,
    WARM_UP,
    WEB_UI,
)
from agent.api.latest_events import LatestEvents
from agent.build import (
    bucket_reader,
    build_notifier,
    build_orphans,
    build_store,
    engine_folders,
    engine_limits,
    plan_engine,
)
from agent.cleaning import Cleaner
from agent.device_memory import DeviceMemory
from agent.executor import Executor
from agent.freeze import FreezeWatch
from agent.inputs.addresses import AllowList
from agent.inputs.buckets import Sources
from agent.inputs.kinds import MediaLimits
from agent.inputs.resolve import InputResolver
from agent.inventory import Inventory
from agent.labels.labeller import Labeller
from agent.metrics import Metrics
from agent.model_uses import ModelUses
from agent.objects import open_object_store
from agent.outputs.places import OutputPlaces
from agent.parking import Parking
from agent.passage import Passage
from agent.runner import Runner
from agent.safety.safety import Safety
from agent.settings import Role, Settings, read_api_keys
from agent.tasks.board import TaskBoard
from agent.tasks.record import WebhookState
from agent.traces import Traces
from agent.warm_up import WarmUp, read_warm_up
from comfyui.client import Client
from comfyui.engine import Engine, EngineState
from comfyui.feed import Feed

if TYPE_CHECKING:
    from agent.api.facades.models import ModelTable
    from agent.editor.desk import Desk
    from agent.exposition import Exposition
    from agent.inputs.fetch import Fetcher
    from agent.library.library import Library

log = structlog.get_logger(__name__)

#: Longer than any platform keeps an instance frozen.
PROBE_SECONDS = 7 * 86_400


def build_app(settings: Settings) -> web.Application:
    """The whole service. Running it starts the engine; cleaning it up stops it."""
    app = web.Application(
        middlewares=[
            middleware.count_request,
            middleware.name_request,
            middleware.end_orphans,
            middleware.render_errors,
            middleware.check_origin,
            middleware.check_key,
        ],
        client_max_size=settings.max_body_bytes,
    )
    app[SETTINGS] = settings
    app[FREEZES] = FreezeWatch()
    app[PARSING] = asyncio.Semaphore(2)
    app[API_KEYS] = read_api_keys(settings)
    if not app[API_KEYS] and not settings.behind_gateway:
        log.warning("agent.open", note="no AGENT_API_KEYS: whoever reaches the port can run workflows")
    if app[API_KEYS] and settings.keyless_facades:
        log.warning(
            "agent.keyless",
            facades=[name.value for name in settings.keyless_facades],
            note="AGENT_KEYLESS_FACADES: whoever reaches the port can use these",
        )
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
    exposition: Callable[[], Exposition] = cache(partial(_open_exposition, settings, app[METRICS]))
    app[EXPOSITION] = exposition
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
    opener: Callable[[], Library] = cache(partial(_open_library, settings))
    app[LIBRARY] = opener
    app[MODELS] = _open_models(settings)
    app[PARKING] = Parking(app[BOARD].store, app[BOARD].objects, max_bytes=settings.max_body_bytes)
    app.cleanup_ctx.append(_open_traces)
    app.cleanup_ctx.append(_watch_freezes)
    app.cleanup_ctx.append(_run_front if settings.role is Role.FRONT else _run_parts)
    app.cleanup_ctx.append(_end_orphans)
    app.on_shutdown.append(hooks.drain)  # while the open requests can still be answered
    return app


def _open_library(settings: Settings) -> Library:
    from agent.library.library import open_library  # noqa: PLC0415 - YAML and all; see LIBRARY

    return open_library(settings.workflows_dir)


def _open_models(settings: Settings) -> Callable[[], ModelTable]:
    """What opens the table of models; the operator's own file is read at once, so that he hears of what is wrong."""

    def read() -> ModelTable:
        from agent.api.facades.models import read_models  # noqa: PLC0415 - YAML; see MODELS

        return read_models(settings.models)

    opener = cache(read)
    if settings.models is not None and settings.facades:
        opener()
    return opener


def _open_fetcher(settings: Settings) -> Fetcher:
    from agent.inputs.fetch import Fetcher  # noqa: PLC0415 - httpx, and the authorities of TLS: few inputs are URLs

    return Fetcher(
        AllowList.parse(settings.fetch_allow),
        max_bytes=settings.max_input_bytes,
        timeout_seconds=settings.fetch_timeout_seconds,
    )


def _open_exposition(settings: Settings, metrics: Metrics) -> Exposition:
    from agent.exposition import Exposition  # noqa: PLC0415 - prometheus-client; see EXPOSITION

    return Exposition(metrics, is_front=settings.role is Role.FRONT)


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


async def _run_parts(app: web.Application) -> AsyncGenerator[None, None]:
    """Start the parts one by one and stop them in reverse."""
    settings, board = app[SETTINGS], app[BOARD]
    warm_up_request = read_warm_up(settings)
    url, launch = plan_engine(settings)
    client, feed = Client(url), Feed(url)
    fetcher = cache(partial(_open_fetcher, settings))

    async def probe() -> None:
        # Bounded by the engine, who leaves out the time that the instance was frozen.
        await client.system_stats(timeout=PROBE_SECONDS)

    engine = Engine(url, launch, probe, engine_limits(settings))
    engine.on_change(lambda e: feed.resume() if e.state is EngineState.READY else feed.pause())
    limits = MediaLimits(max_bytes=settings.max_input_bytes, max_pixels=settings.max_input_pixels)
    folders = engine_folders(settings)
    sources = Sources(fetcher, bucket_reader(settings))
    resolver = InputResolver(client, sources, limits, folder=folders.input if folders else None)
    cleaner = Cleaner(folders, resolver, settings.keep_files_seconds)
    uses = ModelUses(settings)
    executor = Executor(settings, engine, client, feed, resolver, cleaner, uses)
    places = OutputPlaces(settings, board.objects, is_shared=board.store.is_shared)
    app[SAFETY] = safety = Safety(settings, app[METRICS], cleaner, catalog=lambda: executor.catalog)
    runner = Runner(settings, board, executor, safety, app[LABELLER], places, app[NOTIFIER], app[METRICS])
    warm_up = WarmUp(warm_up_request, executor, board.store, timeout_seconds=settings.task_timeout_seconds)
    app[INVENTORY] = inventory = Inventory(engine, client)
    app[PASSAGE] = passage = Passage(url, {})
    app[DEVICE_MEMORY] = memory = DeviceMemory(engine, client)
    app[ENGINE], app[RUNNER], app[WARM_UP] = engine, runner, warm_up
    desk = _open_desk(app)
    _read_metrics(app)
    app[METRICS].read("engine_ready", lambda: engine.state is EngineState.READY)
    app[METRICS].read("engine_restarts_total", lambda: engine.restarts)
    app[METRICS].read("feed_reconnects_total", lambda: feed.reconnects)
    app[METRICS].read("device_memory_bytes", lambda: memory.total)
    app[METRICS].read("device_memory_free_bytes", lambda: memory.free)
    app[FREEZES].on_thaw(lambda _: feed.renew())
    app[FREEZES].on_thaw(runner.thaw)
    app[FREEZES].on_thaw(warm_up.thaw)
    engine.start()
    await feed.start()
    await runner.start()
    warm_up.start()
    yield
    if desk is not None:
        await desk.close()
    await memory.stop()
    await inventory.stop()
    await warm_up.stop()
    await runner.stop()
    await safety.close()
    await app[NOTIFIER].close()
    await cleaner.stop()
    uses.close()
    await passage.close()
    await feed.stop()
    await engine.stop()
    if fetcher.cache_info().currsize:
        await fetcher().close()
    await client.close()
    await board.store.close()


def _open_desk(app: web.Application) -> Desk | None:
    """What takes prompts of ComfyUI's own clients, where they may come."""
    if not app[SETTINGS].serves_comfyui_clients:
        return None
    from agent.editor.desk import Desk  # noqa: PLC0415 - few open it

    app[DESK] = Desk(app[RUNNER], app[BOARD], concurrency=app[SETTINGS].concurrency)
    return app[DESK]


async def _run_front(app: web.Application) -> AsyncGenerator[None, None]:
    from agent.front.function import EngineFunction, credentials  # noqa: PLC0415 - only a front needs an HTTP client of this kind
    from agent.front.runner import FrontRunner  # noqa: PLC0415

    settings = app[SETTINGS]
    app[SAFETY] = safety = Safety(settings, app[METRICS])
    function = EngineFunction(settings)
    app[PASSAGE] = passage = Passage(settings.engine_url or "", credentials(settings))
    runner = FrontRunner(settings, app[BOARD], function, app[PARKING], app[NOTIFIER], safety)
    app[RUNNER] = runner
    _read_metrics(app)
    app[METRICS].read("function_failures_total", lambda: runner.broken_calls)
    yield
    await runner.drain()
    await safety.close()
    await app[NOTIFIER].close()
    await function.close()
    await passage.close()
    await app[BOARD].store.close()


def _read_metrics(app: web.Application) -> None:
    """Have what the parts of every role know anyway shown with the metrics."""
    store, objects, ended, read = app[BOARD].store, app[BOARD].objects, app[NOTIFIER].ended, app[METRICS].read

    def tasks_by_state() -> dict[tuple[str, ...], float]:
        queue = app[RUNNER].queue()
        return {(state,): len(queue[state]) for state in ("queued", "running")}

    read("info", lambda: {(__version__, app[SETTINGS].role.value): 1})
    read("tasks", tasks_by_state)
    read("task_capacity", lambda: app[RUNNER].queue()["capacity"])
    read("store_errors_total", lambda: store.failures)
    read(
        "webhooks_total",
        lambda: {(s.value,): ended[s] for s in (WebhookState.DELIVERED, WebhookState.FAILED)},
    )
    if objects is not None:
        read(
            "object_uploads_total",
            lambda: {("succeeded",): objects.uploads, ("failed",): objects.failed_uploads},
        )
