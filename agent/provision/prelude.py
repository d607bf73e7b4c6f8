"""Provisioning before the engine starts, as the first act of the engine's own process.

So the port is open meanwhile, a failure is a failed start with its reason, and the supervisor's limits and restarts
hold for both. Where everything is in place it costs the start of a Python.
"""

from __future__ import annotations

import sys
from pathlib import Path

#: -P: ComfyUI's folder, in which it runs, holds modules of its own. exec: the engine takes the shell's place.
_SCRIPT = '"$1" -P -m agent.cli provision "$2" && shift 2 && exec "$@"'


def after_provisioning(manifest: str, argv: tuple[str, ...]) -> tuple[str, ...]:
    """Return a command that puts in place what the manifest names, and becomes `argv` if that succeeds."""
    return ("/bin/sh", "-c", _SCRIPT, "sh", sys.executable, str(Path(manifest).absolute()), *argv)
