"""Custom nodes through comfy-cli, played by a program that notes how it was called.

What is checked is that it is called as version 1.23.0 wants it, which was run by hand with a stand-in of
ComfyUI-Manager; against the Comfy registry it was never run.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.integration.cli.conftest import Command

COMFY = f"""#!{sys.executable}
import json, os, pathlib, sys
here = pathlib.Path(__file__).parent
with (here / "calls").open("a") as calls:
    seen = {{name: os.environ.get(name) for name in ("VIRTUAL_ENV", "DO_NOT_TRACK", "HF_TOKEN")}}
    calls.write(json.dumps([sys.argv[1:], seen]) + "\\n")
print("output of comfy-cli")
workspace, node = sys.argv[3], sys.argv[6]
if node.startswith("broken"):
    sys.exit(1)
(pathlib.Path(workspace) / "custom_nodes" / node.partition("@")[0]).mkdir(exist_ok=True)
"""


@pytest.fixture
def comfyui(tmp_path: Path) -> Path:
    folder = tmp_path / "ComfyUI"
    (folder / "custom_nodes").mkdir(parents=True)
    (folder / ".venv").mkdir()
    return folder


@pytest.fixture
def program(tmp_path: Path, command: Command, comfyui: Path) -> Path:
    (folder := tmp_path / "bin").mkdir()
    (folder / "comfy").write_text(COMFY)
    (folder / "comfy").chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    command.settings = {"PATH": path, "COMFYUI_ROOT": str(comfyui), "HF_TOKEN": "secret"}
    return folder / "comfy"


def run(command: Command, tmp_path: Path, *nodes: str, options: tuple[str, ...] = ()):
    manifest = tmp_path / "manifest.yaml"
    manifest.write_text(json.dumps({"custom_nodes": nodes, "tokens": {"huggingface.co": "HF_TOKEN"}}))
    return command.run("provision", str(manifest), *options)


def calls(program: Path) -> list:
    file = program.with_name("calls")
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_nodes_are_installed_into_comfyuis_own_environment_and_a_second_run_does_nothing(
    command, tmp_path, comfyui, program
):
    done = run(command, tmp_path, "impact-pack@8.0.0", "other@1.2")
    assert (done.returncode, done.stdout) == (0, "installed  impact-pack@8.0.0\ninstalled  other@1.2\n")
    assert "output of comfy-cli" in done.stderr
    ((argv, environment), _) = calls(program)
    begin = ["--skip-prompt", "--workspace", str(comfyui), "node", "install"]
    assert argv == [*begin, "impact-pack@8.0.0", "--exit-on-fail"]
    assert environment == {"VIRTUAL_ENV": str(comfyui / ".venv"), "DO_NOT_TRACK": "1", "HF_TOKEN": None}
    done = run(command, tmp_path, "impact-pack@8.0.0", "other@1.2")
    assert (done.returncode, done.stdout) == (0, "present    impact-pack@8.0.0\npresent    other@1.2\n")
    assert len(calls(program)) == 2


def test_another_version_and_a_folder_that_is_gone_are_installed_again(command, tmp_path, comfyui, program):
    run(command, tmp_path, "a@1", "b@1")
    (comfyui / "custom_nodes/b").rmdir()
    done = run(command, tmp_path, "a@2", "b@1")
    assert (done.returncode, done.stdout) == (0, "installed  a@2\ninstalled  b@1\n")
    assert run(command, tmp_path, "a@2", "b@1").stdout == "present    a@2\npresent    b@1\n"


def test_node_that_fails_is_a_line_and_the_others_are_installed(command, tmp_path, program):
    done = run(command, tmp_path, "broken@1", "other@1")
    assert (done.returncode, done.stdout) == (1, "installed  other@1\n")
    assert "failed     broken@1: comfy-cli ended with code 1" in done.stderr
    assert run(command, tmp_path, "other@1").returncode == 0


def test_missing_comfy_cli_is_told_with_the_remedy(command, tmp_path, comfyui):
    command.settings = {"COMFYUI_ROOT": str(comfyui), "PATH": str(tmp_path)}
    done = run(command, tmp_path, "a@1")
    assert done.returncode == 1
    assert "pipx install comfy-cli" in done.stderr


def test_dry_run_names_what_would_be_installed(command, tmp_path, program):
    done = run(command, tmp_path, "a@1", options=("--dry-run",))
    assert (done.returncode, done.stdout) == (0, "install    a@1\n")
    assert calls(program) == []
