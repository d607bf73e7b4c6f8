"""ComfyUI's input folder, where the agent may write into it: a file that is put there needs no upload."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

import structlog

from comfyui.client import Client, FileRef

log = structlog.get_logger(__name__)


class InputFolder:
    """Puts files into the engine's input folder. `folder` is what the settings say of it; only an engine that shows
    what was put there is believed to look there, since it may run in another container."""

    def __init__(self, client: Client, folder: Path | None) -> None:
        self._client, self._folder = client, folder
        self._is_proven = False

    def doubt(self) -> None:
        """The engine was started anew, and may look elsewhere by now."""
        self._is_proven = False

    async def put(self, name: str, data: bytes) -> bool:
        """Put a file at the top of the folder, whole or not at all; one of that name is replaced. False: the engine has
        to be sent it."""
        if self._folder is None:
            return False
        try:
            await asyncio.to_thread(_write, self._folder, name, data)
        except OSError as exc:
            self._give_up(type(exc).__name__)
            return False
        if not self._is_proven:
            if not await self._client.has_file(FileRef(name, "", "input")):
                await asyncio.to_thread((self._folder / name).unlink, missing_ok=True)
                self._give_up("the engine does not see what is put there")
                return False
            self._is_proven = True
        return True

    def _give_up(self, reason: str) -> None:
        log.info("inputs.uploaded", folder=str(self._folder), reason=reason)
        self._folder = None


def _write(folder: Path, name: str, data: bytes) -> None:
    part = folder / f".{name}.{uuid.uuid4().hex}"
    try:
        part.write_bytes(data)
        part.replace(folder / name)
    except OSError:
        part.unlink(missing_ok=True)
        raise
