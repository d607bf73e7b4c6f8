"""The nodes of a running prompt and the order in which they run.

Which of several independent nodes comes first is decided as in ComfyUI: output nodes and asynchronous ones, then
those one or two links before an output, then the one met first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfyui.simulator.cache import is_link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from comfyui.simulator.nodes.spec import NodeSpec


class Graph:
    """The prompt and the nodes that expansions added to it."""

    def __init__(self, prompt: dict[str, dict[str, Any]], classes: dict[str, NodeSpec]) -> None:
        self._nodes = dict(prompt)
        self._classes = classes
        self._parents: dict[str, str] = {}

    def add(self, node_id: str, node: dict[str, Any], parent: str) -> None:
        self._nodes[node_id], self._parents[node_id] = node, parent

    def __contains__(self, node_id: str) -> bool:
        return node_id in self._nodes

    def ids(self) -> list[str]:
        return list(self._nodes)

    def inputs(self, node_id: str) -> dict[str, Any]:
        inputs: dict[str, Any] = self._nodes[node_id]["inputs"]
        return inputs

    def spec(self, node_id: str) -> NodeSpec:
        return self._classes[self._nodes[node_id]["class_type"]]

    def parent(self, node_id: str) -> str | None:
        return self._parents.get(node_id)

    def root(self, node_id: str) -> str:
        """The node of the prompt that this one belongs to; clients see it as display_node."""
        while node_id in self._parents:
            node_id = self._parents[node_id]
        return node_id

    def sources(self, node_id: str) -> list[str]:
        return [value[0] for value in self.inputs(node_id).values() if is_link(value) and value[0] in self]

    def ancestors(self, node_id: str) -> set[str]:
        """The node and everything it depends on."""
        seen: set[str] = set()
        waiting = [node_id]
        while waiting:
            current = waiting.pop()
            if current not in seen:
                seen.add(current)
                waiting += self.sources(current)
        return seen

    def meta(self, node_id: str) -> dict[str, Any]:
        root = self.root(node_id)
        return {
            "node_id": node_id,
            "display_node": root,
            "parent_node": self.parent(node_id),
            "real_node_id": root,
        }


class Schedule:
    """What still has to run, and what waits for what. A cached node is not waited for."""

    def __init__(self, graph: Graph, is_cached: Callable[[str], bool], outputs: Iterable[str]) -> None:
        self._graph = graph
        self._is_cached = is_cached
        self._waits_for: dict[str, set[str]] = {}
        self._feeds: dict[str, dict[str, None]] = {}
        for node_id in outputs:
            self.add(node_id)

    def __bool__(self) -> bool:
        return bool(self._waits_for)

    def add(self, node_id: str) -> None:
        """Add a node and all it needs."""
        found: list[tuple[str, str]] = []
        stack = [node_id]
        while stack:
            current = stack.pop()
            if current in self._waits_for:
                continue
            self._waits_for[current], self._feeds[current] = set(), {}
            for source in self._graph.sources(current):
                if not self._is_cached(source):
                    stack.append(source)
                    found.append((source, current))
        for source, current in found:
            self.wait(current, source)

    def wait(self, node_id: str, source: str) -> None:
        """Let a node wait for another one."""
        if self._is_cached(source):
            return
        self.add(source)
        self._waits_for[node_id].add(source)
        self._feeds[source][node_id] = None

    def pick(self, busy: Iterable[str] = ()) -> str | None:
        """The node to run next; None if all that is left is busy or waits."""
        ready = [one for one, sources in self._waits_for.items() if not sources and one not in busy]
        for distance in (0, 1, 2):
            for node_id in ready:
                if self._leads_to_output(node_id, distance):
                    return node_id
        return ready[0] if ready else None

    def done(self, node_id: str) -> None:
        del self._waits_for[node_id]
        for other in self._feeds.pop(node_id):
            self._waits_for[other].discard(node_id)

    def _leads_to_output(self, node_id: str, distance: int) -> bool:
        if distance == 0:
            spec = self._graph.spec(node_id)
            return spec.is_output or spec.is_async
        if distance == 1:
            return any(self._graph.spec(other).is_output for other in self._feeds[node_id])
        return any(self._leads_to_output(other, 1) for other in self._feeds[node_id])
