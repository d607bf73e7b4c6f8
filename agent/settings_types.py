"""The types of settings that several classes of settings share."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode


def split_words(value: Any) -> Any:
    """The words between the commas of a text; what is no text stays as it is."""
    return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value


def check_url(value: str) -> str:
    """The URL as it is. Raises ValueError."""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("write it as http://host:port")
    return value


HttpUrl = Annotated[str, AfterValidator(check_url)]
WordList = Annotated[list[str], NoDecode, BeforeValidator(split_words)]
