"""A clone of the repository, and a shell in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.shell import FOLDERS, Shell, make_clone
from tests.ports import free_port


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    return make_clone(tmp_path / "clone", *FOLDERS)


@pytest.fixture
def shell(clone: Path) -> Shell:
    """In a clone, with an agent at localhost:9000 once its block has been started."""
    port = str(free_port())
    return Shell(
        clone,
        {"localhost:9000": f"127.0.0.1:{port}"},
        AGENT_PORT=port,
        COMFYUI_PORT=str(free_port()),
        COMFYUI_AGENT_URL=f"http://127.0.0.1:{port}",
    )
