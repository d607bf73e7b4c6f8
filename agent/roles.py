"""What an instance of each role consists of beside the parts that all have: with an engine, or a front without one.

Each starts its parts one by one and stops them in reverse; one that fails to stop does not keep the others from it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from functools import cache, partial
from typing import TYPE_CHECKING

from aiohttp import web

from agent.api.keys import (
    BOARD,
    DESK,
    DEVICE_MEMORY,
    ENGINE,
    FREEZES,
    INVENTORY,
    LABELLER,
    METRICS,
    NOTIFIER,
    PARKING,
    PASSAGE,
    RUNNER,
    SAFETY,
    SETTINGS,
    WARM_UP,
)
from agent.build import bucket_reader, engine_folders, engine_limits, open_fetcher, plan_engine
from agent.cleaning import Cleaner
from agent.device_memory import DeviceMemory
from agent.executor import Executor
from agent.inputs.buckets import Sources
from agent.inputs.kinds import MediaLimits
from agent.inputs.resolve import InputResolver
from agent.inventory import Inventory
from agent.model_uses import ModelUses
from agent.outputs.folder import OutputFolders
from agent.outputs.places import OutputPlaces
from agent.passage import Passage
from agent.readings import read_engine, read_service
from agent.runner import Runner
from agent.safety.safety import Safety
from agent.warm_up import WarmUp, read_warm_up
from comfyui.client import Client
from comfyui.engine import Engine, EngineState
from comfyui.feed import Feed

if TYPE_CHECKING:
    from functools import _lru_cache_wrapper

    from agent.editor.desk import Desk
    from agent.inputs.fetch import Fetcher

#: Longer than any platform keeps an instance frozen.
PROBE_SECONDS = 7 * 86_400


async def run_with_engine(app: web.Application) -> AsyncGenerator[None, None]:
    """The roles all and engine."""
    settings, board, metrics, on_thaw = app[SETTINGS], app[BOARD], app[METRICS], app[FREEZES].on_thaw
    warm_up_request = read_warm_up(settings)
    url, launch = plan_engine(settings)
    client, feed = Client(url), Feed(url)
    engine = Engine(url, launch, partial(_probe, client), engine_limits(settings))
    engine.on_change(lambda e: feed.resume() if e.state is EngineState.READY else feed.pause())
    fetcher = cache(partial(open_fetcher, settings))
    folders = engine_folders(settings)
    resolver = InputResolver(
        client,
        Sources(fetcher, bucket_reader(settings)),
        MediaLimits(max_bytes=settings.max_input_bytes, max_pixels=settings.max_input_pixels),
        folder=folders.input if folders else None,
    )
    cleaner = Cleaner(folders, resolver, settings.keep_files_seconds)
    uses = ModelUses(settings)
    files = OutputFolders(client, folders)
    executor = Executor(settings, engine, client, feed, resolver, files, cleaner, uses)
    places = OutputPlaces(settings, board.objects, is_shared=board.store.is_shared)
    app[SAFETY] = safety = Safety(settings, metrics, cleaner, catalog=lambda: executor.catalog)
    runner = Runner(settings, board, executor, safety, app[LABELLER], places, app[NOTIFIER], metrics)
    warm_up = WarmUp(warm_up_request, executor, board.store, timeout_seconds=settings.task_timeout_seconds)
    app[INVENTORY] = inventory = Inventory(engine, client)
    app[PASSAGE] = passage = Passage(url, {})
    app[DEVICE_MEMORY] = memory = DeviceMemory(engine, client)
    app[ENGINE], app[RUNNER], app[WARM_UP] = engine, runner, warm_up
    desk = _open_desk(app)
    read_service(metrics, settings.role, runner, board, app[NOTIFIER])
    read_engine(metrics, engine, feed, memory)
    on_thaw(lambda _: feed.renew())
    on_thaw(runner.thaw)
    on_thaw(warm_up.thaw)
    engine.start()
    await feed.start()
    await runner.start()
    warm_up.start()
    async with AsyncExitStack() as stop:  # from the last to the first
        stop.push_async_callback(board.store.close)
        stop.push_async_callback(client.close)
        stop.push_async_callback(_close_fetcher, fetcher)
        stop.push_async_callback(engine.stop)
        stop.push_async_callback(feed.stop)
        stop.push_async_callback(passage.close)
        stop.callback(files.close)
        stop.callback(uses.close)
        stop.push_async_callback(cleaner.stop)
        stop.push_async_callback(app[NOTIFIER].close)
        stop.push_async_callback(safety.close)
        stop.push_async_callback(runner.stop)
        stop.push_async_callback(warm_up.stop)
        stop.push_async_callback(inventory.stop)
        stop.push_async_callback(memory.stop)
        if desk is not None:
            stop.push_async_callback(desk.close)
        yield


async def _probe(client: Client) -> None:
    # Bounded by the engine, who leaves out the time that the instance was frozen.
    await client.system_stats(timeout=PROBE_SECONDS)


async def _close_fetcher(fetcher: _lru_cache_wrapper[Fetcher]) -> None:
    if fetcher.cache_info().currsize:
        await fetcher().close()


def _open_desk(app: web.Application) -> Desk | None:
    """What takes prompts of ComfyUI's own clients, where they may come."""
    if not app[SETTINGS].serves_comfyui_clients:
        return None
    from agent.editor.desk import Desk  # noqa: PLC0415 - few open it

    app[DESK] = Desk(app[RUNNER], app[BOARD], concurrency=app[SETTINGS].concurrency)
    return app[DESK]


async def run_front(app: web.Application) -> AsyncGenerator[None, None]:
    """The role front."""
    from agent.front.function import EngineFunction, credentials  # noqa: PLC0415 - only a front needs an HTTP client of this kind
    from agent.front.runner import FrontRunner  # noqa: PLC0415

    settings, board, metrics = app[SETTINGS], app[BOARD], app[METRICS]
    app[SAFETY] = safety = Safety(settings, metrics)
    function = EngineFunction(settings)
    app[PASSAGE] = passage = Passage(settings.engine_url or "", credentials(settings))
    app[RUNNER] = runner = FrontRunner(settings, board, function, app[PARKING], app[NOTIFIER], safety)
    read_service(metrics, settings.role, runner, board, app[NOTIFIER])
    metrics.read("function_failures_total", lambda: runner.broken_calls)
    async with AsyncExitStack() as stop:  # from the last to the first
        stop.push_async_callback(board.store.close)
        stop.push_async_callback(passage.close)
        stop.push_async_callback(function.close)
        stop.push_async_callback(app[NOTIFIER].close)
        stop.push_async_callback(safety.close)
        stop.push_async_callback(runner.drain)
        yield
