"""What handlers find on the application."""

from __future__ import annotations

import asyncio

from aiohttp import web

from agent.freeze import FreezeWatch
from agent.parking import Parking
from agent.service import TaskService
from agent.settings import Settings
from agent.tasks.board import TaskBoard
from agent.warm_up import WarmUp
from agent.webhooks.notifier import Notifier
from comfyui.engine import Engine

SETTINGS = web.AppKey("settings", Settings)
API_KEYS = web.AppKey("api_keys", tuple[bytes, ...])
#: Large bodies that are parsed at the same time; each costs several times its size.
PARSING = web.AppKey("parsing", asyncio.Semaphore)
ENGINE = web.AppKey("engine", Engine)
BOARD = web.AppKey("board", TaskBoard)
NOTIFIER = web.AppKey("notifier", Notifier)
PARKING = web.AppKey("parking", Parking)
#: The runner of this instance's engine, or that of a front, which has neither engine nor warm-up.
RUNNER: web.AppKey[TaskService] = web.AppKey("runner", TaskService)
FREEZES = web.AppKey("freezes", FreezeWatch)
WARM_UP = web.AppKey("warm_up", WarmUp)
