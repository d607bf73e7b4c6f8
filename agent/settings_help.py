"""Every setting as text for a terminal of 80 columns, made from the settings class."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

from pydantic.fields import FieldInfo

from agent.inputs.settings import InputSettings
from agent.labels.settings import LabelSettings
from agent.safety.prompts.settings import PromptSettings
from agent.settings import Settings, variable
from agent.settings_engine import EngineSettings
from agent.settings_facades import FacadeSettings
from agent.settings_front import FrontSettings
from agent.settings_objects import ObjectStoreSettings
from agent.tasks.settings import StoreSettings
from agent.webhooks.settings import WebhookSettings

WIDTH = 79

#: Heading -> fields. What is in none of them stands under the last heading, so that nothing can be missing.
GROUPS: dict[str, tuple[str, ...]] = {
    "Listening": ("host", "port", "role", "invocation"),
    "Who and what is let in": (
        "api_keys",
        "api_keys_file",
        "cors_origins",
        "nodes_allow",
        "nodes_deny",
        "pass_through",
    ),
    "The engine": tuple(EngineSettings.model_fields),
    "Tasks": (
        "queue_size",
        "concurrency",
        "task_timeout_seconds",
        "lease_seconds",
        "delivery_seconds",
        "max_attempts",
        "shutdown_seconds",
    ),
    "The task store": tuple(StoreSettings.model_fields),
    "Webhooks": tuple(WebhookSettings.model_fields),
    "Inputs": ("max_body_bytes", "max_nodes", *InputSettings.model_fields),
    "Outputs": (
        "outputs",
        "max_output_bytes",
        "max_output_pixels",
        "max_answer_bytes",
        *ObjectStoreSettings.model_fields,
    ),
    "Other image APIs": tuple(FacadeSettings.model_fields),
    "Review of prompts and pictures": tuple(PromptSettings.model_fields),
    "Labels": tuple(LabelSettings.model_fields),
    "A front": tuple(FrontSettings.model_fields),
    "Logs and traces": ("log_level", "log_format", "traces_endpoint"),
    "More": (),
}

INTRODUCTION = """\
Settings are environment variables, read once at start, shown here with their defaults. An unknown name that begins
with AGENT_ is an error. Without COMFYUI_ROOT, COMFYUI_COMMAND and COMFYUI_URL the embedded simulator runs."""

EXIT_CODES = """\
Exit code: 0 after SIGTERM or SIGINT; 1 if the service could not start (the port is taken, no ComfyUI where the
settings say); 2 if an option or a setting is wrong."""


def settings_help(emphasize: Callable[[str], str] = str) -> str:
    """The settings by group: name and default, below it what it means. Headings pass through `emphasize`."""
    groups = [
        "\n".join((emphasize(f"{heading}:"), *(_say(name, Settings.model_fields[name]) for name in names)))
        for heading, names in grouped()
        if names
    ]
    return "\n\n".join((_fill(INTRODUCTION), *groups, _fill(EXIT_CODES)))


def grouped() -> Iterator[tuple[str, list[str]]]:
    """Each heading with the fields below it; together they are all fields of the class."""
    sorted_in = {name for names in GROUPS.values() for name in names}
    left = [name for name in Settings.model_fields if name not in sorted_in]
    for heading, names in GROUPS.items():
        known = [name for name in names if name in Settings.model_fields]
        yield heading, known if names else left


def default_text(field: FieldInfo) -> str:
    """The default as it would be written in the environment; empty for none."""
    value: Any = field.get_default(call_default_factory=True)
    match value:
        case None | [] | "":
            return ""
        case Enum():
            return str(value.value)
        case list():
            return ",".join(map(str, value))
        case _:
            return str(value)


def _say(name: str, field: FieldInfo) -> str:
    default = default_text(field)
    head = f"  {variable(name)}" + (f"={default}" if default else "  (not set)")
    return f"{head}\n{_fill(field.description or '', '      ')}"


def _fill(text: str, indent: str = "") -> str:
    # Names and addresses stay in one piece.
    return textwrap.fill(
        " ".join(text.split()),
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
