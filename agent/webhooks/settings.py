"""Settings of the webhooks."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from agent.settings_types import SettingsGroup, split_words
from agent.webhooks.signing import read_secret


def _split_webhook_secrets(value: Any) -> Any:
    secrets = split_words(value)
    if value and not secrets:
        raise ValueError("there is no secret in it, and without one webhooks would not be signed")
    return secrets


def _check_webhook_secrets(value: list[SecretStr]) -> list[SecretStr]:
    for secret in value:
        read_secret(secret.get_secret_value())
    return value


SecretList = Annotated[
    list[SecretStr],
    BeforeValidator(_split_webhook_secrets),
    AfterValidator(_check_webhook_secrets),
]


class WebhookSettings(SettingsGroup):
    """Whom the end of a task is told, and how patiently."""

    webhook_url: SecretStr | None = Field(
        None,
        description="Told of the end of every task whose request names no webhook; its query may hold a secret.",
    )
    webhook_secrets: SecretList = Field(
        default_factory=list,
        description="Comma-separated secrets (whsec_...), each of which signs every webhook. None: not signed.",
    )
    webhook_timeout_seconds: float = Field(
        15, gt=0, description="How long a receiver of webhooks may take to answer."
    )
    webhook_attempts: int = Field(5, ge=1, description="How often one webhook is tried.")
    webhook_total_seconds: float = Field(
        60,
        gt=0,
        description="How long all tries of one webhook may take together; behind a platform they are billed.",
    )
