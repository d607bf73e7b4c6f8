"""The texts of a workflow and what they do: guide a sampler towards something, or away from it.

Roles flow from the inputs `positive` and `negative` of samplers and guiders back along the links, through whatever
stands between, to the nodes that hold the texts. Nothing here needs to know a node class: links and the names of
inputs say it. What /object_info knows besides (which strings are choices, which links carry pictures) is used where it
is at hand.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from comfyui.catalog import Catalog
from comfyui.workflow import Node, Workflow, is_link


class Role(Enum):
    """What an input asks for."""

    POSITIVE = "positive"  #: the picture shall show it
    NEGATIVE = "negative"  #: the picture shall not show it


#: Inputs of strings that name files.
FILE_NAME = re.compile(
    r"^(file|image|video|audio|mask|latent|upload)$|(^|_)(filename|filename_prefix|path|dir|url|base64)$"
)

#: Inputs of strings that are choices, where no catalogue tells so.
CHOICE_NAME = re.compile(
    r"^(sampler|scheduler|crop|channel|rotation|dither|container|codec|algorithm|interpolation|sampling|operation)$"
    r"|(^|_)(name|format|dtype|device|method|mode|type|preset|color|noise|quality|direction|control_after_generate)\d*$"
)

#: Types of links that carry no text, and names of inputs that such links go to.
NO_TEXT_TYPE = re.compile(
    r"IMAGE|MASK|LATENT|MODEL|CLIP|VAE|CLIP_VISION(_OUTPUT)?|CONTROL_NET|STYLE_MODEL|UPSCALE_MODEL|GLIGEN|NOISE|SAMPLER"
    r"|SIGMAS|INT|FLOAT|BOOLEAN|COMBO|AUDIO|VIDEO|SVG|PHOTOMAKER|HOOKS|LATENT_OPERATION"
)
NO_TEXT_LINK = re.compile(
    r"(\w+_)?(images?|masks?|latents?|models?|vae|noise|sigmas|audio|video|seed)|pixels|samples|latent_image|clip"
    r"|clip_vision(_output)?|control_net|sampler|width|height|steps|cfg|denoise|batch_size"
)

#: What this node is given has no effect on what it gives: it makes a conditioning empty.
FORGETS = frozenset(("ConditioningZeroOut",))

#: ComfyUI's node that joins two strings, and those that hold one.
CONCATENATE, CONCATENATED = "StringConcatenate", ("string_a", "string_b")
PRIMITIVES = ("PrimitiveString", "PrimitiveStringMultiline")

#: All strings that are joined on the way, in characters: a few concatenations of themselves would make gigabytes.
MOST_MADE = 2_000_000

#: How strongly a sampler goes from the negative to the positive; and names of numbers in nodes that hold one.
GUIDANCE = ("cfg", "cfg_conds", "cfg_cond2_negative", "guidance_scale")
NUMBERS = ("cfg", "value", "number", "float")

WORDS_OF_NAME = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")

#: Media that come as base64, by how they begin.
MEDIA = re.compile(r"(?:data:[a-z]+/[\w.+-]{1,60};base64,)?(?=iVBORw0KGg|/9j/|UklGR|R0lGOD|Qk0|AAAA)")
BASE64 = re.compile(r"[A-Za-z0-9+/]{256,}={0,2}")

#: Characters of it that are looked at, spread over its length.
SAMPLE = 4096


class TooMuchText(Exception):
    """A workflow joins its strings to more text than anybody looks at. `node_id` is the node that does."""

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        super().__init__(node_id)


@dataclass(frozen=True, slots=True)
class Text:
    """A string of a node that somebody may have written. `roles` is empty for one that reaches no sampler."""

    node_id: str
    input_name: str
    value: str
    roles: frozenset[Role]

    @property
    def is_negative(self) -> bool:
        """Whether it only ever says what the picture shall not show."""
        return self.roles == {Role.NEGATIVE}


def find_texts(workflow: Workflow, catalog: Catalog | None = None) -> Iterator[Text]:
    """Every text of the workflow, in its order; also one within a list, and what is put together of several.

    Takes a while for megabytes. Raises TooMuchText.
    """
    roles = Roles(workflow, catalog)
    yield from roles.texts()
    yield from _put_together(workflow, roles)


class Roles:
    """Which roles each input of a workflow has."""

    def __init__(self, workflow: Workflow, catalog: Catalog | None = None) -> None:
        self._nodes, self._catalog = workflow.nodes, catalog
        #: Node id -> slot of it -> roles of what comes out there; of all slots together; the last slot that has any.
        self._outputs: dict[str, dict[int, frozenset[Role]]] = defaultdict(dict)
        self._all: dict[str, frozenset[Role]] = defaultdict(frozenset)
        self._last: dict[str, int] = {}
        #: Node id -> whether it may go towards its negative; whether it holds a number below 1; the roles that its
        #: sources were told of, by its plain inputs and by those called negative.
        self._inverted: dict[str, bool] = {}
        self._below_one: dict[str, bool] = {}
        self._told: dict[str, tuple[frozenset[Role], frozenset[Role]]] = {}
        self._flow()

    def texts(self) -> Iterator[Text]:
        for node in self._nodes.values():
            for name, value in node.inputs.items():
                if self.may_be_text(node, name, value):
                    roles = self.of_input(node, name)
                    yield from (Text(node.id, name, string, roles) for string in _strings(value))

    def of_input(self, node: Node, name: str) -> frozenset[Role]:
        """What the node's input asks for. A negative one that is used as a positive one counts as both."""
        match named_role(name):
            case Role.POSITIVE:
                return frozenset((Role.POSITIVE,))
            case Role.NEGATIVE:
                return self._of_negative(node)
            case _:
                return self._all[node.id]

    def carries_text(self, source: str, slot: int, name: str) -> bool:
        """Whether the link from a node's slot to an input of this name may carry a text or what was made of one."""
        node = self._nodes[source]
        if self._catalog is not None and node.class_type in self._catalog:
            kinds = self._catalog.outputs(node.class_type)
            if slot < len(kinds) and NO_TEXT_TYPE.fullmatch(kinds[slot]):
                return False
        return NO_TEXT_LINK.fullmatch(name.rpartition(".")[2]) is None

    def _flow(self) -> None:
        """Let the roles flow back along the links until nothing changes; roles only become more, so that this ends
        also where links form a circle. A node is come back to only where it has something new to tell, which is
        twice or thrice at most: it may have a million links."""
        waiting, is_waiting = deque(self._nodes), set(self._nodes)
        while waiting:
            node = self._nodes[waiting.popleft()]
            is_waiting.discard(node.id)
            plain, negative = self._told.get(node.id, (frozenset(), frozenset()))
            self._told[node.id] = (plain | self._all[node.id], negative | self._of_negative(node))
            if node.class_type in FORGETS:
                continue
            for name, source, slot in text_links(node):
                if source not in self._nodes or not self.carries_text(source, slot, name):
                    continue
                known = self._outputs[source].get(slot, frozenset())
                if more := self.of_input(node, name) - known:
                    self._outputs[source][slot] = known | more
                    self._all[source] |= more
                    self._last[source] = max(slot, self._last.get(source, slot))
                    if source not in is_waiting and self._has_news(source):
                        waiting.append(source)
                        is_waiting.add(source)

    def _has_news(self, node_id: str) -> bool:
        plain, negative = self._told[node_id]
        return not (self._all[node_id] <= plain and self._of_negative(self._nodes[node_id]) <= negative)

    def _of_negative(self, node: Node) -> frozenset[Role]:
        """The roles of an input that is called negative.

        Nodes that pass both on (ControlNetApplyAdvanced) give the positive in a slot before the negative, so the last
        slot that leads to a sampler tells what becomes of it: whoever wires it to `positive` does not hide a text
        there. With a cfg below 1 samplers go towards the negative (at 0 they see nothing else).
        """
        roles = {Role.NEGATIVE}
        if (last := self._last.get(node.id, 0)) > 0:
            roles |= self._outputs[node.id][last]
        if self._is_inverted(node):
            roles.add(Role.POSITIVE)
        return frozenset(roles)

    def _is_inverted(self, node: Node) -> bool:
        known = self._inverted.get(node.id)
        if known is None:
            given = (node.inputs[name] for name in GUIDANCE if name in node.inputs)
            known = self._inverted[node.id] = any(map(self._may_be_below_one, given))
        return known

    def _may_be_below_one(self, value: Any) -> bool:
        if not is_link(value):
            return type(value) in (int, float) and value < 1
        return value[0] in self._nodes and self._holds_below_one(value[0])

    def _holds_below_one(self, node_id: str) -> bool:
        known = self._below_one.get(node_id)
        if known is None:
            inputs = self._nodes[node_id].inputs.items()
            given = [value for name, value in inputs if name.lower() in NUMBERS]
            known = any(type(number) in (int, float) and number < 1 for number in given)
            self._below_one[node_id] = known
        return known

    def may_be_text(self, node: Node, name: str, value: Any) -> bool:
        """Whether a constant of a node may hold text: it is no number, names no file, and is not chosen from a list."""
        last = name.rpartition(".")[2].lower()
        if is_link(value) or not isinstance(value, str | list | dict) or FILE_NAME.search(last):
            return False
        if self._catalog is None or node.class_type not in self._catalog:
            return not CHOICE_NAME.search(last)
        return self._catalog.choices(node.class_type, name) is None


