"""Every setting of the service, in one class, read from the environment once at start."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from agent.inputs.settings import InputSettings
from agent.labels.settings import LabelSettings
from agent.safety.prompts.settings import PromptSettings
from agent.settings_engine import EngineSettings
from agent.settings_errors import say_wrong
from agent.settings_facades import FacadeSettings
from agent.settings_front import FrontSettings
from agent.settings_objects import ObjectStoreSettings
from agent.settings_types import HttpUrl, SettingsGroup, WordList, split_words
from agent.tasks.settings import StoreSettings
from agent.webhooks.settings import WebhookSettings
from comfyui.routes import HARMLESS

#: Behind a gateway: what the platform gives an instance to drain (90 s), less what is left to be done then.
LONGEST_SHUTDOWN_SECONDS = 75

#: In place of single routes: everything that ComfyUI's own clients need.
ALL_ROUTES = "all"


class Role(StrEnum):
    """What an instance does."""

    ALL = "all"  #: accepts tasks, runs them, serves everything
    ENGINE = "engine"  #: the same, and says that a front is before it
    FRONT = "front"  #: answers for tasks without an engine of its own


class Invocation(StrEnum):
    """Who answers 202 to an asynchronous caller."""

    AUTO = "auto"  #: the platform when its variables are set, else this agent
    GATEWAY = "gateway"  #: the platform did; the run happens inside the delivered request
    STANDALONE = "standalone"  #: this agent; the run goes on in the background


class Outputs(StrEnum):
    """How outputs reach the caller."""

    INLINE = "inline"  #: as base64 in the answer; kept in the task store
    URL = "url"  #: as URLs; kept in the object store


class LogFormat(StrEnum):
    """How log lines look."""

    AUTO = "auto"  #: text on a terminal, JSON elsewhere
    TEXT = "text"
    JSON = "json"


#: The origin of a page: scheme, host, and its port where that is not the usual one; in lower case.
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^\sA-Z/?#@\\]+")

LogLevel = Annotated[
    Literal["debug", "info", "warning", "error"],
    BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value),
]


def _split_keys(value: Any) -> Any:
    keys = split_words(value)
    if value and not keys:
        raise ValueError("there is no key in it, and without one the API would be open")
    return keys


def _check_origins(origins: list[str]) -> list[str]:
    """As a browser sends them: another spelling would never be the same."""
    for origin in origins:
        if origin not in ("*", "null") and not ORIGIN.fullmatch(origin):
            raise ValueError(
                f"{origin} is no origin; write it as https://host or http://host:port, without a path"
            )
    return origins


def _check_routes(names: list[str]) -> list[str]:
    unknown = [name for name in names if name not in HARMLESS and name != ALL_ROUTES]
    if unknown:
        can = ", ".join(HARMLESS)
        raise ValueError(f"{', '.join(unknown)} cannot be passed through; these can: {can}, or {ALL_ROUTES}")
    return names


KeyList = Annotated[list[SecretStr], BeforeValidator(_split_keys)]


class CoreSettings(SettingsGroup):
    """The settings of the service itself."""

    host: str = Field("0.0.0.0", description="Address to listen on.")  # noqa: S104 - a container's contract
    port: int = Field(
        9000,
        ge=0,
        le=65535,
        validation_alias=AliasChoices("AGENT_PORT", "FC_CUSTOM_LISTEN_PORT"),
        description="Port to listen on; without it FC_CUSTOM_LISTEN_PORT counts. 0 takes a free one.",
    )
    role: Role = Field(
        Role.ALL,
        description="front: no engine of its own. all; or engine, which is the same, for one behind a front.",
    )
    invocation: Invocation = Field(
        Invocation.AUTO, description="Who answers 202 to asynchronous callers: auto, gateway or standalone."
    )
    api_keys: KeyList = Field(
        default_factory=list,
        description="Comma-separated keys, one of which each request must carry. None: open.",
    )
    api_keys_file: str | None = Field(
        None, description="A file with further keys, one a line; # begins a comment."
    )
    cors_origins: Annotated[WordList, AfterValidator(_check_origins)] = Field(
        default_factory=list,
        description="Comma-separated origins whose pages may call the API. None: no other.",
    )
    max_body_bytes: int = Field(32 * 2**20, gt=0, description="Largest request body.")
    max_nodes: int = Field(2000, gt=0, description="Most nodes of one workflow; fifty times as many inputs.")
    outputs: Outputs = Field(
        Outputs.INLINE,
        description="How outputs reach the caller where the request does not say: inline, or url (object store).",
    )
    max_output_bytes: int = Field(
        2**30, gt=0, description="Largest size of all outputs of one task together, which are held in memory."
    )
    max_output_pixels: int = Field(
        200_000_000,
        gt=0,
        description="Largest output picture, width times height, that is decoded to be reviewed, marked or converted; "
        "all frames of an animation together: ten times as many.",
    )
    max_answer_bytes: int | None = Field(
        None,
        gt=0,
        description="Largest answer; a larger one has URLs instead. Default: 32 MiB behind a gateway, else none.",
    )
    queue_size: int = Field(
        64, ge=0, description="Tasks that may wait on this instance beside those in the engine."
    )
    concurrency: int = Field(
        2, ge=1, description="Prompts handed to the engine at once: one runs, the others are ready to follow."
    )
    task_timeout_seconds: float = Field(
        3600, gt=0, description="How long a task may take from admission to delivery."
    )
    lease_seconds: float = Field(
        30, gt=0, description="A task whose instance is silent for this long is lost."
    )
    delivery_seconds: float = Field(
        86_400,
        gt=0,
        description="How long a platform that queues requests may go on delivering one; later it counts as lost.",
    )
    max_attempts: int = Field(3, ge=1, description="How often a task is tried before it fails for good.")
    workflows_dir: str | None = Field(
        None,
        description="A folder of named workflows, beside the shipped ones; of two with the same name this one counts.",
    )
    nodes_allow: WordList = Field(
        default_factory=list,
        description="Comma-separated node classes that may run, * as wildcard. None: all.",
    )
    nodes_deny: WordList = Field(
        default_factory=list, description="Comma-separated node classes that may not run, * as wildcard."
    )
    pass_through: Annotated[list[str], BeforeValidator(split_words), AfterValidator(_check_routes)] = Field(
        default_factory=list,
        description="Comma-separated routes of ComfyUI's own that are passed on to it, such as /view; "
        "all: what its own clients need, its editor included. None: none.",
    )
    shutdown_seconds: float = Field(
        25,
        ge=0,
        description="How long running tasks may take to finish at shutdown; 75 at most behind a gateway.",
    )
    traces_endpoint: HttpUrl | None = Field(
        None,
        validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        description="An OpenTelemetry collector that takes OTLP over HTTP: where spans go, with the extra otel.",
    )
    log_level: LogLevel = Field("info", description="debug, info, warning or error.")
    log_format: LogFormat = Field(LogFormat.AUTO, description="text, json, or auto: text on a terminal.")

    @model_validator(mode="after")
    def _ends_in_time(self) -> Self:
        # Function Compute destroys an instance 90 seconds after it has asked for /pre-stop, answered or not. Putting
        # tasks back takes 10 of them at most.
        if self.behind_gateway and self.shutdown_seconds > LONGEST_SHUTDOWN_SECONDS:
            raise ValueError(
                f"AGENT_SHUTDOWN_SECONDS is {self.shutdown_seconds:g}: the platform ends an instance 90 seconds "
                f"after it asks it to drain, so {LONGEST_SHUTDOWN_SECONDS} is the most"
            )
        return self

    @property
    def serves_comfyui_clients(self) -> bool:
        """Whether ComfyUI's editor, comfy-cli and scripts for ComfyUI work on our port."""
        return ALL_ROUTES in self.pass_through

    @property
    def behind_gateway(self) -> bool:
        """Whether a platform in front answers 202, so that work must stay inside its request.

        Function Compute always sets both variables; the header of an asynchronous call may not reach us.
        """
        if self.invocation is Invocation.AUTO:
            return bool(os.environ.get("FC_FUNCTION_NAME") and os.environ.get("FC_INSTANCE_ID"))
        return self.invocation is Invocation.GATEWAY

    @property
    def answer_limit(self) -> int | None:
        """Largest answer in bytes; None: any. Function Compute answers a larger one with an error of its own."""
        if self.max_answer_bytes is None and self.behind_gateway:
            return 32 * 2**20
        return self.max_answer_bytes


