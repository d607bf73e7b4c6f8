"""Every setting of the service, in one class, read from the environment once at start."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class Role(StrEnum):
    """What an instance does."""

    ALL = "all"  #: accepts tasks, runs them, serves everything
    ENGINE = "engine"  #: runs tasks
    FRONT = "front"  #: answers for tasks without an engine of its own


class Invocation(StrEnum):
    """Who answers 202 to an asynchronous caller."""

    AUTO = "auto"  #: the platform when its variables are set, else this agent
    GATEWAY = "gateway"  #: the platform did; the run happens inside the delivered request
    STANDALONE = "standalone"  #: this agent; the run goes on in the background


class LogFormat(StrEnum):
    """How log lines look."""

    AUTO = "auto"  #: text on a terminal, JSON elsewhere
    TEXT = "text"
    JSON = "json"


WordList = Annotated[list[str], NoDecode]


class Settings(BaseSettings):
    """The names without a prefix (REDIS_URL, COMFYUI_*) are those that other software uses for the same thing."""

    model_config = SettingsConfigDict(env_prefix="AGENT_", frozen=True, extra="forbid", populate_by_name=True)

    host: str = Field("0.0.0.0", description="Address to listen on.")  # noqa: S104 - a container's contract
    port: int = Field(
        9000,
        ge=0,
        le=65535,
        validation_alias=AliasChoices("AGENT_PORT", "FC_CUSTOM_LISTEN_PORT"),
        description="Port to listen on; without it FC_CUSTOM_LISTEN_PORT counts. 0 takes a free one.",
    )
    role: Role = Field(Role.ALL, description="What this instance does: all, engine or front.")
    invocation: Invocation = Field(
        Invocation.AUTO, description="Who answers 202 to asynchronous callers: auto, gateway or standalone."
    )
    api_keys: list[SecretStr] = Field(
        default_factory=list,
        description="Comma-separated keys, one of which each request must carry. None: open.",
    )
    cors_origins: WordList = Field(
        default_factory=list,
        description="Comma-separated origins whose pages may call the API. None: no other.",
    )
    fetch_allow: WordList = Field(
        default_factory=list,
        description="Comma-separated hosts and networks that input URLs may reach although they are private.",
    )
    fetch_timeout_seconds: float = Field(30, gt=0, description="How long the download of one input may take.")
    max_body_bytes: int = Field(32 * 2**20, gt=0, description="Largest request body.")
    max_input_bytes: int = Field(64 * 2**20, gt=0, description="Largest input file, decoded or downloaded.")
    max_input_pixels: int = Field(100_000_000, gt=0, description="Largest input picture, width times height.")
    queue_size: int = Field(
        64, ge=0, description="Tasks that may wait on this instance beside those in the engine."
    )
    concurrency: int = Field(
        2, ge=1, description="Prompts handed to the engine at once: one runs, the others are ready to follow."
    )
    task_timeout_seconds: float = Field(
        3600, gt=0, description="How long a task may take from admission to delivery."
    )
    task_ttl_seconds: int = Field(
        86_400, gt=0, description="How long a finished task and its outputs are kept."
    )
    lease_seconds: float = Field(
        30, gt=0, description="A task whose instance is silent for this long is lost."
    )
    max_attempts: int = Field(3, ge=1, description="How often a task is tried before it fails for good.")
    engine_start_seconds: float = Field(600, gt=0, description="How long ComfyUI may take to become ready.")
    engine_silence_seconds: float = Field(
        5, gt=0, description="Without an event for this long, a running prompt is looked up over HTTP."
    )
    shutdown_seconds: float = Field(
        25, ge=0, description="How long running tasks may take to finish at shutdown."
    )
    redis_prefix: str = Field("comfyui-agent:", description="Begins every key in Redis.")
    log_level: str = Field("info", description="debug, info, warning or error.")
    log_format: LogFormat = Field(LogFormat.AUTO, description="text, json, or auto: text on a terminal.")

    redis_url: SecretStr | None = Field(
        None,
        validation_alias="REDIS_URL",
        description="The shared task store. Absent: this process's memory.",
    )
    comfyui_root: str | None = Field(
        None, validation_alias="COMFYUI_ROOT", description="A ComfyUI checkout to launch."
    )
    comfyui_python: str | None = Field(
        None,
        validation_alias="COMFYUI_PYTHON",
        description="Interpreter for COMFYUI_ROOT; default: its own venv's.",
    )
    comfyui_args: str = Field(
        "", validation_alias="COMFYUI_ARGS", description="Further flags for the launched ComfyUI."
    )
    comfyui_command: str | None = Field(
        None,
        validation_alias="COMFYUI_COMMAND",
        description="The whole command to launch instead, {port} filled in: any server that speaks ComfyUI's protocol.",
    )
    comfyui_url: str | None = Field(
        None,
        validation_alias="COMFYUI_URL",
        description="A ComfyUI that already runs: attach, do not supervise.",
    )
    comfyui_port: int = Field(
        9001,
        ge=1,
        le=65535,
        validation_alias="COMFYUI_PORT",
        description="Port for the launched ComfyUI, on loopback.",
    )