def text_links(node: Node) -> Iterator[tuple[str, str, int]]:
    """The linked inputs as (input name, node id, slot)."""
    for name, value in node.inputs.items():
        if is_link(value):
            yield name, value[0], int(value[1])


def _put_together(workflow: Workflow, roles: Roles) -> Iterator[Text]:
    """What ComfyUI's own concatenation nodes make, so that no word hides in two of their inputs."""
    made: dict[str, str] = {}
    length = 0
    waiting = [node.id for node in workflow.nodes.values() if node.class_type == CONCATENATE]
    for start in waiting:
        if start in made:
            continue
        stack, entered = [start], {start}
        while stack:
            inputs = workflow.nodes[stack[-1]].inputs
            missing = [
                source
                for source in (_source_of(workflow, inputs.get(name)) for name in CONCATENATED)
                if source and source not in made and source not in entered
            ]
            if missing:
                stack.append(missing[0])
                entered.add(missing[0])
                continue
            first, second = (_string(workflow, inputs.get(name), made) for name in CONCATENATED)
            delimiter = inputs.get("delimiter")
            between = delimiter if isinstance(delimiter, str) else ""
            length += len(first) + len(between) + len(second)
            if length > MOST_MADE:  # nothing is cut off: a word could hide behind the cut
                raise TooMuchText(stack[-1])
            made[stack.pop()] = f"{first}{between}{second}"
    inner = {_source_of(workflow, workflow.nodes[n].inputs.get(name)) for n in made for name in CONCATENATED}
    for node_id, text in made.items():
        if node_id not in inner and text.strip():
            node = workflow.nodes[node_id]
            yield Text(node_id, CONCATENATED[-1], text, roles.of_input(node, CONCATENATED[-1]))


