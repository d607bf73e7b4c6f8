"""The deployment files as data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import yaml

ROOT = Path(__file__).parents[3]


def load(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def schema(name: str) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(yaml.safe_load(Path(__file__).with_name(name).read_text()))


def functions(document: Any = None) -> dict[str, dict[str, Any]]:
    """The functions of s.yaml, or of what a reader made of it, `${vars.NAME}` replaced as Serverless Devs does: a lone
    reference keeps its type."""
    document = document or load("s.yaml")
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