class Settings(
    LabelSettings,
    FacadeSettings,
    PromptSettings,
    EngineSettings,
    WebhookSettings,
    ObjectStoreSettings,
    StoreSettings,
    InputSettings,
    FrontSettings,
    CoreSettings,
):
    """Every setting, and what they mean together. In the documents the subjects stand in the order from the last base
    to the first."""

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        if self.role is not Role.FRONT and self.comfyui_url is None and self.port == self.comfyui_port:
            raise ValueError("AGENT_PORT and COMFYUI_PORT are the same: each server needs a port of its own")
        if self.outputs is Outputs.URL and self.object_store is None:
            raise ValueError("AGENT_OUTPUTS=url needs a place for the files: set AGENT_OBJECT_STORE")
        return self

    @model_validator(mode="after")
    def _front_has_what_it_needs(self) -> Self:
        if self.role is Role.FRONT and self.engine_url is None:
            raise ValueError("AGENT_ROLE=front needs AGENT_ENGINE_URL, the address of the engine function")
        if self.role is Role.FRONT and self.redis_url is None and self.store_dir is None:
            raise ValueError(
                "AGENT_ROLE=front needs REDIS_URL or AGENT_STORE_DIR: it answers for tasks that others run"
            )
        if self.role is Role.FRONT and self.serves_comfyui_clients:
            raise ValueError(
                "AGENT_PASS_THROUGH=all needs an engine of its own: on a front, name the routes to pass on"
            )
        return self

    @property
    def is_simulated(self) -> bool:
        """Whether the engine is the embedded simulator, whose pictures are stand-ins."""
        named = self.comfyui_root or self.comfyui_command or self.comfyui_url
        return not named and self.role is not Role.FRONT


