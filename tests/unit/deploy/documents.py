"""The deployment files as data, and what the agent knows that they must agree with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import yaml

from agent.api import health, hooks, run, socket, tasks
from agent.settings import Settings, variable

ROOT = Path(__file__).parents[3]
KNOWN_VARIABLES = {variable(name) for name in Settings.model_fields}
ROUTES = {(e.method, e.path) for group in (run, socket, tasks, health, hooks) for e in group.ENDPOINTS}


def load(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def schema(name: str) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(yaml.safe_load(Path(__file__).with_name(name).read_text()))


def default_of(name: str) -> Any:
    """The default of a setting, by its variable."""
    (field,) = (field for key, field in Settings.model_fields.items() if variable(key) == name)
    return field.get_default(call_default_factory=True)


def functions() -> dict[str, dict[str, Any]]:
    """The functions of s.yaml, `${vars.NAME}` replaced as Serverless Devs does: a lone reference keeps its type."""
    document = load("s.yaml")
    assert document["edition"] == "3.0.0"

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: fill(item) for key, item in value.items()}
        if isinstance(value, list):
            return [fill(item) for item in value]
        if isinstance(value, str) and (match := re.fullmatch(r"\$\{vars\.(\w+)\}", value)):
            return document["vars"][match[1]]
        return value

    resources = fill(document["resources"])
    assert {resource["component"] for resource in resources.values()} == {"fc3"}
    return {name: resource["props"] for name, resource in resources.items()}
