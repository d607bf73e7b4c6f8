"""Runs one prompt, node after node, and tells what happens. Everything here happens in the worker thread."""

from __future__ import annotations

import threading
import time
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from comfyui.simulator.cache import Cache, Entry, cache_keys
from comfyui.simulator.graph import Graph, Schedule
from comfyui.simulator.mapping import Call, gather_inputs, run_node
from comfyui.simulator.nodes.job import Interrupted
from comfyui.simulator.progress import Progress
from comfyui.simulator.validation import type_name

if TYPE_CHECKING:
    from comfyui.simulator.faults import Faults
    from comfyui.simulator.folders import Folders
    from comfyui.simulator.nodes.spec import NodeSpec
    from comfyui.simulator.options import Options
    from comfyui.simulator.queue import Item
    from comfyui.simulator.sockets import Sockets
    from comfyui.simulator.trouble import Trouble


@dataclass
class Engine:
    """What outlives a prompt: settings, folders, the node cache, the interrupt flag."""

    options: Options
    folders: Folders
    faults: Faults
    classes: dict[str, NodeSpec]
    sockets: Sockets
    trouble: Trouble
    interrupted: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Drop every node result (POST /free with free_memory)."""
        keep = self.options.cache_lru or None
        self.cache = Cache(keep=keep, forget_all=self.options.cache_none)

    def take_interrupt(self) -> bool:
        """Whether POST /interrupt came since the prompt began or this was last asked."""
        came = self.interrupted.is_set()
        self.interrupted.clear()
        return came


class NodeFailedError(Exception):
    """A node ended the prompt; `cause` tells why."""

    def __init__(self, node_id: str, cause: Exception, inputs: dict[str, list[Any]]) -> None:
        super().__init__(node_id)
        self.node_id, self.cause, self.inputs = node_id, cause, inputs


class Execution:
    """One prompt from start to end."""

    def __init__(self, engine: Engine, item: Item) -> None:
        _, self.prompt_id, self.prompt, self.extra_data, self._outputs = item
        # extra_data may be null: ComfyUI's worker dies of the membership test, and so does ours.
        self.client_id = self.extra_data["client_id"] if "client_id" in self.extra_data else None  # noqa: SIM401
        self.engine = engine
        self.graph = Graph(self.prompt, engine.classes)
        self.progress = Progress(self.prompt_id, self.client_id, self.graph, engine.sockets, engine.options)
        self.messages: list[tuple[str, dict[str, Any]]] = []
        self._executed: dict[str, None] = {}
        self._waiting: dict[str, tuple[float, Call]] = {}
        self._expanded: dict[str, Call] = {}

    def run(self) -> dict[str, Any]:
        """Run to the end and return the history entry without its `prompt`."""
        engine = self.engine
        engine.interrupted.clear()
        engine.sockets.running_client = self.client_id
        self._tell("execution_start", {"prompt_id": self.prompt_id})
        keys = cache_keys(self.prompt, engine.classes, engine.folders)
        engine.cache.begin(self.prompt, keys)
        cached = [node_id for node_id in self.prompt if self._cached(node_id)]
        self._tell("execution_cached", {"nodes": cached, "prompt_id": self.prompt_id})
        engine.trouble.at_prompt()
        try:
            self._run_nodes()
        except NodeFailedError as exc:
            self._report(exc)
            succeeded = False
        else:
            self._tell("execution_success", {"prompt_id": self.prompt_id})
            succeeded = True
        engine.sockets.running_node = None
        return self._entry(succeeded=succeeded)

    def _cached(self, node_id: str) -> bool:
        return self.engine.cache.get(node_id) is not None

    def _run_nodes(self) -> None:
        schedule = Schedule(self.graph, self._cached, self._outputs)
        while schedule:
            node_id = schedule.pick(self._waiting)
            if node_id is None:
                node_id = self._await_next()
            if self._run_node(node_id, schedule):
                schedule.done(node_id)

    def _await_next(self) -> str:
        """Sleep until the first of the asynchronous nodes is due."""
        node_id = min(self._waiting, key=lambda one: self._waiting[one][0])
        time.sleep(max(0.0, self._waiting[node_id][0] - time.monotonic()))
        return node_id

    def _run_node(self, node_id: str, schedule: Schedule) -> bool:
        """Run a node as far as it goes; False if it waits for time or for nodes it expanded into."""
        entry = self.engine.cache.get(node_id)
        if entry:
            self._repeat(node_id, entry)
            return True
        if node_id in self._waiting:
            call = self._waiting.pop(node_id)[1]
        elif node_id in self._expanded:
            call = self._expanded.pop(node_id)
            call.resolve(self._value_of)
        else:
            call = self._call(node_id)
            if call.due_in is not None:
                self._waiting[node_id] = (time.monotonic() + call.due_in, call)
                return False
            self._store_ui(node_id, call)
            if call.expansion:
                self._expand(node_id, call, schedule)
                return False
        self._keep(node_id, call)
        return True

    def _repeat(self, node_id: str, entry: Entry) -> None:
        """A cached node that was asked for: its `ui` is sent again."""
        if entry.ui is not None:
            self.progress.executed(node_id, entry.ui)
        self.progress.finish(node_id)

    def _call(self, node_id: str) -> Call:
        inputs: dict[str, list[Any]] = {}
        # Looked at before the node is announced, so that an interrupt sent on the announcement comes too late.
        is_interrupted = self.engine.take_interrupt()
        try:
            self.progress.start(node_id)
            inputs = gather_inputs(self.graph, node_id, self.engine.cache)
            if is_interrupted:
                raise Interrupted  # noqa: TRY301 - reported like any end of a node
            self.engine.trouble.at_node(node_id)
            return run_node(self, node_id, inputs)
        except Exception as exc:
            raise NodeFailedError(node_id, exc, inputs) from exc

    def _store_ui(self, node_id: str, call: Call) -> None:
        if call.ui:
            self.progress.executed(node_id, call.ui)

    def _keep(self, node_id: str, call: Call) -> None:
        meta = self.graph.meta(node_id) if call.ui else None
        self.engine.cache.put(node_id, Entry(call.outputs, call.ui or None, meta))
        self.progress.finish(node_id)
        self._executed[node_id] = None

    def _expand(self, node_id: str, call: Call, schedule: Schedule) -> None:
        """Add the nodes; this one is finished when those it takes its values from are."""
        self._expanded[node_id] = call
        for new_id, node in call.expansion.items():
            self.graph.add(new_id, node, node_id)
        for new_id in call.expansion:
            if self.graph.spec(new_id).is_output:
                schedule.add(new_id)
        for source in call.sources():
            schedule.wait(node_id, source)

    def _value_of(self, node_id: str, slot: int) -> list[Any]:
        entry = self.engine.cache.get(node_id)
        return entry.outputs[slot] if entry else [None]

    def blocked(self, node_id: str, message: str) -> None:
        """Report a node that does not run because something before it blocks; the prompt goes on."""
        data = self._place(node_id) | {
            "executed": list(self._executed),
            "exception_message": f"Execution Blocked: {message}",
            "exception_type": "ExecutionBlocked",
            "traceback": [],
            "current_inputs": [],
            "current_outputs": [],
        }
        self.engine.sockets.send("execution_error", data, self.client_id)

    def _report(self, failure: NodeFailedError) -> None:
        data = self._place(failure.node_id) | {"executed": list(self._executed)}
        if isinstance(failure.cause, Interrupted):
            self._tell("execution_interrupted", data, to_all=True)
            return
        cause = failure.cause
        details = {
            "exception_message": f"{cause}\n",
            "exception_type": type_name(cause),
            "traceback": traceback.format_tb(cause.__traceback__),
            "current_inputs": {
                name: [_shown(one) for one in values] for name, values in failure.inputs.items()
            },
            "current_outputs": self.graph.ids(),
        }
        self._tell("execution_error", data | details)

    def _place(self, node_id: str) -> dict[str, Any]:
        return {"prompt_id": self.prompt_id, "node_id": node_id, "node_type": self.graph.spec(node_id).name}

    def _tell(self, event: str, data: dict[str, Any], *, to_all: bool = False) -> None:
        """Note a message of the prompt for the history and send it; without a client only some go out."""
        stamped = data | {"timestamp": int(time.time() * 1000)}
        self.messages.append((event, stamped))
        if self.client_id is not None or to_all:
            self.engine.sockets.send(event, stamped, self.client_id)

    def _entry(self, *, succeeded: bool) -> dict[str, Any]:
        outputs, meta = {}, {}
        for node_id in self.graph.ids():
            entry = self.engine.cache.get(node_id)
            if entry and entry.ui is not None:
                outputs[node_id], meta[node_id] = entry.ui, entry.meta
        status = {
            "status_str": "success" if succeeded else "error",
            "completed": succeeded,
            "messages": [list(message) for message in self.messages],
        }
        return {"outputs": outputs, "status": status, "meta": meta}


def _shown(value: Any) -> Any:
    return value if value is None or isinstance(value, int | float | bool | str) else str(value)
