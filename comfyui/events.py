"""ComfyUI's WebSocket messages as types.

`parse` understands every form from 0.3.4x (no `progress_state`) to today's. What it does not know becomes
`Unknown`: new versions and custom nodes send messages of their own, and none of them may end a run.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from comfyui.answers import parse_json

Number = int | float

#: How a `progress_state` begins, as Python writes what ComfyUI sends. Another form is read at once.
REPORT = re.compile(r'\{"type": "progress_state", "data": \{"prompt_id": "([^"\\]{1,200})", "nodes": \{')

#: What reading a message of another form than it should have can raise.
MALFORMED = (ValueError, LookupError, TypeError, AttributeError, OverflowError, struct.error)


@dataclass(frozen=True, slots=True)
class Event:
    """A message about one prompt. `prompt_id` is None where ComfyUI leaves it out."""

    prompt_id: str | None


@dataclass(frozen=True, slots=True)
class PromptStarted(Event):
    """The worker took the prompt from the queue."""


@dataclass(frozen=True, slots=True)
class NodesCached(Event):
    """These nodes are not executed: their results are still known."""

    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NodeStarted(Event):
    """A node begins. `display_node` is the workflow's node that an expanded node belongs to."""

    node: str
    display_node: str


@dataclass(frozen=True, slots=True)
class NodeAdvanced(Event):
    """A node's progress bar moved; some nodes begin at 0 and never reach `max`."""

    node: str
    value: Number
    max: Number


@dataclass(frozen=True, slots=True)
class NodeState:
    """One node in `progress_state`."""

    display_node: str
    value: Number
    max: Number
    finished: bool


@dataclass(frozen=True, slots=True)
class NodesReported(Event):
    """`progress_state`: every node that has begun so far. Absent before 0.3.45. `nodes` may be read only when it is
    looked at: each message holds all that the one before it did, so that the latest one is enough."""

    nodes: Mapping[str, NodeState]


@dataclass(frozen=True, slots=True)
class NodeExecuted(Event):
    """A node gave output for people: file entries, texts, anything. Sent for cached output nodes too."""

    node: str
    display_node: str
    output: dict[str, Any]


@dataclass(frozen=True, slots=True)
class PreviewImage(Event):
    """A picture of a node at work: a sampler's preview, or a result of SaveImageWebsocket."""

    node: str | None
    media_type: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class PromptSucceeded(Event):
    """Every node is done. The history entry comes a moment later, just before PromptEnded."""


@dataclass(frozen=True, slots=True)
class PromptFailed(Event):
    """A node raised."""

    node: str
    node_class: str
    exception_type: str
    message: str
    traceback: tuple[str, ...] = field(repr=False)

    @property
    def is_blocked_output(self) -> bool:
        """An execution blocker with a message: one branch has no result, the prompt goes on and succeeds."""
        return self.exception_type == "ExecutionBlocked"


@dataclass(frozen=True, slots=True)
class PromptInterrupted(Event):
    """Somebody interrupted the prompt; `node` is the one that was running or about to start."""

    node: str


@dataclass(frozen=True, slots=True)
class PromptEnded(Event):
    """`executing` with node null: the end, whatever the result was."""


@dataclass(frozen=True, slots=True)
class QueueChanged(Event):
    """The number of prompts pending and running."""

    remaining: int


@dataclass(frozen=True, slots=True)
class Ignored(Event):
    """A known message that no run needs."""


@dataclass(frozen=True, slots=True)
class Unknown(Event):
    """A message that this module does not understand."""

    type: str


class _StatesOf(Mapping[str, NodeState]):
    """The states in a `progress_state`, read at the first look; none where they make no sense."""

    def __init__(self, message: str) -> None:
        self._message: str | None = message
        self._states: dict[str, NodeState] = {}

    def _read(self) -> dict[str, NodeState]:
        if self._message is not None:
            message, self._message = self._message, None
            with suppress(*MALFORMED):
                self._states = _parse_states(parse_json(message)["data"]["nodes"])
        return self._states

    def __getitem__(self, node: str) -> NodeState:
        return self._read()[node]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def __repr__(self) -> str:
        return repr(self._read())


