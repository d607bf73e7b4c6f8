"""Random seeds: `seed: -1` asks for one, and the task's record tells which it was."""

from __future__ import annotations

import secrets

from comfyui.catalog import Catalog
from comfyui.workflow import SEED_INPUTS, Workflow

#: Every JSON reader holds these exactly; larger seeds of a caller pass through unchanged all the same.
LARGEST_SEED = 2**53 - 1


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
