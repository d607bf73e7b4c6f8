"""The blocks of the documents that do not belong to one story are run as well, each page beside an agent of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from agent.library.importer import first_manifest
from agent.library.library import read_manifest
from comfyui.workflow import Workflow
from tests.e2e.blocks import blocks_of
from tests.ports import free_port, wait_until_ready

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
OWN_VARIABLES = ("AGENT_", "COMFYUI_", "REDIS_URL", "FC_")


@pytest.mark.timeout(180)
@pytest.mark.parametrize("page", ["workflows.md", "operations.md", "provisioning.md"])
def test_commands_of_the_page_succeed(page: str, tmp_path: Path) -> None:
    port, bin_folder = free_port(), Path(sys.executable).parent
    url = f"http://127.0.0.1:{port}"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(OWN_VARIABLES)}
    environment = clean | {
        "AGENT_PORT": str(port),
        "COMFYUI_PORT": str(free_port()),
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
    }
    for folder in ("workflows", "deploy"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    Image.new("RGB", (64, 48), (200, 120, 40)).save(tmp_path / "photo.jpg")
    argv = [bin_folder / "comfyui-agent", "serve"]
    with subprocess.Popen(argv, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL) as service:
        try:
            wait_until_ready(url)
            blocks = blocks_of(DOCS / page, "bash")
            assert blocks
            for text in blocks:
                code = text.replace("http://localhost:9000", url).replace(".venv/bin/", "")
                ran = subprocess.run(
                    ["bash", "-euo", "pipefail", "-c", code],
                    cwd=tmp_path,
                    env=environment,
                    timeout=90,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert ran.returncode == 0, (code, ran.stdout, ran.stderr)
        finally:
            service.terminate()
            service.wait(timeout=30)


def test_manifest_on_the_workflows_page_is_one(tmp_path: Path) -> None:
    (text,) = blocks_of(DOCS / "workflows.md", "yaml")
    (tmp_path / "shown.yaml").write_text(text)
    manifest = read_manifest(tmp_path / "shown.yaml")
    assert manifest.parameters["strength"].maximum == 1


def test_panels_on_the_workflows_page_are_understood() -> None:
    (text,) = blocks_of(DOCS / "workflows.md", "json")
    manifest = first_manifest(Workflow.parse({"3": json.loads(text)}), "shown", {})
    (parameter,) = manifest.parameters.values()
    assert (parameter.title, parameter.minimum, parameter.maximum) == ("Steps", 1, 50)


def test_json_on_the_api_page_is_json() -> None:
    for text in blocks_of(DOCS / "api.md", "json"):
        json.loads(text)
