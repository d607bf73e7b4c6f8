"""Remembers node results between prompts, by what the node is and not by its id.

classic (default): results of the last prompt only. lru: N results over prompts. none: nothing.
The key covers class, inputs and all ancestors; LoadImage adds the file's content.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from comfyui.simulator.folders import Folders
    from comfyui.simulator.nodes.spec import NodeSpec

Prompt = dict[str, dict[str, Any]]

_never_equal = itertools.count()


def is_link(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int | float)
    )


@dataclass
class Entry:
    """What one node gave: a list per output slot, and its `ui` with who made it."""

    outputs: list[list[Any]]
    ui: dict[str, Any] | None = None
    meta: dict[str, Any] | None = None


class Cache:
    """Used by the worker thread alone."""

    def __init__(self, *, keep: int | None, forget_all: bool = False) -> None:
        self._keep, self._forget_all = keep, forget_all
        self._stored: dict[str, Entry] = {}
        self._run: dict[str, Entry] = {}  #: by node id, of the running prompt only
        self._keys: dict[str, str] = {}
        self._letters: dict[tuple[str, str], str] = {}

    def begin(self, prompt: Prompt, keys: dict[str, str]) -> None:
        """Start a prompt: forget what this mode does not keep."""
        self._run, self._keys = {}, keys
        if self._keep is None:
            wanted = set(keys.values())
            self._stored = {key: entry for key, entry in self._stored.items() if key in wanted}
            self._letters = {
                (node_id, name): letters
                for (node_id, name), letters in self._letters.items()
                if prompt.get(node_id, {}).get("class_type") == name
            }
        else:
            self._evict(self._keep)
        if self._forget_all:
            self._letters = {}

    def _evict(self, keep: int) -> None:
        """Least recently used first, but nothing the running prompt can use."""
        for key in self._keys.values():
            if key in self._stored:
                self._stored[key] = self._stored.pop(key)
        spare = [key for key in self._stored if key not in set(self._keys.values())]
        for key in spare[: max(0, len(self._stored) - keep)]:
            del self._stored[key]

    def get(self, node_id: str) -> Entry | None:
        return self._run.get(node_id) or self._stored.get(self._keys.get(node_id, ""))

    def put(self, node_id: str, entry: Entry) -> None:
        """Nodes that an expansion added have no key: they live as long as the prompt."""
        if node_id in self._keys and not self._forget_all:
            self._stored[self._keys[node_id]] = entry
        else:
            self._run[node_id] = entry

    def letters(self, node_id: str, class_type: str) -> str:
        """Five random letters for temp files, the same while the node stays in use."""
        chosen = "".join(random.choices(string.ascii_lowercase, k=5))  # noqa: S311 - a file name, not a secret
        return self._letters.setdefault((node_id, class_type), chosen)


def cache_keys(prompt: Prompt, classes: dict[str, NodeSpec], folders: Folders) -> dict[str, str]:
    """The key of every node of the prompt.

    Raises KeyError for a node without `inputs` that no output needs, which validation has not looked at. ComfyUI's
    worker thread dies of it, and so does ours.
    """
    keys: dict[str, str] = {}
    for node_id in prompt:
        _key(node_id, prompt, classes, folders, keys, ())
    return keys


def _key(
    node_id: str,
    prompt: Prompt,
    classes: dict[str, NodeSpec],
    folders: Folders,
    keys: dict[str, str],
    path: tuple[str, ...],
) -> str:
    if node_id in keys:
        return keys[node_id]
    if node_id not in prompt or node_id in path:
        return f"unknown {next(_never_equal)}"
    node = prompt[node_id]
    spec, inputs = classes[node["class_type"]], node["inputs"]
    parts = [spec.name, _fingerprint(spec, folders, inputs)]
    if "unique_id" in spec.hidden:
        parts.append(node_id)
    for name in sorted(inputs):
        value = inputs[name]
        if is_link(value):
            source = _key(value[0], prompt, classes, folders, keys, (*path, node_id))
            parts.append(f"{name} <- {source} {value[1]}")
        else:
            parts.append(f"{name} = {value!r}")
    keys[node_id] = hashlib.sha256("\n".join(parts).encode(errors="surrogatepass")).hexdigest()
    return keys[node_id]


def _fingerprint(spec: NodeSpec, folders: Folders, inputs: dict[str, Any]) -> str:
    """What may change without the inputs changing. A node that cannot tell is taken as changed."""
    if spec.fingerprint is None:
        return ""
    try:
        value = spec.fingerprint(folders, inputs)
    except (OSError, KeyError, TypeError, ValueError):
        value = float("nan")
    return f"changed {next(_never_equal)}" if value != value else str(value)  # noqa: PLR0124 - the test for nan
