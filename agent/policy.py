"""Which node classes may run on this server: a pure rule over the settings."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from agent.errors import NodeNotAllowed
from comfyui.workflow import Workflow


def check_policy(workflow: Workflow, *, allow: Iterable[str], deny: Iterable[str]) -> None:
    """Raise NodeNotAllowed for the first node whose class is denied, or not among those allowed if any are.

    Patterns take * and ? as wildcards; letter case counts.
    """
    if denied := denied_nodes(workflow, allow=allow, deny=deny):
        node = workflow.nodes[denied[0]]
        raise NodeNotAllowed(
            f'This server does not run nodes of class "{node.class_type}" (node "{node.id}").',
            node_id=node.id,
            node_title=node.title,
            node_class=node.class_type,
        )


def denied_nodes(workflow: Workflow, *, allow: Iterable[str], deny: Iterable[str]) -> list[str]:
    """Ids of the nodes that may not run here."""
    allowed, denied = tuple(allow), tuple(deny)
    return [
        node.id
        for node in workflow.nodes.values()
        if (allowed and not _matches(node.class_type, allowed)) or _matches(node.class_type, denied)
    ]


def _matches(class_type: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(class_type, pattern) for pattern in patterns)
