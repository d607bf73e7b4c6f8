"""Folds the engine's events into the progress map of one task."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.tasks.record import CurrentNode, NodeProgress
from comfyui.client import HistoryEntry
from comfyui.events import (
    Event,
    NodeAdvanced,
    NodeExecuted,
    NodesCached,
    NodesReported,
    NodeStarted,
    NodeState,
    Number,
    PreviewImage,
    PromptFailed,
    PromptInterrupted,
    PromptSucceeded,
)
from comfyui.workflow import Workflow

#: How long a report of states may go unread, in seconds; times in the map are whole seconds.
REPORT_SECONDS = 0.25


@dataclass(slots=True)
class _Entry:
    """What is known of one node. `max` stays 0 until the node is reached."""

    max: Number = 0
    value: Number = 0
    start: int = 0
    last_updated: int = 0
    finished: bool = False
    ui: dict[str, list[Any]] = field(default_factory=dict)
    shown: NodeProgress | None = None  #: as it was last asked for; None once it has changed


class Progress:
    """The progress map of one attempt. Not thread-safe; one fold owns it."""

    def __init__(
        self,
        workflow: Workflow,
        *,
        clock: Callable[[], float] = time.time,
        stopwatch: Callable[[], float] = time.monotonic,
    ) -> None:
        self._workflow, self._clock, self._stopwatch = workflow, clock, stopwatch
        self._entries = {node_id: _Entry() for node_id in workflow.nodes}
        self._weights: dict[str, int] = {}
        self._current: str | None = None
        self._current_since = 0.0
        self._seconds: dict[str, float] = {}
        self._overall = 0.0
        self._reports_states = False
        #: The latest states that were reported, as long as nobody has looked, and the nodes that moved on since.
        self._report: Mapping[str, NodeState] | None = None
        self._ahead: set[str] = set()
        self._looked_at = -REPORT_SECONDS
        self.streamed: dict[str, list[bytes]] = {}
        self.expect(workflow.nodes)

    def expect(self, node_ids: Iterable[str]) -> None:
        """Only these nodes count towards the overall progress: those that will run for the valid outputs."""
        self._weights = {node_id: self._workflow.steps(node_id) for node_id in node_ids}

    def apply(self, event: Event) -> None:
        """Take one event in. Events of other kinds, and of nodes that are not in the workflow, change nothing."""
        match event:
            case NodesCached(nodes=nodes):
                for node in nodes:
                    self._finish(node)
            case NodeStarted(display_node=node):
                self._start(node)
            case NodeAdvanced(node=node, value=value, max=maximum):
                self._ahead.add(node)
                self._advance(node, value, maximum)
            case NodesReported(nodes=states):
                self._reports_states, self._report = True, states
                self._ahead.clear()
                if self._stopwatch() - self._looked_at >= REPORT_SECONDS:
                    self._take_report()
            case NodeExecuted(display_node=node, output=output):
                self._add_output(node, output)
            case PreviewImage(node=str(node), media_type="image/png", data=data) if self.streams(node):
                self._add_streamed(node, data)
            case PromptSucceeded():
                self._finish_all()
            case PromptFailed(is_blocked_output=False) | PromptInterrupted():
                self._clock_out()
            case _:
                pass

    def _take_report(self) -> None:
        """Take the latest report in. Each holds all that the one before it did, and a graph of many nodes sends so many
        that to read each of them would take longer than the nodes."""
        if self._report is None:
            return
        report, self._report = self._report, None
        self._looked_at = self._stopwatch()
        for node, state in report.items():
            if (entry := self._entries.get(node)) is None or entry.finished:
                continue
            # Expanded nodes are shown under the node that they came from, which has a state of its own.
            if node != state.display_node:
                continue
            if node not in self._ahead:
                self._advance(node, state.value, state.max)
            if state.finished:
                self._finish(node)
        self._ahead.clear()

    def missing_streams(self) -> list[str]:
        """Nodes that should have sent pictures, but not all have arrived: they exist nowhere else. Such a node's
        progress bar counts its pictures."""
        self._take_report()
        return [
            n
            for n in self._weights
            if self.streams(n) and len(self.streamed.get(n, ())) < max(self._entries[n].max, 1)
        ]

    def replace_outputs(self, history: HistoryEntry) -> None:
        """Events were missed: take the outputs from the engine's history instead. It does not say how long a node ran,
        and the time of one whose end was missed would be wrong."""
        self._take_report()
        self._seconds.clear()
        self._current = None
        for node_id, entry in self._entries.items():
            if node_id not in self.streamed:
                entry.ui, entry.shown = {}, None
        for node, output in history.outputs.items():
            self._add_output(node, output)
        if history.succeeded:
            self._finish_all()
            self._overall = self._weigh()

    def streams(self, node: str | None) -> bool:
        """SaveImageWebsocket has no other output than the pictures that it sends; samplers send only previews."""
        known = self._workflow.nodes.get(node or "")
        return known is not None and known.class_type == "SaveImageWebsocket"

    @property
    def overall(self) -> float:
        """0 to 1; never falls from one look to the next."""
        self._take_report()
        self._overall = max(self._overall, self._weigh())
        return round(self._overall, 4)

    @property
    def current_node(self) -> CurrentNode | None:
        self._take_report()
        node = self._workflow.nodes.get(self._current or "")
        if node is None:
            return None
        entry = self._entries[node.id]
        return CurrentNode(
            id=node.id, title=node.title, class_type=node.class_type, value=entry.value, max=entry.max
        )

    @property
    def node_seconds(self) -> dict[str, float]:
        """For how many seconds each node ran, those that it was expanded to included, as far as it has ended. ComfyUI
        runs one node at a time, and tells when it begins."""
        return {node: round(seconds, 3) for node, seconds in self._seconds.items()}

    def snapshot(self) -> dict[str, NodeProgress]:
        """The map as the API shows it, without results."""
        self._take_report()
        return {node_id: _shown(entry) for node_id, entry in self._entries.items()}

    def _start(self, node: str) -> None:
        if self._current not in (None, node) and not self._reports_states:
            self._finish(str(self._current))  # before 0.3.45 only the next node's start tells
        self._clock_out()
        self._current, self._current_since = node, self._stopwatch()
        if entry := self._entries.get(node):
            now = int(self._clock())
            entry.start = entry.start or now
            entry.last_updated = now
            entry.max = entry.max or 1
            entry.shown = None

    def _advance(self, node: str, value: Number, maximum: Number) -> None:
        entry = self._entries.get(node)
        if entry is None or entry.finished:
            return
        now = int(self._clock())
        value, maximum = _plain(value), _plain(maximum) or 1
        if (entry.value, entry.max) != (value, maximum):
            entry.value, entry.max = value, maximum
            entry.start = entry.start or now
            entry.last_updated = now
            entry.shown = None

    def _finish(self, node: str) -> None:
        entry = self._entries.get(node)
        if entry is None or entry.finished:
            return
        now = int(self._clock())
        entry.finished, entry.last_updated = True, now
        entry.start = entry.start or now
        entry.max = entry.max or 1
        entry.value = entry.max
        entry.shown = None

    def _finish_all(self) -> None:
        self._take_report()
        for node in self._weights:
            self._finish(node)
        self._clock_out()
        self._current = None

    def _clock_out(self) -> None:
        """The current node runs no more, or another part of it begins."""
        if self._current in self._entries:
            now = self._stopwatch()
            ran = self._seconds.get(self._current, 0.0) + now - self._current_since
            self._seconds[self._current], self._current_since = ran, now

    def _add_output(self, node: str, output: Mapping[str, Any]) -> None:
        origin = self._workflow.origin(node)
        if origin is None:
            return
        entry = self._entries[origin]
        entry.shown = None
        for key, values in output.items():
            if isinstance(values, list):
                entry.ui.setdefault(key, []).extend(map(_as_json, values))

    def _add_streamed(self, node: str, data: bytes) -> None:
        """A picture without a file: it gets a name of its own and the type "websocket"."""
        pictures = self.streamed.setdefault(node, [])
        pictures.append(data)
        name = f"websocket_{node}_{len(pictures):05}_.png"
        self._add_output(node, {"images": [{"filename": name, "subfolder": "", "type": "websocket"}]})

    def _weigh(self) -> float:
        total = sum(self._weights.values())
        if not total:
            return 0.0
        done = sum(weight * _fraction(self._entries[node]) for node, weight in self._weights.items())
        return done / total


def _fraction(entry: _Entry) -> float:
    if entry.finished:
        return 1.0
    return min(entry.value / entry.max, 1.0) if entry.max else 0.0


def _plain(number: Number) -> Number:
    """ComfyUI sends 1.0 where callers expect 1."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _shown(entry: _Entry) -> NodeProgress:
    """Most nodes are as they were: a map is asked for several times in a task's life, and a graph may be large."""
    if entry.shown is None:
        entry.shown = _to_record(entry)
    return entry.shown


def _to_record(entry: _Entry) -> NodeProgress:
    """Sort a node's output: files whatever their key, texts, and the rest unchanged."""
    images: dict[tuple[str, str, str], dict[str, Any]] = {}
    rest: dict[str, Any] = {}
    for key, values in entry.ui.items():
        for file in filter(_is_file, values):
            place = (file["filename"], str(file.get("subfolder") or ""), str(file.get("type") or "output"))
            images.setdefault(place, file)
        others = [v for v in values if not _is_file(v)]
        if others and key not in ("text", "animated"):
            rest[key] = others
    text = [v if isinstance(v, str) else str(v) for v in entry.ui.get("text", [])]
    return NodeProgress(
        max=entry.max,
        value=entry.value,
        start=entry.start,
        last_updated=entry.last_updated,
        images=list(images.values()),
        text=text or None,
        ui=rest or None,
    )


def _as_json(value: Any) -> Any:
    """Python writes NaN and Infinity into JSON, where no other reader takes them; custom nodes do send them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_as_json(inner) for inner in value]
    return {key: _as_json(inner) for key, inner in value.items()} if isinstance(value, dict) else value


def _is_file(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("filename"), str) and value["filename"] != ""
