"""What `run` shall run: a graph out of a file, or a workflow that the agent has under a name; once or several times."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from agent.client import AgentRequestError, AsyncAgentClient
from agent.client.wire import WORKFLOW_NAME
from agent.commands.remote import Stop
from agent.commands.values import file_of, text_of, typed_for, typed_like
from comfyui.errors import InvalidWorkflowError
from comfyui.workflow import SEED_INPUTS, Workflow

if TYPE_CHECKING:
    from comfyui.workflow import Node

LARGEST_SEED = 2**64 - 1

#: Parameters that take a file.
FILE_TYPES = ("image", "mask", "video", "audio")


#: Seeds by node and input, as in a task's record.
Seeds = dict[str, dict[str, int]]


class Plan(Protocol):
    """Something to be run."""

    @property
    def has_seeds(self) -> bool:
        """Whether one run differs from the next."""

    def seeds_of(self, number: int) -> Seeds:
        """The seeds that the run of this number gets, but those that the agent chooses."""

    async def submit(self, client: AsyncAgentClient, number: int, task_id: str) -> str:
        """Hand in the run of this number, counted from 0; its task-id."""


def next_seed(seed: int, number: int) -> int:
    """The seed of a later run. -1 asks the agent for a random one, each time."""
    return seed if seed < 0 else (seed + number) % (LARGEST_SEED + 1)


def is_name(word: str) -> bool:
    """Whether it names a workflow of the agent; a file has a point or a slash in its name, or is `-`."""
    return WORKFLOW_NAME.fullmatch(word) is not None


@dataclass(frozen=True, slots=True)
class GraphPlan:
    """A graph, and what stands beside it in its envelope."""

    workflow: Workflow
    beside: Mapping[str, Any]

    @property
    def has_seeds(self) -> bool:
        return bool(self._seeds())

    def seeds_of(self, number: int) -> Seeds:
        return _chosen((node, name, next_seed(seed, number)) for (node, name), seed in self._seeds().items())

    async def submit(self, client: AsyncAgentClient, number: int, task_id: str) -> str:
        seeds = {place: next_seed(seed, number) for place, seed in self._seeds().items()}
        graph = self.workflow.with_inputs(seeds).graph
        return await client.submit({**self.beside, "prompt": graph}, task_id)

    def _seeds(self) -> dict[tuple[str, str], int]:
        return {
            (node.id, name): node.inputs[name]
            for node in self.workflow.nodes.values()
            for name in SEED_INPUTS
            if type(node.inputs.get(name)) is int
        }


@dataclass(frozen=True, slots=True)
class NamedPlan:
    """A named workflow with values, the seeds among its parameters, and the inputs (NODE.INPUT) that each seed sets."""

    name: str
    values: Mapping[str, Any]
    seeds: Mapping[str, int]
    places: Mapping[str, list[str]]

    @property
    def has_seeds(self) -> bool:
        return bool(self.seeds)

    def seeds_of(self, number: int) -> Seeds:
        return _chosen(
            (node, name, next_seed(seed, number))
            for parameter, seed in self.seeds.items()
            for node, _, name in (place.rpartition(".") for place in self.places[parameter])
        )

    async def submit(self, client: AsyncAgentClient, number: int, task_id: str) -> str:
        seeds = {name: next_seed(seed, number) for name, seed in self.seeds.items()}
        return await client.submit_workflow(self.name, {**self.values, **seeds}, task_id=task_id)


def plan_of_file(path: str, settings: Mapping[str, str], files: Mapping[str, str]) -> GraphPlan:
    """Read a graph and put values in. Raises Stop."""
    data = _load(path)
    is_envelope = isinstance(data, dict) and "prompt" in data and not _is_node(data["prompt"])
    graph = data["prompt"] if is_envelope else data
    beside = {name: value for name, value in data.items() if name != "prompt"} if is_envelope else {}
    try:
        workflow = Workflow.parse(graph)
    except InvalidWorkflowError as exc:
        raise Stop(f"{path}: {exc}") from None
    changes: dict[tuple[str, str], Any] = {}
    for place, value in settings.items():
        node, name = _find(workflow, place, "--set")
        changes[node.id, name] = typed_like(text_of(value), node.inputs[name])
    for place, value in files.items():
        node, name = _find(workflow, place, "--image")
        changes[node.id, name] = file_of(value)
    return GraphPlan(workflow.with_inputs(changes), beside)


async def plan_of_name(
    client: AsyncAgentClient, name: str, settings: Mapping[str, str], files: Mapping[str, str]
) -> NamedPlan:
    """Ask the agent what the workflow takes, and put values in. Raises Stop and the client's errors."""
    try:
        properties = (await client.workflow(name))["schema"]["properties"]
    except AgentRequestError as error:
        if error.code != "WorkflowNotFound":
            raise
        known = ", ".join(sorted(str(each["name"]) for each in await client.workflows())) or "none"
        raise Stop(f'The agent has no workflow "{name}". It has: {known}.') from None
    for given, option in ((settings, "--set"), (files, "--image")):
        for parameter in given:
            if parameter not in properties:
                known = ", ".join(properties) or "none"
                raise Stop(f'{option}: "{name}" has no parameter "{parameter}". It has: {known}.')
    values = {parameter: _value(value, properties[parameter]) for parameter, value in settings.items()}
    values |= {parameter: file_of(value) for parameter, value in files.items()}
    asked = {
        parameter: values.get(parameter, schema.get("default"))
        for parameter, schema in properties.items()
        if schema.get("x-type") == "seed"
    }
    seeds = {parameter: seed for parameter, seed in asked.items() if type(seed) is int}
    places = {parameter: properties[parameter].get("x-sets", []) for parameter in seeds}
    return NamedPlan(name, values, seeds, places)


def _chosen(seeds: Iterable[tuple[str, str, int]]) -> Seeds:
    """Those that are no question for a random one."""
    found: Seeds = {}
    for node, name, seed in seeds:
        if seed >= 0:
            found.setdefault(node, {})[name] = seed
    return found


def _value(value: str, schema: Mapping[str, Any]) -> Any:
    if schema.get("x-type") in FILE_TYPES and value.startswith("@") and not value.startswith("@@"):
        return file_of(value)
    return typed_for(text_of(value), schema)


def _load(path: str) -> Any:
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except OSError as exc:
        raise Stop(f"{path} cannot be read: {exc.strerror}.") from None
    except UnicodeDecodeError:
        raise Stop(f"{path} is no text, so it is no workflow.") from None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise Stop(f"{path} is no JSON: {exc}.") from None


def _is_node(value: Any) -> bool:
    """A node may be called "prompt"."""
    return isinstance(value, dict) and "class_type" in value


def _find(workflow: Workflow, place: str, option: str) -> tuple[Node, str]:
    """The node and its input that `NODE.INPUT` names. Node ids may have points in them. Raises Stop."""
    node_id, point, name = place.rpartition(".")
    if not point:
        raise Stop(f'{option} "{place}": in a file, inputs are named NODE.INPUT, such as 3.seed.')
    node = workflow.nodes.get(node_id)
    if node is None:
        known = ", ".join(f"{node.id} ({node.title})" for node in workflow.nodes.values())
        raise Stop(f'{option}: the workflow has no node "{node_id}". It has: {known}.')
    if name not in node.inputs:
        known = ", ".join(node.inputs) or "none"
        raise Stop(f'{option}: node {node_id} ({node.title}) has no input "{name}". It has: {known}.')
    return node, name
