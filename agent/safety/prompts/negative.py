"""Adds the operator's terms to the negative texts of a workflow: at their source, once, and only what they lack."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agent.safety.prompts.fold import fold
from agent.safety.prompts.spellings import WEIGHT, words_of
from agent.safety.prompts.texts import CONCATENATE, FORGETS, Role, Roles, named_role, text_links
from comfyui.catalog import Catalog
from comfyui.workflow import Node, Workflow, is_link

COMMAS = re.compile(r"[,，、;\n]")

#: Inputs of strings that stand between texts; nothing is added to them.
BETWEEN = frozenset(("delimiter", "separator", "find", "replace", "substring"))

#: Inputs that are looked at to find the texts behind encoders, so often as they are: a few hundred nodes that are all
#: linked to each other have a million ways through them.
MOST_LOOKS = 200_000

ONLY_NEGATIVE = frozenset((Role.NEGATIVE,))


@dataclass(frozen=True, slots=True)
class Addition:
    """What was done for one negative text. Without `terms` nothing was: `is_shared`, it is part of a positive too;
    else its links are too many to be followed."""

    node_id: str
    input_name: str
    terms: tuple[str, ...] = ()
    is_shared: bool = False


@dataclass(frozen=True, slots=True)
class _Field:
    """A negative text: the constant that can be changed, and all texts that it is made of."""

    node: Node
    input_name: str
    texts: tuple[str, ...]


def add_negative(
    workflow: Workflow, terms: Sequence[str], catalog: Catalog | None = None, *, most: int
) -> tuple[Workflow, list[Addition]]:
    """The workflow with these terms in each negative text of a sampler, and what was added where. Of texts of more than
    `most` characters together is not asked what they hold already."""
    roles = Roles(workflow, catalog)
    held: dict[str, set[str]] = {}
    changes: dict[tuple[str, str], str] = {}
    additions: dict[tuple[str, str], Addition] = {}
    for field in _fields(workflow, roles, _Upstream(workflow, roles)):
        if isinstance(field, Addition):
            additions[field.node_id, field.input_name] = field
            continue
        place = (field.node.id, field.input_name)
        if place in additions:
            continue
        for text in field.texts:
            if text not in held and (most := most - len(text)) >= 0:
                held[text] = {_key(term) for term in COMMAS.split(text)}
        known = [held.get(text, ()) for text in field.texts]
        missing = tuple(term for term in terms if not any(_key(term) in keys for keys in known))
        if not missing:
            continue
        if roles.of_input(field.node, field.input_name) != ONLY_NEGATIVE:
            additions[place] = Addition(*place, is_shared=True)
            continue
        written = str(field.node.inputs[field.input_name]).rstrip(" ,，\t\n")
        changes[place] = ", ".join(filter(None, (written, *missing)))
        additions[place] = Addition(*place, missing)
    return (workflow.with_inputs(changes) if changes else workflow), list(additions.values())


def split_terms(text: str) -> list[str]:
    """The terms between commas, each once."""
    found: dict[str, str] = {}
    for term in COMMAS.split(text):
        if key := _key(term):
            found.setdefault(key, term.strip())
    return list(found.values())


def _key(term: str) -> str:
    """What a term is compared by: "(Watermark:1.2)" is a watermark."""
    return words_of(WEIGHT.sub("", fold(term)))


def _fields(workflow: Workflow, roles: Roles, upstream: _Upstream) -> Iterator[_Field | Addition]:
    for node in workflow.nodes.values():
        for name, value in node.inputs.items():
            if (
                named_role(name) is Role.NEGATIVE
                and not is_link(value)
                and roles.may_be_text(node, name, value)
            ):
                yield from _own(node, [name])
    waiting = [
        source
        for node in workflow.nodes.values()
        for name, source, slot in text_links(node)
        if named_role(name) is Role.NEGATIVE
        and roles.of_input(node, name) == ONLY_NEGATIVE
        and roles.carries_text(source, slot, name)
    ]
    seen: set[str] = set()
    while waiting:
        node_id = waiting.pop()
        if node_id in seen or node_id not in workflow.nodes:
            continue
        seen.add(node_id)
        node = workflow.nodes[node_id]
        if node.class_type in FORGETS:
            continue
        if own := _own_texts(node, roles):
            yield from _own(node, own[-1:] if node.class_type == CONCATENATE else own)
        elif any(name.startswith("clip") for name, _ in node.links()):
            yield from _linked(roles, upstream, node)
        else:
            # A node that passes both on (ControlNetApplyAdvanced) is asked only for what it got as negative.
            links = [link for link in text_links(node) if roles.carries_text(link[1], link[2], link[0])]
            waiting += [source for name, source, _ in links if named_role(name) is not Role.POSITIVE]


def _own_texts(node: Node, roles: Roles) -> list[str]:
    """Names of the inputs in which the node itself holds text."""
    return [
        name
        for name, value in node.inputs.items()
        if isinstance(value, str)
        and name not in BETWEEN
        and named_role(name) is not Role.POSITIVE
        and roles.may_be_text(node, name, value)
    ]


def _own(node: Node, names: list[str]) -> Iterator[_Field]:
    for name in names:
        if isinstance(text := node.inputs[name], str):
            yield _Field(node, name, (text,))


def _linked(roles: Roles, upstream: _Upstream, encoder: Node) -> Iterator[_Field | Addition]:
    """For each text that is linked to an encoder, the last of the constants that it is made of."""
    for name, source, slot in text_links(encoder):
        if source in upstream.followed or not roles.carries_text(source, slot, name):
            continue
        texts = upstream.follow(source)
        if texts is None:
            yield Addition(encoder.id, name)
            return
        if texts:
            node, last = texts[-1]
            yield _Field(node, last, tuple(str(n.inputs[given]) for n, given in texts))


class _Upstream:
    """Finds the texts behind links. `followed`: the nodes whose texts were asked for."""

    def __init__(self, workflow: Workflow, roles: Roles) -> None:
        self._nodes, self._roles = workflow.nodes, roles
        self._left = MOST_LOOKS
        self.followed: set[str] = set()

    def follow(self, start: str) -> list[tuple[Node, str]] | None:
        """The constant texts of a node and of those before it, in the order of their inputs; None where too much has
        been looked at."""
        self.followed.add(start)
        found: list[tuple[Node, str]] = []
        waiting: list[tuple[str, str | None]] = [(start, None)]
        seen: set[tuple[str, str | None]] = set()
        while waiting:
            node_id, own = waiting.pop()
            if (node_id, own) in seen or node_id not in self._nodes:
                continue
            seen.add((node_id, own))
            node = self._nodes[node_id]
            if own is not None:
                found.append((node, own))
                continue
            self._left -= 1 + len(node.inputs)
            if self._left < 0:
                return None
            waiting.extend(reversed(list(self._steps(node))))
        return found

    def _steps(self, node: Node) -> Iterator[tuple[str, str | None]]:
        """What the node is given: a text of its own, or another node."""
        texts = set(_own_texts(node, self._roles))
        for name, value in node.inputs.items():
            if name in texts:
                yield node.id, name
            elif is_link(value) and self._roles.carries_text(value[0], int(value[1]), name):
                yield value[0], None
