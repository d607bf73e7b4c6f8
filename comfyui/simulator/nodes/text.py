"""Strings, numbers and what shows them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from comfyui.simulator.nodes.spec import (
    Input,
    Output,
    Registry,
    choice,
    flag,
    integer,
    number,
    string,
)

if TYPE_CHECKING:
    from collections.abc import Callable

registry = Registry("comfy_extras.nodes_string")
node = registry.node

STRING: dict[str, Any] = {"category": "utils/string", "is_v3": True}
PRIMITIVE: dict[str, Any] = {
    "category": "utils/primitive",
    "is_v3": True,
    "module": "comfy_extras.nodes_primitive",
}
WHOLE = {"min": -9223372036854775807, "max": 9223372036854775807}
TEXT = string("string", multiline=True)


@node("PrimitiveString", string("value", multiline=False), outputs="STRING", title="String", **PRIMITIVE)
@node(
    "PrimitiveStringMultiline",
    string("value", multiline=True),
    outputs="STRING",
    title="String (Multiline)",
    **PRIMITIVE,
)
@node(
    "PrimitiveInt",
    integer("value", **WHOLE, control_after_generate=True),
    outputs="INT",
    title="Int",
    **PRIMITIVE,
)
@node("PrimitiveFloat", number("value", **WHOLE), outputs="FLOAT", title="Float", **PRIMITIVE)
@node("PrimitiveBoolean", flag("value"), outputs="BOOLEAN", title="Boolean", **PRIMITIVE)
def primitive(value: Any) -> tuple[Any]:
    return (value,)


@node(
    "StringConcatenate",
    string("string_a", multiline=True),
    string("string_b", multiline=True),
    string("delimiter", "", multiline=False),
    outputs="STRING",
    title="Concatenate",
    **STRING,
)
def concatenate(string_a: str, string_b: str, delimiter: str) -> tuple[str]:
    return (delimiter.join((string_a, string_b)),)


@node(
    "StringSubstring", TEXT, integer("start"), integer("end"), outputs="STRING", title="Substring", **STRING
)
def substring(string: str, start: int, end: int) -> tuple[str]:
    return (string[start:end],)


@node("StringLength", TEXT, outputs="INT", names=("length",), title="Length", **STRING)
def length(string: str) -> tuple[int]:
    return (len(string),)


CASES: dict[str, Callable[[str], str]] = {
    "UPPERCASE": str.upper,
    "lowercase": str.lower,
    "Capitalize": str.capitalize,
    "Title Case": str.title,
}


@node("CaseConverter", TEXT, choice("mode", tuple(CASES)), outputs="STRING", title="Case Converter", **STRING)
def convert_case(string: str, mode: str) -> tuple[str]:
    return (CASES.get(mode, str)(string),)


TRIMS: dict[str, Callable[[str], str]] = {"Both": str.strip, "Left": str.lstrip, "Right": str.rstrip}


@node("StringTrim", TEXT, choice("mode", tuple(TRIMS)), outputs="STRING", title="Trim", **STRING)
def trim(string: str, mode: str) -> tuple[str]:
    return (TRIMS.get(mode, str)(string),)


@node(
    "StringReplace",
    TEXT,
    string("find", multiline=True),
    string("replace", multiline=True),
    outputs="STRING",
    title="Replace",
    **STRING,
)
def replace(string: str, find: str, replace: str) -> tuple[str]:
    return (string.replace(find, replace),)


@node(
    "StringContains",
    TEXT,
    string("substring", multiline=True),
    flag("case_sensitive", default=True),
    outputs="BOOLEAN",
    names=("contains",),
    title="Contains",
    **STRING,
)
def contains(string: str, substring: str, case_sensitive: bool) -> tuple[bool]:
    return (substring in string if case_sensitive else substring.lower() in string.lower(),)


@node(
    "StringCompare",
    string("string_a", multiline=True),
    string("string_b", multiline=True),
    choice("mode", ("Starts With", "Ends With", "Equal")),
    flag("case_sensitive", default=True),
    outputs="BOOLEAN",
    title="Compare",
    **STRING,
)
def compare(string_a: str, string_b: str, mode: str, case_sensitive: bool) -> tuple[bool]:
    left, right = (string_a, string_b) if case_sensitive else (string_a.lower(), string_b.lower())
    match mode:
        case "Equal":
            return (left == right,)
        case "Starts With":
            return (left.startswith(right),)
        case _:
            return (left.endswith(right),)


@node(
    "PreviewAny",
    Input("source", "*", shows_options=True),
    category="utils",
    title="Preview Any",
    module="comfy_extras.nodes_preview_any",
    is_output=True,
)
def preview_any(source: Any = None) -> Output:
    """Numbers and strings as they are, other things as JSON if they have one, else as Python prints them."""
    if isinstance(source, str):
        return Output(ui={"text": [source]})
    if source is None or isinstance(source, int | float):
        return Output(ui={"text": [str(source) if source is not None else "None"]})
    try:
        text = json.dumps(source)
    except (TypeError, ValueError):
        text = str(source)
    return Output(ui={"text": [text]})
