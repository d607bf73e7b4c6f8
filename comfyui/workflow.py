"""The caller's graph in ComfyUI's API format: parse it, check its shape, walk it, change single inputs."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Any

from comfyui.errors import InvalidWorkflowError

SEED_INPUTS = ("seed", "noise_seed")
#: So many nodes of a circle are named in its error.
LONGEST_CIRCLE = 12

#: Titles are shown in records and errors; a longer one is cut.
LONGEST_TITLE = 200

#: Node ids and classes are keys and names; nothing real comes near this.
LONGEST_NAME = 256

#: Texts of more characters than any prompt has count in the digest by their SHA-256.
LONGEST_WRITTEN = 64 * 1024

#: Characters.
HASHED_AT_ONCE = 256 * 1024

EXPORT_HINT = 'In ComfyUI choose "Workflow > Export (API)" and send that file.'


@dataclass(frozen=True, slots=True)
class Node:
    """One node. `inputs` maps a name to a constant or to a link `[node id, slot]`."""

    id: str
    class_type: str
    inputs: Mapping[str, Any]
    title: str

    def links(self) -> Iterator[tuple[str, str]]:
        """The linked inputs as (input name, id of the node it comes from)."""
        for name, value in self.inputs.items():
            if is_link(value):
                yield name, value[0]

    @property
    def is_sampler(self) -> bool:
        return "sampler" in self.class_type.lower()


def is_link(value: Any) -> bool:
    """Whether ComfyUI reads this input value as a link to another node's output."""
    # ComfyUI takes a fraction or a boolean for a slot as well (comfy_execution/graph_utils.py). It has to be a link
    # here too: one to a missing node, at a node that no output needs, kills ComfyUI's worker thread.
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int | float)
    )


