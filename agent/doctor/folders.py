"""Checks of the engine's folders: can they be written, and is there room."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from agent.build import engine_folders
from agent.doctor.finding import Finding, advice, ok, problem
from agent.provision.space import to_text
from agent.settings import Role, Settings
from comfyui.errors import EngineFailedError

#: Less than this holds no task's pictures.
LEAST_BYTES = 100 * 10**6

#: Less than this is soon full.
FEW_BYTES = 2 * 10**9


def check_folders(settings: Settings) -> list[Finding]:
    """Those that the engine reads inputs from and writes outputs to, as far as they are known."""
    root = settings.comfyui_root
    if settings.role is Role.FRONT or (root is not None and not Path(root).expanduser().is_dir()):
        return []  # the check of the engine names the root
    base = settings.comfyui_base_directory
    if base is not None and not Path(base).is_dir():
        text = f"COMFYUI_BASE_DIRECTORY is {base}, which is no folder."
        return [problem("folders", text, "Correct it: finished tasks' files would stay for ever.")]
    try:
        folders = engine_folders(settings)
    except EngineFailedError:
        return []  # named by the check of the engine
    if folders is None:
        return []
    known = {folder for folder in (folders.output, folders.temp, folders.input) if folder is not None}
    findings = [finding for folder in sorted(known) for finding in _check(folder)]
    return findings or [
        ok("folders", "The engine's input, output and temp folders can be written, and have room.")
    ]


def _check(folder: Path) -> list[Finding]:
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent  # ComfyUI makes what is missing
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as exc:
        text = f"{there} cannot be written: {exc.strerror or exc}."
        return [problem("folders", text, "Give it to the user that runs the agent, or mount it for writing.")]
    free = shutil.disk_usage(there).free
    if free < LEAST_BYTES:
        text = f"{to_text(free)} are free on {there}: outputs will not fit."
        return [
            problem("disk", text, "Make room, or move the folders with --base-directory in COMFYUI_ARGS.")
        ]
    if free < FEW_BYTES:
        return [advice("disk", f"{to_text(free)} are free on {there}.", "Make room before it is full.")]
    return []
