"""What the pages on deployment name exists. Their commands are executed by `gateway/test_guide.py`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.api import health, hooks, run, socket, tasks
from agent.errors import AgentError
from agent.settings import Settings, variable
from tests.e2e.blocks import blocks_of
from tests.unit.deploy.files import functions, load

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs/deploy-function-compute.md", ROOT / "docs/provisioning.md"]
ENDPOINTS = [e for group in (run, socket, tasks, health, hooks) for e in group.ENDPOINTS]
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def commands(page: Path) -> str:
    blocks = [block for block in blocks_of(f"docs/{page.name}") if block.language == "bash"]
    assert blocks
    return "\n".join(block.text for block in blocks)


@every_page
def test_settings_that_a_page_names_exist(page: Path) -> None:
    named = set(re.findall(r"\b(?:AGENT|COMFYUI)_[A-Z_]*[A-Z]\b", page.read_text()))
    assert named <= {variable(name) for name in Settings.model_fields}


@every_page
def test_routes_that_a_page_names_exist(page: Path) -> None:
    shapes = [re.compile(re.sub(r"\{\w+\}", r"[^/]+", endpoint.path)) for endpoint in ENDPOINTS]
    named = re.findall(r"(?:\$FRONT|(?:GET|POST|DELETE) )(/[\w/.-]+)", page.read_text())
    named += re.findall(r"`(/(?:api|healthz|readyz|initialize|pre-stop)[\w/.-]*)`", page.read_text())
    assert named
    for path in named:
        assert any(shape.fullmatch(path) for shape in shapes), path


@every_page
def test_files_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(r"(?<![\w/.$-])((?:deploy|workflows|docs|tests)/[\w./-]+\w)", page.read_text())
    for name in named:
        assert (ROOT / name).exists(), name


@every_page
def test_errors_that_a_page_names_exist(page: Path) -> None:
    named = set(re.findall(r"`([A-Z][a-z]+(?:[A-Z][a-z]+)+)`", page.read_text()))
    assert named <= set(AgentError.by_code)


@every_page
def test_options_of_our_command_exist(page: Path) -> None:
    from typer.main import get_command  # noqa: PLC0415

    from agent.cli import app  # noqa: PLC0415

    (provision,) = [c for name, c in get_command(app).commands.items() if name == "provision"]
    known = {option for parameter in provision.params for option in parameter.opts}
    for line in re.findall(r"\bprovision /?[\w/]+\.yaml(.*)", commands(page)):
        assert set(re.findall(r"--[\w-]+", line)) <= known


def test_guide_names_functions_variables_and_build_arguments_that_exist() -> None:
    text = PAGES[0].read_text()
    used = set(re.findall(r"^s (\w+) (?:deploy|info|logs|remove)\b", commands(PAGES[0]), re.MULTILINE))
    assert used == set(functions())
    for name in ("engineUrl", "apiKeys", "objectStore", "role", "maxGpuInstances", "hideEngine", "redisUrl"):
        assert name in load("s.yaml")["vars"]
        assert f"`{name}`" in text
    dockerfile = (ROOT / "Dockerfile").read_text()
    for argument in re.findall(r"--build-arg (\w+)=", text):
        assert f"ARG {argument}=" in dockerfile
    for stage in re.findall(r"--target (\w+)", text):
        assert f" AS {stage}\n" in dockerfile


def test_guide_tells_the_numbers_that_the_functions_have() -> None:
    text, engine = PAGES[0].read_text(), functions()["engine"]
    assert f"`AGENT_SHUTDOWN_SECONDS` is {engine['environmentVariables']['AGENT_SHUTDOWN_SECONDS']}" in text
    assert f"`engineConcurrency` is {engine['instanceConcurrency']}" in text
    assert f"gives up waiting after {hooks.INITIALIZE_SECONDS} s" in text
