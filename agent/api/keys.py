"""What handlers find on the application."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from aiohttp import web

from agent.api.latest_events import LatestEvents
from agent.device_memory import DeviceMemory
from agent.freeze import FreezeWatch
from agent.gate import Gate
from agent.inventory import Inventory
from agent.labels.labeller import Labeller
from agent.metrics import Metrics
from agent.orphans import Orphans
from agent.parking import Parking
from agent.passage import Passage
from agent.safety.safety import Safety
from agent.service import TaskService
from agent.settings import Settings
from agent.tasks.board import TaskBoard
from agent.traces import Traces
from agent.warm_up import WarmUp
from agent.webhooks.notifier import Notifier
from comfyui.engine import Engine

if TYPE_CHECKING:
    from agent.api.facades import Facade
    from agent.api.facades.automatic1111_state import WebUi
    from agent.api.facades.models import ModelTable
    from agent.editor.desk import Desk
    from agent.exposition import Exposition
    from agent.library.library import Library

SETTINGS = web.AppKey("settings", Settings)
API_KEYS = web.AppKey("api_keys", tuple[bytes, ...])
#: Large bodies that are parsed at the same time; each costs several times its size.
PARSING = web.AppKey("parsing", Gate)
ENGINE = web.AppKey("engine", Engine)
#: A front has one too, for pictures that it converts.
LABELLER = web.AppKey("labeller", Labeller)
METRICS = web.AppKey("metrics", Metrics)
TRACES = web.AppKey("traces", Traces)
EVENTS = web.AppKey("events", LatestEvents)
#: Of an engine's devices; a front has none.
DEVICE_MEMORY = web.AppKey("device_memory", DeviceMemory)
#: What shows the metrics; its first call, in a thread, imports what it needs.
EXPOSITION: web.AppKey[Callable[[], Exposition]] = web.AppKey("exposition", Callable)  # type: ignore[arg-type]
BOARD = web.AppKey("board", TaskBoard)
NOTIFIER = web.AppKey("notifier", Notifier)
ORPHANS = web.AppKey("orphans", Orphans)
PARKING = web.AppKey("parking", Parking)
#: The runner of this instance's engine, or that of a front, which has neither engine nor warm-up.
RUNNER: web.AppKey[TaskService] = web.AppKey("runner", TaskService)
FREEZES = web.AppKey("freezes", FreezeWatch)
WARM_UP = web.AppKey("warm_up", WarmUp)
#: What the engine has; a front has none.
INVENTORY = web.AppKey("inventory", Inventory)
#: Opens the named workflows at its first call, in a thread: reading them needs modules that the start does without.
LIBRARY: web.AppKey[Callable[[], Library]] = web.AppKey("library", Callable)  # type: ignore[arg-type]
SAFETY = web.AppKey("safety", Safety)
#: The other APIs whose routes are answered.
FACADES: web.AppKey[tuple[Facade, ...]] = web.AppKey("facades", tuple)
#: Opens the table of their models at its first call, in a thread.
MODELS: web.AppKey[Callable[[], ModelTable]] = web.AppKey("models", Callable)  # type: ignore[arg-type]
#: What clients of AUTOMATIC1111's API have set and started on this instance.
WEB_UI: web.AppKey[WebUi] = web.AppKey("web_ui", object)  # type: ignore[arg-type]
#: The prompts of ComfyUI's own clients; there is one where AGENT_PASS_THROUGH is `all`.
DESK: web.AppKey[Desk] = web.AppKey("desk", object)  # type: ignore[arg-type]
#: The way to ComfyUI's own routes.
PASSAGE = web.AppKey("passage", Passage)
