"""Every setting as text for a terminal of 80 columns, made from the settings class."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

from pydantic.fields import FieldInfo

from agent.settings import Settings, variable

WIDTH = 79

#: Heading -> fields. What is in none of them stands under the last heading, so that nothing can be missing.
GROUPS = {
    "Listening": ("host", "port", "role", "invocation"),
    "Who and what is let in": (
        "api_keys",
        "api_keys_file",
        "cors_origins",
        "fetch_allow",
        "input_buckets",
        "nodes_allow",
        "nodes_deny",
    ),
    "The engine": (
        "comfyui_root",
        "comfyui_python",
        "comfyui_args",
        "comfyui_command",
        "comfyui_url",
        "comfyui_base_directory",
        "comfyui_port",
        "provision",
        "engine_start_seconds",
        "engine_silence_seconds",
        "engine_stall_seconds",
        "warm_up",
    ),
    "Tasks": (
        "redis_url",
        "redis_prefix",
        "store_dir",
        "queue_size",
        "concurrency",
        "task_timeout_seconds",
        "task_ttl_seconds",
        "lease_seconds",
        "max_attempts",
        "shutdown_seconds",
    ),
    "Webhooks": (
        "webhook_url",
        "webhook_secrets",
        "webhook_timeout_seconds",
        "webhook_attempts",
        "webhook_total_seconds",
    ),
    "Outputs": (
        "outputs",
        "max_output_bytes",
        "max_answer_bytes",
        "object_store",
        "object_store_endpoint",
        "object_store_public_endpoint",
        "object_store_region",
        "object_store_key_id",
        "object_store_key_secret",
        "object_store_token",
        "object_store_timeout_seconds",
        "signed_url_seconds",
    ),
    "Other image APIs": ("facades", "keyless_facades", "models", "early_answer_seconds"),
    "Review of prompts and pictures": tuple(
        name for name in Settings.model_fields if name.startswith("safety_")
    ),
    "Labels": (
        "label_iptc",
        "label_aigc",
        "label_aigc_producer",
        "label_aigc_propagator",
        "label_parameters",
        "label_remove_prompt",
        "label_c2pa",
        "label_c2pa_certificate",
        "label_c2pa_key",
        "label_c2pa_algorithm",
        "label_mark",
        "label_mark_text",
        "label_mark_font",
        "label_mark_height",
        "label_mark_corner",
    ),
    "Limits of inputs": ("fetch_timeout_seconds", "max_body_bytes", "max_input_bytes", "max_input_pixels"),
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
