"""GET /metrics, for Prometheus."""

from __future__ import annotations

import asyncio

from aiohttp import web

from agent.api.endpoint import Answer, Endpoint
from agent.api.keys import DEVICE_MEMORY, EXPOSITION


async def show_metrics(request: web.Request) -> web.Response:
    """What this instance has counted since its start, in Prometheus' text format.

    Needs a key where keys are configured. ComfyUI is asked for the memory of its devices, and waited for two seconds
    at most.
    """
    if memory := request.app.get(DEVICE_MEMORY):  # a front has no engine
        await memory.refresh()
    exposition = await asyncio.to_thread(request.app[EXPOSITION])
    return web.Response(body=exposition.text(), headers={"Content-Type": exposition.content_type})


ENDPOINTS = [
    Endpoint(
        "GET",
        "/metrics",
        show_metrics,
        {200: Answer("All metrics.", media_type="text/plain")},
        tag="service",
    )
]
