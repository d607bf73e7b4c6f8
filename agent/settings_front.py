"""Settings of a front alone."""

from __future__ import annotations

from pydantic import Field, SecretStr

from agent.settings_types import HttpUrl, SettingsGroup


class FrontSettings(SettingsGroup):
    """What a front knows of the engine function behind it."""

    engine_url: HttpUrl | None = Field(
        None, description="front: the address of the engine function, which runs the tasks."
    )
    engine_api_key: SecretStr | None = Field(
        None, description="front: sent to the engine function as X-Api-Key."
    )
    engine_authorization: SecretStr | None = Field(
        None, description="front: sent to the engine function as Authorization, for the platform's own check."
    )
    async_body_bytes: int = Field(
        128 * 1024,
        gt=0,
        description="front: largest asynchronous request that the platform takes; beyond it inputs are parked.",
    )
