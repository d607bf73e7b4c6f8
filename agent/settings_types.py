"""What several classes of settings share: their base, and types of settings."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, SecretStr


class SettingsGroup(BaseModel):
    """Settings of one subject. A field `x` is read from AGENT_X, unless its alias names other variables."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False, defer_build=True
    )


def split_words(value: Any) -> Any:
    """The words between the commas of a text; what is no text stays as it is."""
    return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value


def check_url(value: str) -> str:
    """The URL as it is. Raises ValueError."""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("write it as http://host:port")
    return value


def _check_secret_url(value: SecretStr) -> SecretStr:
    check_url(value.get_secret_value())
    return value


HttpUrl = Annotated[str, AfterValidator(check_url)]
#: One whose query or credentials are nobody's business.
SecretUrl = Annotated[SecretStr, AfterValidator(_check_secret_url)]
WordList = Annotated[list[str], BeforeValidator(split_words)]