def parse(message: str | bytes) -> Event:
    """Turn one WebSocket message into its event. Never raises: a malformed message is Unknown."""
    try:
        if isinstance(message, bytes):
            return _parse_binary(message)
        if report := REPORT.match(message):
            return NodesReported(report[1], _StatesOf(message))
        envelope = parse_json(message)
        return parse_data(envelope["type"], envelope.get("data") or {})
    except MALFORMED as exc:
        return Unknown(None, f"malformed ({type(exc).__name__})")


def parse_data(kind: str, data: dict[str, Any]) -> Event:
    """The event of a message that is decoded already; history entries keep some. Never raises either."""
    try:
        return _parse_data(kind, data)
    except MALFORMED as exc:
        return Unknown(None, f"malformed {kind} ({type(exc).__name__})"[:100])


def _parse_data(kind: str, data: dict[str, Any]) -> Event:
    prompt = _text(data.get("prompt_id"))
    match kind:
        case "executing":
            return _parse_executing(prompt, data)
        case "progress":
            return NodeAdvanced(prompt, str(data["node"]), _number(data["value"]), _number(data["max"]))
        case "progress_state":
            return NodesReported(prompt, _parse_states(data["nodes"]))
        case "executed":
            node = str(data["node"])
            return NodeExecuted(
                prompt, node, str(data.get("display_node") or node), _object(data.get("output"))
            )
        case "execution_start":
            return PromptStarted(prompt)
        case "execution_cached":
            return NodesCached(prompt, tuple(map(str, data.get("nodes") or ())))
        case "execution_success":
            return PromptSucceeded(prompt)
        case "execution_error":
            return _parse_error(prompt, data)
        case "execution_interrupted":
            return PromptInterrupted(prompt, str(data.get("node_id") or ""))
        case "status":
            return QueueChanged(None, int(data["status"]["exec_info"]["queue_remaining"]))
        case "feature_flags" | "logs" | "notification":
            return Ignored(None)
        case _:
            return Unknown(prompt, str(kind))


def _parse_executing(prompt: str | None, data: dict[str, Any]) -> Event:
    if data.get("node") is None:
        return PromptEnded(prompt)
    node = str(data["node"])
    return NodeStarted(prompt, node, str(data.get("display_node") or node))


def _parse_states(nodes: dict[str, Any]) -> dict[str, NodeState]:
    return {str(node): _parse_state(node, state) for node, state in nodes.items()}


def _parse_state(node: str, state: dict[str, Any]) -> NodeState:
    display_node = str(state.get("display_node_id") or node)
    return _node_state(display_node, state["value"], state["max"], state.get("state") == "finished")


@lru_cache(
    maxsize=2048, typed=True
)  # a message names every node so far, and hardly one has changed since the last
def _node_state(display_node: str, value: Any, maximum: Any, finished: bool) -> NodeState:
    return NodeState(display_node, _number(value), _number(maximum), finished)


def _parse_error(prompt: str | None, data: dict[str, Any]) -> PromptFailed:
    return PromptFailed(
        prompt,
        node=str(data.get("node_id") or ""),
        node_class=str(data.get("node_type") or ""),
        exception_type=str(data.get("exception_type") or ""),
        message=str(data.get("exception_message") or "").strip(),
        traceback=tuple(map(str, data.get("traceback") or ())),
    )


def _parse_binary(message: bytes) -> Event:
    """Four bytes of event type, then as the protocol says for that type."""
    (kind,) = struct.unpack_from(">I", message)
    match kind:
        case 1:
            (image_type,) = struct.unpack_from(">I", message, 4)
            return PreviewImage(None, None, "image/png" if image_type == 2 else "image/jpeg", message[8:])
        case 4:
            (length,) = struct.unpack_from(">I", message, 4)
            about = parse_json(message[8 : 8 + length])
            return PreviewImage(
                _text(about.get("prompt_id")),
                _text(about.get("display_node_id") or about.get("node_id")),
                _text(about.get("image_type")) or "image/jpeg",
                message[8 + length :],
            )
        case 3:
            return Ignored(None)  # a text for the editor, sent to everybody
        case _:
            return Unknown(None, f"binary {kind}")


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _object(value: Any) -> dict[str, Any]:
    """A node's output may be null; anything else but an object is a custom node's mistake, and shows nothing."""
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> Number:
    """Progress is weighed and shown, so it has to be a number that can be: custom nodes send what they like."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("not a number")
    return value
