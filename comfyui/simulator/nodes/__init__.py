"""The node classes the simulator knows."""

from __future__ import annotations

from comfyui.simulator.nodes import (
    batches,
    composing,
    conditioning,
    filters,
    images,
    lab,
    latents,
    loaders,
    masks,
    media,
    patterns,
    sampling,
    saving,
    scaling,
    text,
)
from comfyui.simulator.nodes.spec import NodeSpec

STOCK = (
    images,
    scaling,
    filters,
    batches,
    composing,
    masks,
    text,
    patterns,
    loaders,
    conditioning,
    latents,
    sampling,
    saving,
    media,
)


def node_classes(*, with_lab: bool) -> dict[str, NodeSpec]:
    """Every node class by name; the lab nodes only on request."""
    modules = (*STOCK, lab) if with_lab else STOCK
    return {name: spec for module in modules for name, spec in module.registry.specs.items()}
