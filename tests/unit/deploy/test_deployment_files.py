"""The deployment files cannot be run here; what can be checked of them without a platform is checked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from agent.settings import Settings, variable

ROOT = Path(__file__).parents[3]
KNOWN_VARIABLES = {variable(name) for name in Settings.model_fields}


def resolved(document: dict[str, Any]) -> Any:
    """The document with `${vars.NAME}` replaced as Serverless Devs does: a lone reference keeps its type."""

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: fill(item) for key, item in value.items()}
        if isinstance(value, list):
            return [fill(item) for item in value]
        if isinstance(value, str) and (match := re.fullmatch(r"\$\{vars\.(\w+)\}", value)):
            return document["vars"][match[1]]
        return value

    return fill(document["resources"])


@pytest.fixture(scope="module")
def function() -> dict[str, Any]:
    document = yaml.safe_load((ROOT / "s.yaml").read_text())
    assert document["edition"] == "3.0.0"
    (resource,) = resolved(document).values()
    assert resource["component"] == "fc3"
    return resource["props"]


def schema() -> dict[str, Any]:
    return yaml.safe_load(Path(__file__).with_name("function_schema.yaml").read_text())


def test_function_fits_the_components_schema(function: dict[str, Any]) -> None:
    jsonschema_rs.Draft202012Validator(schema()).validate(function)


@pytest.mark.parametrize(
    "change",
    [
        {"timeOut": 3},
        {"environmentVariables": {"FC_SECRET": "x"}},
        {"environmentVariables": {"AGENT_PORT": 9000}},
        {"instanceLifecycleConfig": {"preStop": {"handler": "x", "timeout": 91}}},
        {"customContainerConfig": {"image": "registry/agent:latest"}},
    ],
)
def test_schema_refuses_what_the_component_would_swallow(
    function: dict[str, Any], change: dict[str, Any]
) -> None:
    assert not jsonschema_rs.Draft202012Validator(schema()).is_valid({**function, **change})


def test_function_sets_only_variables_that_exist(function: dict[str, Any]) -> None:
    assert set(function["environmentVariables"]) <= KNOWN_VARIABLES


def test_a_task_ends_before_the_platform_cuts_it_off(function: dict[str, Any]) -> None:
    assert float(function["environmentVariables"]["AGENT_TASK_TIMEOUT_SECONDS"]) < function["timeout"]


def test_every_variable_of_the_deployment_is_used() -> None:
    text = (ROOT / "s.yaml").read_text()
    names = yaml.safe_load(text)["vars"]
    assert {name for name in names if f"${{vars.{name}}}" not in text} == set()


def test_compose_file_sets_only_variables_that_exist() -> None:
    document = yaml.safe_load((ROOT / "compose.yaml").read_text())
    assert set(document["services"]["agent"]["environment"]) <= KNOWN_VARIABLES


def test_image_copies_only_what_the_repository_has_and_sends() -> None:
    dockerfile, ignored = (ROOT / "Dockerfile").read_text(), (ROOT / ".dockerignore").read_text()
    sent = {line[1:] for line in ignored.splitlines() if line.startswith("!")}
    copied = [line.split()[1:-1] for line in dockerfile.splitlines() if re.match(r"COPY (?!--from)", line)]
    for source in (source for sources in copied for source in sources):
        assert (ROOT / source).exists()
        assert source.split("/")[0] in sent


def test_image_sets_only_variables_that_exist() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert set(re.findall(r"\b((?:AGENT|COMFYUI)_\w+)=", dockerfile)) - {"COMFYUI_VERSION"} <= KNOWN_VARIABLES
