"""What a node class declares, and how /object_info shows it.

The names, types, defaults and texts of the stock nodes are ComfyUI's public interface; they follow the recorded
/object_info of 0.3.64 (tests/golden/comfyui/object_info.json), where a test compares them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from comfyui.simulator.folders import Folders

Choices = tuple[str, ...] | Callable[["Folders"], list[str]]
Checker = Callable[["Folders", Any], str | bool]


@dataclass(frozen=True)
class Input:
    """One input of a node. `kind` is the type's name; a choice has `choices` as well."""

    name: str
    kind: str
    options: dict[str, Any] = field(default_factory=dict)
    choices: Choices | None = None
    is_optional: bool = False
    shows_options: bool = False  #: /object_info shows the options even if there are none

    def options_in(self, folders: Folders) -> list[str]:
        """The list to choose from, read anew at each call because files come and go."""
        if callable(self.choices):
            return self.choices(folders)
        return list(self.choices or ())


@dataclass(frozen=True)
class NodeSpec:
    """One node class. `run` gets the inputs by name, and a `job` too if it has a parameter of that name."""

    name: str
    run: Callable[..., Any]
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    output_names: tuple[str, ...]
    category: str
    title: str | None
    module: str = "nodes"
    description: str = ""
    is_output: bool = False
    is_v3: bool = (
        False  #: declared in ComfyUI's newer schema, which /object_info and validation treat differently
    )
    is_experimental: bool = False
    is_async: bool = False
    is_stand_in: bool = False  #: its result replaces that of a model
    hidden: tuple[str, ...] = ()
    lists: tuple[bool, ...] = ()  #: which outputs are lists whose elements run one by one
    takes_lists: bool = False
    tooltips: tuple[str, ...] = ()
    check: dict[str, Checker] = field(
        default_factory=dict
    )  #: own validation of an input, instead of the common one
    fingerprint: Callable[[Folders, dict[str, Any]], Any] | None = (
        None  #: part of the cache key; nan is never equal
    )

    @property
    def wants_job(self) -> bool:
        code = self.run.__code__
        return "job" in code.co_varnames[: code.co_argcount]

    def config_of(self, item: Input, folders: Folders) -> list[Any]:
        """`[type, options]` as validation errors show it."""
        shown = self._shown(item, folders)
        return shown if len(shown) == 2 else [*shown, {}]

    def describe(self, folders: Folders) -> dict[str, Any]:
        """The entry of /object_info."""
        sections: dict[str, dict[str, Any]] = {"required": {}}
        for item in self.inputs:
            section = sections.setdefault("optional" if item.is_optional else "required", {})
            section[item.name] = self._shown(item, folders)
        if self.hidden:
            names = {name: name.upper() for name in self.hidden}
            sections["hidden"] = {k: [v] for k, v in names.items()} if self.is_v3 else dict(names)
        entry: dict[str, Any] = {
            "input": sections,
            "input_order": {key: list(section) for key, section in sections.items()},
            "output": list(self.outputs),
            "output_is_list": list(self.lists or (False,) * len(self.outputs)),
            "output_name": list(self.output_names),
            "name": self.name,
            "display_name": self.title,
            "description": self.description,
            "python_module": self.module,
            "category": self.category,
            "output_node": self.is_output,
        }
        return entry | self._extras()

    def _extras(self) -> dict[str, Any]:
        if self.is_v3:
            return {
                "output_tooltips": [None] * len(self.outputs),
                "deprecated": False,
                "experimental": self.is_experimental,
                "api_node": False,
            }
        extras: dict[str, Any] = {"output_tooltips": list(self.tooltips)} if self.tooltips else {}
        return extras | ({"experimental": True} if self.is_experimental else {})

    def _shown(self, item: Input, folders: Folders) -> list[Any]:
        options = dict(item.options)
        if item.kind == "COMBO" and item.choices is not None:
            choices = item.options_in(folders)
            if self.is_v3:
                return ["COMBO", {"multiselect": False, "options": choices} | options]
            return [choices, options] if options else [choices]
        return [item.kind, options] if options or self.is_v3 or item.shows_options else [item.kind]


def link(name: str, kind: str, **options: Any) -> Input:
    return Input(name, kind, options)


def image(name: str = "image", **options: Any) -> Input:
    return link(name, "IMAGE", **options)


def mask(name: str = "mask", **options: Any) -> Input:
    return link(name, "MASK", **options)


def integer(name: str, default: int | None = None, **options: Any) -> Input:
    return Input(name, "INT", options if default is None else {"default": default} | options)


def number(name: str, default: float | None = None, **options: Any) -> Input:
    return Input(name, "FLOAT", options if default is None else {"default": default} | options)


def string(name: str, default: str | None = None, **options: Any) -> Input:
    return Input(name, "STRING", options if default is None else {"default": default} | options)


def flag(name: str, default: bool | None = None, **options: Any) -> Input:
    return Input(name, "BOOLEAN", options if default is None else {"default": default} | options)


def choice(name: str, choices: Choices, **options: Any) -> Input:
    return Input(name, "COMBO", options, choices)


def optional(item: Input) -> Input:
    return replace(item, is_optional=True)


@dataclass(frozen=True)
class Output:
    """What a node gives when it gives more than its output values."""

    values: tuple[Any, ...] = ()
    ui: dict[str, list[Any]] | None = None
    expand: dict[str, dict[str, Any]] | None = None  #: nodes that replace this one; values may link into them


@dataclass(frozen=True)
class Blocker:
    """A value that keeps every node behind it from running; with a message, one of them reports it."""

    message: str | None


@dataclass(frozen=True)
class Later:
    """The result of an asynchronous node: the executor goes on with other nodes until it is due."""

    seconds: float
    result: Any


class Registry:
    """Collects the node classes of one module."""

    def __init__(self, module: str = "nodes") -> None:
        self.specs: dict[str, NodeSpec] = {}
        self._module = module

    def node(
        self,
        name: str,
        *inputs: Input,
        outputs: str | tuple[str, ...] = (),
        names: tuple[str, ...] = (),
        category: str = "image",
        title: str | None = "",
        **more: Any,
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Declare the decorated function as a node class. The title is the name unless the schema is V3."""
        kinds = (outputs,) if isinstance(outputs, str) else outputs
        shown_title = title if title != "" else (None if more.get("is_v3") else name)

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            settings: dict[str, Any] = {"module": self._module} | more
            self.specs[name] = NodeSpec(
                name, function, inputs, kinds, names or kinds, category, shown_title, **settings
            )
            return function

        return register
