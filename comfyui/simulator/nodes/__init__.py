"""The node classes the simulator knows."""

from __future__ import annotations

from comfyui.simulator.nodes import composing, images, lab, loaders, masks, media, sampling, saving, text
from comfyui.simulator.nodes.spec import NodeSpec

STOCK = (images, composing, masks, text, loaders, sampling, saving, media)


def node_classes(*, with_lab: bool) -> dict[str, NodeSpec]:
    """Every node class by name; the lab nodes only on request."""
    modules = (*STOCK, lab) if with_lab else STOCK
    return {name: spec for module in modules for name, spec in module.registry.specs.items()}