class Workflow:
    """A workflow whose shape was checked. `graph` is what the caller sent, unknown fields and numbers included;
    it is never changed in place."""

    def __init__(self, graph: dict[str, dict[str, Any]]) -> None:
        self.graph = graph

    @classmethod
    def parse(cls, data: Any) -> Workflow:
        """Check that `data` is a graph that ComfyUI can be given.

        Beyond the API format this refuses what ComfyUI answers without a reason (a cycle) or accepts and then
        dies of (a node without "inputs"). Whether classes exist and values fit is ComfyUI's to say.

        Raises InvalidWorkflowError, which names node and input.
        """
        for node_id, node in _checked_nodes(data):
            _check_node(node_id, node)
        workflow = cls(data)
        workflow._check_links()
        return workflow

    @cached_property
    def nodes(self) -> dict[str, Node]:
        return {
            node_id: Node(node_id, node["class_type"], node["inputs"], _title(node))
            for node_id, node in self.graph.items()
        }

    def title(self, node_id: str) -> str:
        """The node's title in the editor, or its class; that of its origin for a node that ComfyUI made by
        expansion, and the id itself for one that is not of this workflow."""
        origin = self.origin(node_id)
        return self.nodes[origin].title if origin is not None else node_id

    def origin(self, node_id: str) -> str | None:
        """The workflow's node that an id belongs to: itself, or the node that ComfyUI expanded into "ID.0.0.1"."""
        while node_id not in self.nodes:
            node_id, dot, _ = node_id.rpartition(".")
            if not dot:
                return None
        return node_id

    def steps(self, node_id: str) -> int:
        """How much work a node is beside others: a sampler counts its steps, anything else 1.

        Custom samplers get their steps from the scheduler that they are linked to.
        """
        node = self.nodes[node_id]
        if not node.is_sampler:
            return 1
        sources = [node, *(self.nodes[source] for _, source in node.links())]
        announced = [n.inputs.get("steps") for n in sources]
        return max((s for s in announced if type(s) is int and 0 < s <= 1000), default=1)

    def upstream(self, targets: Iterator[str] | list[str]) -> set[str]:
        """The targets and every node that they depend on: what ComfyUI would execute for them."""
        found: set[str] = set()
        waiting = [node_id for node_id in targets if node_id in self.nodes]
        while waiting:
            node_id = waiting.pop()
            if node_id not in found:
                found.add(node_id)
                waiting.extend(source for _, source in self.nodes[node_id].links())
        return found

    def with_inputs(self, changes: Mapping[tuple[str, str], Any]) -> Workflow:
        """A copy in which the inputs (node id, input name) have new values. What is unchanged is shared."""
        graph = dict(self.graph)
        for (node_id, name), value in changes.items():
            node = graph[node_id]
            graph[node_id] = {**node, "inputs": {**node["inputs"], name: value}}
        return Workflow(graph)

    def digest(self, targets: list[str] | None = None) -> str:
        """SHA-256 of the graph, independent of the order of keys, and of the output nodes wanted if not all are.

        Takes a while for megabytes: use a thread.
        """
        graph = _condensed(self.graph)
        subject = graph if targets is None else [graph, sorted(targets)]
        text = json.dumps(subject, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def _check_links(self) -> None:
        for node in self.nodes.values():
            for name, source in node.links():
                if source not in self.nodes:
                    raise InvalidWorkflowError(
                        f'Input "{name}" of node {_say(node)} is linked to node "{source}", which does not exist.',
                        node_id=node.id,
                        input_name=name,
                    )
        order = TopologicalSorter({n.id: {source for _, source in n.links()} for n in self.nodes.values()})
        try:
            order.prepare()
        except CycleError as exc:
            circle: list[str] = exc.args[1]  # each one feeds the next, and the last is the first
            shown = (
                circle
                if len(circle) <= LONGEST_CIRCLE
                else [*circle[: LONGEST_CIRCLE - 1], "...", circle[-1]]
            )
            node = self.nodes[circle[1]]
            name = next(name for name, source in node.links() if source == circle[0])
            raise InvalidWorkflowError(
                f'The links of the workflow form a circle: {" -> ".join(shown)}. Input "{name}" of node {_say(node)} '
                "is a part of it.",
                node_id=node.id,
                input_name=name,
            ) from None


def _checked_nodes(data: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(data, dict):
        raise InvalidWorkflowError(f"A workflow is a JSON object, this is {_kind(data)}. {EXPORT_HINT}")
    if isinstance(data.get("nodes"), list):
        raise InvalidWorkflowError(f"This is the editor's own format, not the API format. {EXPORT_HINT}")
    if not data:
        raise InvalidWorkflowError("The workflow has no nodes.")
    yield from data.items()


def _check_node(node_id: str, node: Any) -> None:
    where = f'Node "{node_id[:LONGEST_NAME]}"'
    if len(node_id) > LONGEST_NAME:
        raise InvalidWorkflowError(f"{where}... has an id of more than {LONGEST_NAME} characters.")
    if not isinstance(node, dict):
        raise InvalidWorkflowError(
            f"{where} is {_kind(node)}, but a node is an object with class_type and inputs.", node_id=node_id
        )
    if not isinstance(node.get("class_type"), str) or not node["class_type"]:
        raise InvalidWorkflowError(f"{where} has no class_type. {EXPORT_HINT}", node_id=node_id)
    if len(node["class_type"]) > LONGEST_NAME:
        raise InvalidWorkflowError(
            f"{where} has a class_type of more than {LONGEST_NAME} characters.", node_id=node_id
        )
    if not isinstance(node.get("inputs"), dict):
        # ComfyUI accepts this where no output needs the node, and its worker thread dies of it.
        raise InvalidWorkflowError(
            f'{where} ({node["class_type"]}) has no "inputs" object; write "inputs": {{}} if it has none.',
            node_id=node_id,
        )
    for name, value in node["inputs"].items():
        if not _is_finite(value):
            raise InvalidWorkflowError(
                f'Input "{name}" of {where} holds a number that is not finite.',
                node_id=node_id,
                input_name=name,
            )
    if not _is_finite({name: value for name, value in node.items() if name != "inputs"}):
        raise InvalidWorkflowError(f"{where} holds a number that is not finite.", node_id=node_id)


def _is_finite(value: Any) -> bool:
    """Whether every number in it can be sent as JSON: 1e400 is read as infinity."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, float) and not math.isfinite(one):
            return False
        if isinstance(one, list):
            waiting.extend(one)
        elif isinstance(one, dict):
            waiting.extend(one.values())
    return True


def _title(node: dict[str, Any]) -> str:
    meta = node.get("_meta")
    title = meta.get("title") if isinstance(meta, dict) else None
    named = title if isinstance(title, str) and title else str(node["class_type"])
    return named[:LONGEST_TITLE]


def _say(node: Node) -> str:
    return f'"{node.id}" ({node.title})'


def _kind(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null" if value is None else "an object")


def _condensed(graph: Mapping[str, Any]) -> dict[str, Any]:
    """The graph with its pictures replaced by their SHA-256: to write megabytes as JSON takes longer than a hash."""
    return {node_id: {**node, "inputs": _condensed_inputs(node["inputs"])} for node_id, node in graph.items()}


def _condensed_inputs(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {"sha256": _sha256(value)} if isinstance(value, str) and len(value) > LONGEST_WRITTEN else value
        for name, value in inputs.items()
    }


def _sha256(text: str) -> str:
    """Of the text as UTF-8, piece by piece: as a whole it would be in memory once more."""
    digest = hashlib.sha256()
    for start in range(0, len(text), HASHED_AT_ONCE):
        digest.update(text[start : start + HASHED_AT_ONCE].encode(errors="surrogatepass"))
    return digest.hexdigest()
