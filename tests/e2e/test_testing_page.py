"""The tests that docs/testing.md names run as it says, in the shortest forms that their variables allow."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.e2e.blocks import Block, executes
from tests.e2e.shell import Shell
from tests.standins.checkout import make_checkout

#: One of the tests marked `real`, from the only file that is then read: collecting all takes as long as running it.
ONE_REAL_TEST = "-k answers_202_with_the_callers_id --ignore-glob=*/agent/test_[b-z]*.py"


@executes("docs/testing.md", "bash")
@pytest.mark.timeout(300)
def test_testing_page(blocks: list[Block], shell: Shell, tmp_path: Path) -> None:
    fleet, folder, real = blocks
    (tmp_path / "nas").mkdir()
    shell.instead = {"/mnt/nas": str(tmp_path / "nas")}
    shell.environment |= {
        "GATEWAY_TASKS": "4",
        "GATEWAY_INSTANCES": "1",
        "GATEWAY_JOB_SECONDS": "0.1",
        "MEASURED_CLAIMS": "40",
    }
    assert "1 passed" in with_options(shell, fleet, "-k come_and_go")
    assert "claims at once" in shell.run(folder)
    # The names in the block stand for what is there: a real ComfyUI, or what looks like one.
    root = os.environ.get("COMFYUI_ROOT") or str(make_checkout(tmp_path / "ComfyUI"))
    python = os.environ.get("COMFYUI_PYTHON") or f"{root}/venv/bin/python"
    shell.instead = {"/opt/ComfyUI/venv/bin/python": python, "/opt/ComfyUI": root}
    said = with_options(shell, real, ONE_REAL_TEST)
    assert f"ComfyUI behind tests marked real: {root}" in said
    assert "1 passed" in said


def with_options(shell: Shell, block: Block, options: str) -> str:
    """The output of a block that runs pytest, with further options for it."""
    shell.environment["PYTEST_ADDOPTS"] = options
    return shell.run(block, seconds=200)
