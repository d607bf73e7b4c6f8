"""Metrics that are not counted for themselves, but read where somebody knows them anyway."""

from __future__ import annotations

from agent import __version__
from agent.device_memory import DeviceMemory
from agent.metrics import Metrics
from agent.objects import ObjectStore
from agent.service import TaskService
from agent.settings import Role
from agent.tasks.board import TaskBoard
from agent.tasks.record import WebhookState
from agent.webhooks.notifier import Notifier
from comfyui.engine import Engine, EngineState
from comfyui.feed import Feed


def read_service(
    metrics: Metrics, role: Role, runner: TaskService, board: TaskBoard, notifier: Notifier
) -> None:
    """What the parts of every role know."""

    def tasks_by_state() -> dict[tuple[str, ...], float]:
        queue = runner.queue()
        return {(state,): len(queue[state]) for state in ("queued", "running")}

    metrics.read("info", lambda: {(__version__, role.value): 1})
    metrics.read("tasks", tasks_by_state)
    metrics.read("task_capacity", lambda: runner.queue()["capacity"])
    metrics.read("store_errors_total", lambda: board.store.failures)
    metrics.read(
        "webhooks_total",
        lambda: {(s.value,): notifier.ended[s] for s in (WebhookState.DELIVERED, WebhookState.FAILED)},
    )
    if board.objects is not None:
        _read_objects(metrics, board.objects)


def _read_objects(metrics: Metrics, objects: ObjectStore) -> None:
    metrics.read(
        "object_uploads_total",
        lambda: {("succeeded",): objects.uploads, ("failed",): objects.failed_uploads},
    )


def read_engine(metrics: Metrics, engine: Engine, feed: Feed, memory: DeviceMemory) -> None:
    """What is known of the engine, where there is one."""
    metrics.read("engine_ready", lambda: engine.state is EngineState.READY)
    metrics.read("engine_restarts_total", lambda: engine.restarts)
    metrics.read("feed_reconnects_total", lambda: feed.reconnects)
    metrics.read("device_memory_bytes", lambda: memory.total)
    metrics.read("device_memory_free_bytes", lambda: memory.free)
