"""What the engine of this instance has now: node classes, and the files that its loaders may name."""

from __future__ import annotations

import asyncio
import time

import structlog

from comfyui.catalog import Catalog
from comfyui.client import Client
from comfyui.engine import Engine, EngineState
from comfyui.errors import ComfyUIError

log = structlog.get_logger(__name__)

#: A model file that was added shows after this long. ComfyUI builds its answer anew each time, and walks all folders.
FRESH_SECONDS = 30

#: How long one who asks waits for an engine that is busy; then he gets what was known before.
PATIENCE_SECONDS = 5


class Inventory:
    """Asks the engine at most every FRESH_SECONDS, and only when somebody wants to know."""

    def __init__(self, engine: Engine, client: Client) -> None:
        self._engine, self._client = engine, client
        self._known: Catalog | None = None
        self._generation, self._read_at = 0, 0.0
        self._reading: asyncio.Task[None] | None = None

    async def catalog(self) -> Catalog | None:
        """The catalogue; None where the engine is not up or has not answered yet."""
        if self._engine.state is not EngineState.READY:
            return None
        is_same = self._generation == self._engine.generation
        if not is_same or time.monotonic() - self._read_at > FRESH_SECONDS:
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self._read(self._engine.generation), name="inventory")
            await asyncio.wait((self._reading,), timeout=PATIENCE_SECONDS)
        return self._known if self._generation == self._engine.generation else None

    async def stop(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self, generation: int) -> None:
        try:
            found = Catalog(await self._client.object_info())
        except ComfyUIError as exc:
            log.info("inventory.not_read", reason=str(exc))
        else:
            self._known, self._generation, self._read_at = found, generation, time.monotonic()
