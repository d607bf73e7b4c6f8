"""ComfyUI's JSON, which may hold what JSON should not."""

from __future__ import annotations

import json
from typing import Any

from pydantic_core import from_json


def parse_json(text: str | bytes) -> Any:
    """Parse what ComfyUI sent. Raises ValueError.

    Python writes a file name that is not UTF-8 with lone surrogates ("\\udcb0"), which no other program may read or
    write; the quick parser refuses the whole text then. Such characters come out as "\ufffd".
    """
    try:
        return from_json(text)
    except ValueError as exc:
        try:
            return _mended(json.loads(text))
        except RecursionError:
            raise exc from None


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_mended(item) for item in value]
    if isinstance(value, dict):
        return {_mended(key): _mended(item) for key, item in value.items()}
    return value