class SettingsError(ValueError):
    """A setting is wrong; the text names it and says what is allowed."""


def variable(name: str) -> str:
    """The environment variable of a field."""
    return _variables(name)[0]


def _variables(name: str) -> list[str]:
    """The environment variables of a field; the first one that is set counts."""
    alias = Settings.model_fields[name].validation_alias
    if isinstance(alias, AliasChoices):
        return [str(choice) for choice in alias.choices]
    return [str(alias or f"AGENT_{name.upper()}")]


def _read(environ: Mapping[str, str]) -> dict[str, Any]:
    """The fields that are set, as text. An empty variable counts as one that is not there: compose files set them."""
    fields = Settings.model_fields
    found = {name: next(filter(None, map(environ.get, _variables(name))), None) for name in fields}
    return {name: text for name, text in found.items() if text is not None}


def load_settings(environ: Mapping[str, str] = os.environ, **overrides: Any) -> Settings:
    """Read the environment; `overrides` (from the command line) win. Raises SettingsError."""
    known = {variable(name) for name in Settings.model_fields}
    unknown = sorted(name for name in environ if name.startswith("AGENT_") and name not in known)
    if unknown:
        raise SettingsError(
            f"unknown setting {', '.join(unknown)}; comfyui-agent serve --help lists them all"
        )
    try:
        return Settings.model_validate({**_read(environ), **overrides})
    except ValidationError as exc:
        raise SettingsError("\n".join(_say(error) for error in exc.errors())) from None


def read_api_keys(settings: Settings) -> tuple[bytes, ...]:
    """Every key that opens the API, from the setting and from the file. Raises SettingsError."""
    keys = [key.get_secret_value() for key in settings.api_keys]
    if settings.api_keys_file:
        try:
            lines = Path(settings.api_keys_file).read_text().splitlines()
        except (OSError, UnicodeDecodeError) as exc:
            raise SettingsError(f"AGENT_API_KEYS_FILE: {exc}") from None
        keys += [key for key in map(str.strip, lines) if key and not key.startswith("#")]
        if not keys:
            raise SettingsError(
                "AGENT_API_KEYS_FILE: there is no key in it, and without one the API would be open"
            )
    return tuple(key.encode() for key in keys)


def _say(error: Any) -> str:
    where = str(error["loc"][0]) if error["loc"] else ""
    field = next((name for name in Settings.model_fields if where in (name, variable(name))), None)
    if field is None:
        return say_wrong(where, None, error)
    return say_wrong(variable(field), Settings.model_fields[field], error)
