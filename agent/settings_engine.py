"""Settings of the engine: which ComfyUI there is, how it is launched, and how patient the agent is with it."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from agent.settings_types import HttpUrl, SettingsGroup


class EngineSettings(SettingsGroup):
    """The engine's settings. The names COMFYUI_* are those that other software uses for the same thing."""

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
    comfyui_url: HttpUrl | None = Field(
        None,
        validation_alias="COMFYUI_URL",
        description="A ComfyUI that already runs: attach, do not supervise.",
    )
    comfyui_base_directory: str | None = Field(
        None,
        validation_alias="COMFYUI_BASE_DIRECTORY",
        description="For COMFYUI_COMMAND or COMFYUI_URL: where its input, output and temp folders are.",
    )
    comfyui_port: int = Field(
        9001,
        ge=1,
        le=65535,
        validation_alias="COMFYUI_PORT",
        description="Port for the launched ComfyUI, on loopback.",
    )
    provision: str | None = Field(
        None,
        description="A manifest of models to put in place before the engine starts (docs/provisioning.md).",
    )
    engine_start_seconds: float = Field(600, gt=0, description="How long ComfyUI may take to become ready.")
    engine_silence_seconds: float = Field(
        2, gt=0, description="Without an event for this long, a running prompt is looked up over HTTP."
    )
    engine_stall_seconds: float = Field(
        900,
        gt=0,
        description="A prompt that runs this long without any sign of life has hung: ComfyUI is restarted.",
    )
    engine_hang_seconds: float = Field(
        60,
        gt=0,
        description="A ComfyUI that answers no HTTP request for this long has hung: it is restarted.",
    )
    warm_up: str | None = Field(
        None,
        description="A JSON file with a workflow to run once when the engine is up, so that its models are loaded.",
    )
    keep_files_seconds: float = Field(
        600,
        ge=0,
        description="The engine's files of a task are removed so long after it; 0 keeps them for ever. "
        "A folder given by --output-directory is left alone.",
    )

    @model_validator(mode="after")
    def _one_engine(self) -> Self:
        named = [n for n in ("comfyui_root", "comfyui_command", "comfyui_url") if getattr(self, n)]
        if len(named) > 1:
            raise ValueError(
                f"{' and '.join(n.upper() for n in named)} contradict each other: set one of them"
            )
        if self.comfyui_base_directory and not (self.comfyui_command or self.comfyui_url):
            raise ValueError(
                "COMFYUI_BASE_DIRECTORY is for COMFYUI_COMMAND and COMFYUI_URL; otherwise COMFYUI_ARGS say it"
            )
        if self.comfyui_url is not None and self.provision:
            raise ValueError("AGENT_PROVISION is for an engine that the agent starts, not for COMFYUI_URL")
        return self
