"""The prompts that wait and the one that runs."""

from __future__ import annotations

import heapq
import threading
from typing import TYPE_CHECKING, Any

from comfyui.simulator.history import without_credentials

if TYPE_CHECKING:
    from collections.abc import Callable

    from comfyui.simulator.history import History

Item = tuple[float, str, dict[str, Any], dict[str, Any], list[str]]
"""number, prompt_id, prompt, extra_data, output node ids: also how /queue and /history show it."""


class PromptQueue:
    """Every change calls `changed`, which tells the clients. Safe to use from any thread."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._pending: list[Item] = []
        self._running: Item | None = None
        self._flags: dict[str, Any] = {}
        self._lock = threading.RLock()
        self._woken = threading.Condition(self._lock)
        self.changed: Callable[[], None] = lambda: None

    def put(self, item: Item) -> None:
        """Raises TypeError, though the item is queued, if number and id equal those of another: so does ComfyUI."""
        with self._lock:
            heapq.heappush(self._pending, item)
            self.changed()
            self._woken.notify()

    def take(self) -> Item | None:
        """Wait for the next prompt and make it the running one; None if only flags were set."""
        with self._lock:
            while not self._pending and not self._flags:
                self._woken.wait()
            if not self._pending:
                return None
            self._running = heapq.heappop(self._pending)
            self.changed()
            return self._running

    def finish(self, item: Item, entry: dict[str, Any]) -> None:
        """Write the history, then tell that the prompt is no longer running."""
        with self._lock:
            number, prompt_id, prompt, extra_data, outputs = item
            shown = [number, prompt_id, prompt, without_credentials(extra_data), outputs]
            self._history.add(prompt_id, {"prompt": shown} | entry)
            self._running = None
            self.changed()

    def set_flag(self, name: str, value: Any) -> None:
        with self._lock:
            self._flags[name] = value
            self._woken.notify()

    def take_flags(self) -> dict[str, Any]:
        with self._lock:
            flags, self._flags = self._flags, {}
            return flags

    def remaining(self) -> int:
        with self._lock:
            return len(self._pending) + (self._running is not None)

    def show(self) -> tuple[list[Item], list[Item]]:
        """Running and pending items, the latter in the order of the heap."""
        with self._lock:
            return ([self._running] if self._running else []), list(self._pending)

    def is_running(self, prompt_id: str) -> bool:
        with self._lock:
            return self._running is not None and self._running[1] == prompt_id

    def delete(self, prompt_id: str) -> None:
        """Remove the first pending prompt with this id, if there is one."""
        with self._lock:
            for index, item in enumerate(self._pending):
                if item[1] == prompt_id:
                    if len(self._pending) == 1:
                        self.clear()  # so the last one is announced twice, as upstream
                    else:
                        self._pending.pop(index)
                        heapq.heapify(self._pending)
                    self.changed()
                    return

    def clear(self) -> None:
        with self._lock:
            self._pending = []
            self.changed()

    def find_history(self, prompt_id: str) -> dict[str, Any]:
        with self._lock:
            return self._history.find(prompt_id)

    def page_history(self, max_items: int | None, offset: int) -> dict[str, Any]:
        with self._lock:
            return self._history.page(max_items, offset)

    def forget_history(self, prompt_id: str | None = None) -> None:
        """Delete one entry, or all."""
        with self._lock:
            if prompt_id is None:
                self._history.clear()
            else:
                self._history.delete(prompt_id)
