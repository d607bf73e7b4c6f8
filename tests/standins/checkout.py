"""A folder that looks like a checkout of ComfyUI, whose main.py starts the simulator."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.e2e.blocks import ROOT

MAIN = f'''"""Takes ComfyUI's command line."""

import sys

sys.path.insert(0, {str(ROOT)!r})

from comfyui.simulator.__main__ import main

sys.exit(main([*sys.argv[1:], "--lab-nodes"]))
'''


def make_checkout(folder: Path) -> Path:
    """With a Python of its own below `venv`, as ComfyUI's installation guide makes one."""
    (folder / "custom_nodes").mkdir(parents=True)
    (folder / "main.py").write_text(MAIN)
    (folder / "custom_nodes" / "websocket_image_save.py").touch()
    python = folder / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return folder
