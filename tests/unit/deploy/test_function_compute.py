"""s.yaml cannot be tried here; what can be checked of it without an account is checked."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from agent.settings import load_settings
from tests.unit.deploy.documents import KNOWN_VARIABLES, ROUTES, default_of
from tests.unit.deploy.files import ROOT, functions, load, schema

ENGINE, FRONT = "engine", "front"
FUNCTIONS = pytest.mark.parametrize("name", [ENGINE, FRONT])

#: Hook -> the request that the platform makes for it (fc-platform: hooks).
HOOKS = {"initializer": ("POST", "/initialize"), "preStop": ("GET", "/pre-stop")}


def number(function: dict[str, Any], name: str) -> float:
    return float(function["environmentVariables"].get(name, default_of(name)))


@FUNCTIONS
def test_function_fits_the_components_schema(name: str) -> None:
    schema("function_schema.yaml").validate(functions()[name])


@pytest.mark.parametrize(
    "change",
    [
        {"timeOut": 3},
        {"timeout": 0},
        {"diskSize": 1024},
        {"gpuConfig": {"gpuType": "fc.gpu.tesla.2", "gpuMemorySize": 16384}},
        {"instanceConcurrency": 201},
        {"environmentVariables": {"FC_SECRET": "x"}},
        {"environmentVariables": {"AGENT_PORT": 9000}},
        {"instanceLifecycleConfig": {"initializer": {"handler": "x", "timeout": 301}}},
        {"instanceLifecycleConfig": {"preStop": {"handler": "x", "timeout": 91}}},
        {"instanceLifecycleConfig": {"preStop": {"handler": "", "timeout": 9}}},
        {"asyncInvokeConfig": {"maxAsyncEventAgeInSeconds": 604801}},
        {"customContainerConfig": {"image": "registry/agent:latest"}},
        {"logConfig": {"project": "p"}},
        {"triggers": []},
    ],
)
def test_schema_refuses_what_the_component_would_swallow(change: dict[str, Any]) -> None:
    assert not schema("function_schema.yaml").is_valid({**functions()[ENGINE], **change})


def test_bucket_in_the_comment_fits_the_schema_too() -> None:
    text = (ROOT / "s.yaml").read_text()
    commented = re.search(r"      # ossMountConfig:\n(?:      # .*\n)+", text)
    assert commented
    mount = yaml.safe_load("\n".join(line.replace("# ", "", 1) for line in commented[0].splitlines()))
    assert set(mount) == {"ossMountConfig"}
    function = {**functions()[ENGINE], **mount}
    del function["nasConfig"]
    schema("function_schema.yaml").validate(function)


@FUNCTIONS
def test_function_sets_only_variables_that_exist_and_the_agent_starts_with_them(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = functions()[name]["environmentVariables"]
    assert set(variables) <= KNOWN_VARIABLES
    for known in KNOWN_VARIABLES:
        monkeypatch.delenv(known, raising=False)
    platform = {"FC_FUNCTION_NAME": name, "FC_INSTANCE_ID": "c-1", "FC_CUSTOM_LISTEN_PORT": "9000"}
    for variable, value in {**platform, **variables}.items():
        monkeypatch.setenv(variable, value)
    settings = load_settings(variables)
    assert (settings.role.value, settings.behind_gateway) == (name, True)


@FUNCTIONS
def test_platform_asks_for_what_the_agent_answers(name: str) -> None:
    function = functions()[name]
    assert function["customContainerConfig"]["port"] == default_of("AGENT_PORT")
    assert ("GET", function["customContainerConfig"]["healthCheckConfig"]["httpGetUrl"]) in ROUTES
    assert set(function["instanceLifecycleConfig"]) == set(HOOKS)
    assert set(HOOKS.values()) <= ROUTES
    allowed = set(function["triggers"][0]["triggerConfig"]["methods"])
    hooks = set(HOOKS.values())
    assert {method for method, path in ROUTES if (method, path) not in hooks} <= allowed


@FUNCTIONS
def test_running_tasks_have_less_time_at_the_end_than_the_hook_gives(name: str) -> None:
    function = functions()[name]
    hook = function["instanceLifecycleConfig"]["preStop"]["timeout"]
    assert number(function, "AGENT_SHUTDOWN_SECONDS") + 15 <= hook


def test_task_ends_before_the_platform_cuts_it_off() -> None:
    engine, front = functions()[ENGINE], functions()[FRONT]
    seconds = number(engine, "AGENT_TASK_TIMEOUT_SECONDS")
    # Its webhook is told within the same request.
    assert seconds + number(engine, "AGENT_WEBHOOK_TOTAL_SECONDS") < engine["timeout"]
    assert number(front, "AGENT_TASK_TIMEOUT_SECONDS") == seconds
    assert front["timeout"] > number(front, "AGENT_ENGINE_START_SECONDS") + engine["timeout"]


@FUNCTIONS
def test_agent_knows_how_long_the_platform_delivers(name: str) -> None:
    function = functions()[name]
    age = function["asyncInvokeConfig"]["maxAsyncEventAgeInSeconds"]
    assert number(function, "AGENT_DELIVERY_SECONDS") == age


def test_both_functions_share_redis_network_and_key_and_one_of_them_has_the_gpu() -> None:
    engine, front = functions()[ENGINE], functions()[FRONT]
    read: Callable[[dict[str, Any]], dict[str, str]] = lambda function: function["environmentVariables"]  # noqa: E731
    for shared in ("REDIS_URL", "AGENT_OBJECT_STORE"):
        assert read(engine)[shared] == read(front)[shared]
    assert read(engine)["AGENT_API_KEYS"] == read(front)["AGENT_ENGINE_API_KEY"]
    assert read(engine)["AGENT_API_KEYS"] != read(front)["AGENT_API_KEYS"]
    assert engine["vpcConfig"] == front["vpcConfig"]
    assert "gpuConfig" in engine
    assert "gpuConfig" not in front
    assert "concurrencyConfig" in engine


def test_gpu_takes_few_requests_and_the_front_many() -> None:
    engine, front = functions()[ENGINE], functions()[FRONT]
    assert engine["instanceConcurrency"] <= number(engine, "AGENT_CONCURRENCY")
    assert front["instanceConcurrency"] >= 20 * engine["instanceConcurrency"]


def test_every_variable_is_used_and_explained() -> None:
    text = (ROOT / "s.yaml").read_text()
    names = load("s.yaml")["vars"]
    assert {name for name in names if f"${{vars.{name}}}" not in text} == set()
    assert set(re.findall(r"\$\{vars\.(\w+)\}", text)) == set(names)


def test_models_are_mounted_where_comfyui_looks_for_them() -> None:
    (mount,) = functions()[ENGINE]["nasConfig"]["mountPoints"]
    assert load("deploy/extra_model_paths.yaml")["mounted"]["base_path"] == mount["mountDir"]
