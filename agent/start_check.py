"""What an operator should know as soon as the service starts: folders of the settings that are not there."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import structlog

from agent.settings import Settings

log = structlog.get_logger(__name__)


def warn_of_folders(settings: Settings) -> threading.Thread:
    """Begin to look, and log a line for each folder that cannot be used. The thread is a daemon that nobody waits
    for: a file server that hangs delays neither the start nor the end."""
    thread = threading.Thread(target=_look, args=(settings,), name="start-check", daemon=True)
    thread.start()
    return thread


def _look(settings: Settings) -> None:
    if settings.store_dir and (reason := _fault(settings.store_dir, os.R_OK | os.W_OK | os.X_OK)):
        log.warning("store.unavailable", note=f"AGENT_STORE_DIR {reason}: no task can be kept")
    if settings.workflows_dir and (reason := _fault(settings.workflows_dir, os.R_OK | os.X_OK)):
        log.warning("workflows.unavailable", note=f"AGENT_WORKFLOWS_DIR {reason}: its workflows are missing")


def _fault(folder: str, needed: int) -> str | None:
    if not Path(folder).exists():
        return "is not there"
    if not Path(folder).is_dir():
        return "is no folder"
    return None if os.access(folder, needed) else "cannot be used by this user"