def _source_of(workflow: Workflow, value: Any) -> str | None:
    """The concatenation that an input is linked to."""
    node = workflow.nodes.get(value[0]) if is_link(value) else None
    return node.id if node is not None and node.class_type == CONCATENATE else None


def _string(workflow: Workflow, value: Any, made: dict[str, str]) -> str:
    if is_link(value):
        if value[0] in made:
            return made[value[0]]
        node = workflow.nodes.get(value[0])
        value = node.inputs.get("value") if node is not None and node.class_type in PRIMITIVES else None
    return value if isinstance(value, str) else ""


def named_role(name: str) -> Role | None:
    """The role that an input's name gives it: "negative_prompt", "text_neg", "uncond", "positivePrompt"."""
    for word in map(str.lower, WORDS_OF_NAME.findall(name[:100])):
        if word in ("neg", "uncond") or word.startswith(("negative", "unconditional")):
            return Role.NEGATIVE
        if word == "pos" or word.startswith("positive"):
            return Role.POSITIVE
    return None


def _strings(value: Any) -> Iterator[str]:
    """The strings in a value, lists and objects in it included, that are neither empty nor files."""
    waiting = [value]
    while waiting:
        match waiting.pop():
            case str() as text:
                if text.strip() and not _is_media(text):
                    yield text
            case list() as items:
                waiting.extend(reversed(items))
            case dict() as items:
                waiting.extend(reversed(items.values()))


def _is_media(text: str) -> bool:
    """Whether it is a file in base64: of its signs alone, and as mixed as only bytes are. Words are not, so that no
    prompt can pass for one."""
    if not (start := MEDIA.match(text)) or not BASE64.fullmatch(text, start.end()):
        return False
    sample = text[start.end() :: max(1, len(text) // SAMPLE)]
    capitals, digits = sum(map(str.isupper, sample)), sum(map(str.isdecimal, sample))
    return 0.2 * len(sample) < capitals and 0.05 * len(sample) < digits
