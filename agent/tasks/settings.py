"""Settings of the task store."""

from __future__ import annotations

from typing import Self

from pydantic import Field, SecretStr, model_validator

from agent.settings_types import SettingsGroup


class StoreSettings(SettingsGroup):
    """Where tasks are kept, and for how long. The name REDIS_URL is the one that other software uses for it."""

    redis_url: SecretStr | None = Field(
        None,
        validation_alias="REDIS_URL",
        description="The shared task store. Without it and AGENT_STORE_DIR: this process's memory.",
    )
    redis_prefix: str = Field("comfyui-agent:", description="Begins every key in Redis.")
    redis_timeout_seconds: float = Field(
        5, gt=0, description="A silent Redis is given up after one and a half times this long."
    )
    store_dir: str | None = Field(
        None,
        description="Instead of REDIS_URL: a folder that all instances share, on a NAS; it must be there.",
    )
    task_ttl_seconds: int = Field(
        86_400, gt=0, description="How long a finished task and its outputs are kept."
    )
    memory_output_bytes: int = Field(
        256 * 2**20,
        gt=0,
        description="Bytes of outputs kept in memory, without a shared store or while it is away; the oldest go first.",
    )

    @model_validator(mode="after")
    def _one_store(self) -> Self:
        if self.redis_url and self.store_dir:
            raise ValueError("REDIS_URL and AGENT_STORE_DIR contradict each other: set one of them")
        return self
