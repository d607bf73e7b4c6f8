"""What is written behind --set and --image."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from agent.client.wire import data_uri
from agent.commands.remote import Stop

#: Not a file's name, but something that the agent itself fetches or reads.
URL = re.compile(r"(https?|s3|oss|data):", re.IGNORECASE)


def split_all(assignments: Sequence[str], option: str) -> dict[str, str]:
    """`NAME=VALUE` each. Raises Stop."""
    found: dict[str, str] = {}
    for each in assignments:
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise Stop(f'{option} "{each[:80]}" has no "=": write {option} NAME=VALUE.')
        if name in found:
            raise Stop(f'{option} gives "{name}" twice.')
        found[name] = value
    return found


def text_of(value: str) -> str:
    """The value itself: `@file` stands for what the file holds, `@@` for an @. Raises Stop."""
    if value.startswith("@@"):
        return value[1:]
    if not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).read_text(encoding="utf-8").removesuffix("\n")
    except OSError as exc:
        raise Stop(f"{value[1:]} cannot be read: {exc.strerror}.") from None
    except UnicodeDecodeError:
        raise Stop(f"{value[1:]} is no text. A picture goes with --image.") from None


def typed(text: str) -> Any:
    """JSON where it is that, else the text. Whole numbers are exact."""

    def refuse(_: str) -> NoReturn:
        raise ValueError

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return text


def typed_like(text: str, present: Any) -> Any:
    """As `typed`, but an input that holds a text keeps holding one."""
    return text if isinstance(present, str) else typed(text)


def typed_for(text: str, schema: Mapping[str, Any]) -> Any:
    """The value that a parameter of this schema takes."""
    if schema.get("type") == "string" or text in schema.get("enum", ()):
        return text
    return typed(text)


def file_of(value: str) -> str:
    """What a file input gets: a file of this machine as data URI, a URL as it is. Raises Stop."""
    if URL.match(value):
        return value
    path = value.removeprefix("@")
    try:
        return data_uri(path)
    except OSError as exc:
        raise Stop(f"{path} cannot be read: {exc.strerror}.") from None
