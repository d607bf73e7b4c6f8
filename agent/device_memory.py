"""How much memory the engine's devices have, and how much of it is free, as ComfyUI says itself."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import structlog

from comfyui.client import Client
from comfyui.engine import Engine, EngineState
from comfyui.errors import ComfyUIError

log = structlog.get_logger(__name__)

#: An answer is good for so long, however many ask.
FRESH_SECONDS = 5

#: How long a scrape waits for a busy engine; then what was known before is shown.
PATIENCE_SECONDS = 2

#: After so long without an answer, what was known before says nothing any more.
STALE_SECONDS = 60

#: More devices than any machine has.
MOST_DEVICES = 64


class DeviceMemory:
    """`refresh` asks, the attributes answer: bytes by device, such as ("cuda:0",)."""

    def __init__(self, engine: Engine, client: Client) -> None:
        self._engine, self._client = engine, client
        self._total: dict[tuple[str, ...], float] = {}
        self._free: dict[tuple[str, ...], float] = {}
        self._read_at = -STALE_SECONDS - 1.0
        self._reading: asyncio.Task[None] | None = None

    @property
    def total(self) -> dict[tuple[str, ...], float]:
        return self._total if self._is_known() else {}

    @property
    def free(self) -> dict[tuple[str, ...], float]:
        return self._free if self._is_known() else {}

    async def refresh(self) -> None:
        """Ask the engine, unless it was asked a moment ago; wait only for a moment. Never raises."""
        if self._engine.state is not EngineState.READY or time.monotonic() - self._read_at < FRESH_SECONDS:
            return
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read(), name="device-memory")
        await asyncio.wait((self._reading,), timeout=PATIENCE_SECONDS)

    async def stop(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    def _is_known(self) -> bool:
        is_ready = self._engine.state is EngineState.READY
        return is_ready and time.monotonic() - self._read_at < STALE_SECONDS

    async def _read(self) -> None:
        try:
            stats = await self._client.system_stats()
            self._total, self._free = _sizes(stats, "vram_total"), _sizes(stats, "vram_free")
            self._read_at = time.monotonic()
        except (ComfyUIError, LookupError, TypeError, AttributeError) as exc:
            log.debug("device_memory.not_read", reason=str(exc))


def _sizes(stats: dict[str, Any], field: str) -> dict[tuple[str, ...], float]:
    return {(_name(device),): float(device[field]) for device in stats["devices"][:MOST_DEVICES]}


def _name(device: dict[str, Any]) -> str:
    """As PyTorch writes it: its own `name` also holds the model and the allocator."""
    kind, index = str(device["type"]), device.get("index")
    return kind if index is None else f"{kind}:{index}"
