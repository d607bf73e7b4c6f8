"""What became of finished prompts, in the order they finished."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from comfyui.simulator.faults import Faults

MAXIMUM = 10000
CREDENTIALS = ("auth_token_comfy_org", "api_key_comfy_org")


class History:
    """Written by the worker thread, read and cleaned by the event loop; the caller holds the queue's lock."""

    def __init__(self, faults: Faults) -> None:
        self._entries: dict[str, dict[str, Any]] = {}
        self._shown_from: dict[str, float] = {}
        self._faults = faults

    def add(self, prompt_id: str, entry: dict[str, Any]) -> None:
        """A second run under the same id replaces the entry at its old place."""
        if len(self._entries) > MAXIMUM:
            self._entries.pop(next(iter(self._entries)))
        self._entries[prompt_id] = entry
        late = self._faults.take("late-history")
        self._shown_from[prompt_id] = time.monotonic() + (late.seconds if late else 0)

    def find(self, prompt_id: str) -> dict[str, Any]:
        """`{id: entry}`, or `{}` if there is none: unknown, unfinished and deleted look the same."""
        entries = self._visible()
        return {prompt_id: entries[prompt_id]} if prompt_id in entries else {}

    def page(self, max_items: int | None, offset: int) -> dict[str, Any]:
        """The newest `max_items` if there is no offset, else those from `offset` on, counted from the oldest."""
        entries = self._visible()
        if offset < 0 and max_items is not None:
            offset = len(entries) - max_items
        ids = list(entries)[max(0, offset) :]
        return {
            prompt_id: entries[prompt_id]
            for prompt_id in (ids if max_items is None else ids[: max(1, max_items)])
        }

    def delete(self, prompt_id: str) -> None:
        self._entries.pop(prompt_id, None)

    def clear(self) -> None:
        self._entries = {}

    def _visible(self) -> dict[str, Any]:
        now = time.monotonic()
        return {key: entry for key, entry in self._entries.items() if self._shown_from[key] <= now}


def without_credentials(extra_data: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in extra_data.items() if key not in CREDENTIALS}
