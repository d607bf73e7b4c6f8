"""Random seeds: `seed: -1` asks for one, and the task's record tells which it was."""

from __future__ import annotations

import secrets
from typing import Any

from comfyui.catalog import Catalog
from comfyui.workflow import SEED_INPUTS, Workflow, is_link

#: Every JSON reader holds these exactly; larger seeds of a caller pass through unchanged all the same.
LARGEST_SEED = 2**53 - 1


def has_seeds(workflow: Workflow) -> bool:
    """Whether another seed would make another picture."""
    return any(name in node.inputs for node in workflow.nodes.values() for name in SEED_INPUTS)


def ask_for_new_seeds(workflow: Workflow) -> Workflow:
    """The workflow with each seed asked for at random, whoever chose it. One that comes from a node without a seed of
    its own, such as a plain number, is no longer taken from there."""
    changes = {}
    for node in workflow.nodes.values():
        for name in SEED_INPUTS:
            value: Any = node.inputs.get(name)
            if is_link(value):
                source = workflow.nodes[value[0]]
                has_own = any(type(source.inputs.get(own)) is int for own in SEED_INPUTS)
                if not has_own:
                    changes[node.id, name] = -1
            elif name in node.inputs:
                changes[node.id, name] = -1
    return workflow.with_inputs(changes) if changes else workflow


def replace_random_seeds(workflow: Workflow, catalog: Catalog) -> tuple[Workflow, dict[str, dict[str, int]]]:
    """Give every seed input of -1 a random number within the input's range.

    Returns the workflow to run, and the numbers as {node id: {input name: seed}}.
    """
    seeds: dict[str, dict[str, int]] = {}
    for node in workflow.nodes.values():
        for name in SEED_INPUTS:
            value = node.inputs.get(name)
            if type(value) is int and value == -1:
                low, high = catalog.number_range(node.class_type, name) or (0, LARGEST_SEED)
                low, high = max(low, 0), min(high, LARGEST_SEED)
                seeds.setdefault(node.id, {})[name] = low + secrets.randbelow(max(high - low, 0) + 1)
    changes = {(node_id, name): seed for node_id, found in seeds.items() for name, seed in found.items()}
    return (workflow.with_inputs(changes) if changes else workflow), seeds
