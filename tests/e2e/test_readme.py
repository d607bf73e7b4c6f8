"""The README's commands, as a newcomer types them from top to bottom."""

from __future__ import annotations

import json
import os
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.e2e.blocks import ROOT, Block, executes
from tests.e2e.shell import Shell, make_clone
from tests.ports import free_port, wait_until_ready
from tests.redis_server import RedisServer
from tests.standins.checkout import make_checkout

#: Where the README says that ComfyUI is.
CHECKOUT = "/opt/ComfyUI"

ONE_TEST = '''"""What `make test` finds in this clone: the whole suite would begin with itself."""


def test_arithmetic() -> None:
    assert 1 + 1 == 2
'''


@executes("README.md", "bash", "python")
@pytest.mark.timeout(180)
def test_readme_works_as_a_newcomer_types_it(
    blocks: list[Block], shell: Shell, tmp_path: Path, redis_server: RedisServer
) -> None:
    make, serve, *calls, own_comfyui = blocks
    assert make.text.split()[:2] == ["make", "demo"]
    url, folder = shell.environment["COMFYUI_AGENT_URL"], shell.folder
    with ThreadPoolExecutor() as other_terminal, shell.running(serve):
        made = other_terminal.submit(small_clone(tmp_path / "small").run, make)
        wait_until_ready(url)
        said = [shell.run(block) for block in calls]
        assert "1 passed" in made.result()
    assert len(list((tmp_path / "small" / "demo-output").glob("*.png"))) >= 3
    assert (folder / "answer.json").read_text().count('"results"') == 1
    assert len({picture.read_bytes() for picture in (folder / "pictures").iterdir()}) == 4
    for name in ("fox.png", "picture.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    assert said[-1] == "(512, 512)\n"

    root = os.environ.get("COMFYUI_ROOT") or str(make_checkout(tmp_path / "ComfyUI"))
    shell.instead |= {CHECKOUT: root, "redis://localhost:6379": redis_server.url}
    shell.environment |= {"COMFYUI_PORT": str(free_port()), "AGENT_REDIS_PREFIX": "readme:"}
    if python := os.environ.get("COMFYUI_PYTHON"):
        shell.environment |= {"COMFYUI_PYTHON": python, "COMFYUI_ARGS": "--cpu --disable-api-nodes"}
    with shell.running(own_comfyui):
        wait_until_ready(url, seconds=120)
        with urlopen(f"{url}/healthz") as answer:
            assert json.load(answer)["engine"]["simulated"] is False
        with urlopen(f"{url}/api/tasks") as answer:
            assert json.load(answer)["tasks"] == [], "in Redis, where no task is yet"


def small_clone(folder: Path) -> Shell:
    """Code of a line and one test, so that `make test` runs its real programs in seconds."""
    make_clone(folder)
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    for package in project["tool"]["mypy"]["files"]:
        (folder / package).mkdir()
        (folder / package / "__init__.py").write_text('"""Nothing."""\n')
    (folder / "tests").mkdir()
    (folder / "tests" / "clients").symlink_to(ROOT / "tests" / "clients")  # make looks when they last changed
    (folder / "tests" / "test_one.py").write_text(ONE_TEST)
    return Shell(folder, PYTEST_ADDOPTS="--maxprocesses 1")
