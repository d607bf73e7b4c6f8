"""Calls a node's function: collects its inputs, runs it once per list element, merges what it gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from comfyui.simulator.cache import is_link
from comfyui.simulator.nodes.job import Interrupted, Job
from comfyui.simulator.nodes.spec import Blocker, Later, NodeSpec, Output

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL import Image

    from comfyui.simulator.cache import Cache
    from comfyui.simulator.executor import Execution
    from comfyui.simulator.graph import Graph


@dataclass
class Call:
    """What calling a node gave: values per slot, `ui`, time still to wait, nodes it expands into."""

    outputs: list[list[Any]]
    ui: dict[str, list[Any]] = field(default_factory=dict)
    due_in: float | None = None
    expansion: dict[str, dict[str, Any]] = field(default_factory=dict)

    def sources(self) -> list[str]:
        """The added nodes that the values are taken from."""
        return [value[0] for values in self.outputs for value in values if self._is_inner(value)]

    def resolve(self, value_of: Callable[[str, int], list[Any]]) -> None:
        """Put the values of the added nodes where links to them stand."""
        self.outputs = [
            [got for value in values for got in (value_of(*value) if self._is_inner(value) else [value])]
            for values in self.outputs
        ]

    def _is_inner(self, value: Any) -> bool:
        return is_link(value) and value[0] in self.expansion


def gather_inputs(graph: Graph, node_id: str, cache: Cache) -> dict[str, list[Any]]:
    """The values of every input as lists; an input that the class does not know is left out."""
    spec, given = graph.spec(node_id), graph.inputs(node_id)
    inputs: dict[str, list[Any]] = {}
    for item in spec.inputs:
        if item.name not in given:
            continue
        value = given[item.name]
        if is_link(value) and value[0] in graph:
            entry = cache.get(value[0])
            inputs[item.name] = entry.outputs[int(value[1])] if entry else [None]
        else:
            inputs[item.name] = [value]
    return inputs


def run_node(execution: Execution, node_id: str, inputs: dict[str, list[Any]]) -> Call:
    """Call the function as often as the longest list among the inputs is long."""
    spec = execution.graph.spec(node_id)
    job = _job(execution, node_id)
    arguments = dict(inputs)
    _show_hidden(spec, job, inputs)
    if spec.takes_lists:
        blockers = [value for values in inputs.values() for value in values if isinstance(value, Blocker)]
        results = [_once(execution, spec, job, arguments, blockers)]
    else:
        rounds = max((len(values) for values in arguments.values()), default=1)
        results = []
        for index in range(rounds):
            one = {name: values[min(index, len(values) - 1)] for name, values in arguments.items()}
            blockers = [value for value in one.values() if isinstance(value, Blocker)]
            results.append(_once(execution, spec, job, one, blockers))
    job.sleep(execution.engine.options.seconds_of(spec.name))
    return _merged(spec, node_id, results)


def _job(execution: Execution, node_id: str) -> Job:
    engine, graph = execution.engine, execution.graph
    return Job(
        node_id=node_id,
        prompt=execution.prompt,
        extra_data=execution.extra_data,
        options=engine.options,
        folders=engine.folders,
        faults=engine.faults,
        reporter=NodeReporter(execution, node_id),
        temp_letters=engine.cache.letters(node_id, graph.spec(node_id).name),
        is_stand_in=lambda: any(graph.spec(one).is_stand_in for one in graph.ancestors(node_id)),
    )


@dataclass(frozen=True)
class NodeReporter:
    """Carries a node's progress and text to the clients."""

    execution: Execution
    node_id: str

    def update(self, value: float, maximum: float, picture: Image.Image | None, kind: str) -> None:
        if self.execution.engine.take_interrupt():
            raise Interrupted
        self.execution.engine.trouble.at_step(self.node_id, value)
        self.execution.progress.update(self.node_id, value, maximum, picture, kind)

    def text(self, text: str) -> None:
        self.execution.engine.sockets.send_text(self.node_id, text)


def _show_hidden(spec: NodeSpec, job: Job, inputs: dict[str, list[Any]]) -> None:
    """Hidden inputs of old-style nodes are listed in error reports."""
    if spec.is_v3:
        return
    values = {
        "prompt": job.prompt,
        "extra_pnginfo": job.extra_data.get("extra_pnginfo"),
        "unique_id": job.node_id,
    }
    inputs |= {name: [values[name]] for name in spec.hidden}


def _once(
    execution: Execution, spec: NodeSpec, job: Job, arguments: dict[str, Any], blockers: list[Blocker]
) -> Output:
    if blockers:
        message = blockers[0].message
        if message is not None:
            execution.blocked(job.node_id, message)
        return Output((Blocker(None),) * len(spec.outputs))
    result = spec.run(**arguments, **({"job": job} if spec.wants_job else {}))
    if isinstance(result, Later):
        return Output((result,))
    return result if isinstance(result, Output) else Output(result)


def _merged(spec: NodeSpec, node_id: str, results: list[Output]) -> Call:
    due_in = None
    for at, result in enumerate(results):
        if result.values and isinstance(result.values[0], Later):
            later = result.values[0]
            due_in = max(due_in or 0.0, later.seconds)
            results[at] = Output(later.result)
    call = Call([[] for _ in spec.outputs], due_in=due_in)
    for round_, result in enumerate(results):
        prefix = f"{node_id}.0.{round_}."
        _add_expansion(call, result, prefix)
        for slot in range(len(spec.outputs)):
            value: Any = result.values[slot] if slot < len(result.values) else None
            is_list = bool(spec.lists) and spec.lists[slot] and not isinstance(value, Blocker)
            call.outputs[slot].extend(value if is_list else [_renamed(value, result, prefix)])
        for key, entries in (result.ui or {}).items():
            call.ui.setdefault(key, []).extend(entries)
    return call


def _add_expansion(call: Call, result: Output, prefix: str) -> None:
    for name, node in (result.expand or {}).items():
        inputs = {key: _renamed(value, result, prefix) for key, value in node["inputs"].items()}
        call.expansion[prefix + name] = node | {"inputs": inputs}


def _renamed(value: Any, result: Output, prefix: str) -> Any:
    """A link to an added node, under that node's full id."""
    if result.expand and is_link(value) and value[0] in result.expand:
        return [prefix + value[0], value[1]]
    return value
