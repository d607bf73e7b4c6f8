"""From a caller's values to a workflow that can be run."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json, to_json

from agent.errors import InvalidParameter
from agent.library.manifest import Kind, Parameter
from comfyui.workflow import Workflow

if TYPE_CHECKING:
    from agent.library.library import NamedWorkflow

#: A whole number in text; its length is bounded because Python's own parser takes its time for millions of digits.
WHOLE = re.compile(r"[+-]?[0-9]{1,30}")

WORDS_FOR_TRUTH = {
    **dict.fromkeys(("true", "1", "on", "yes"), True),
    **dict.fromkeys(("false", "0", "off", "no"), False),
}

#: So much of a wrong value is repeated in its error.
SHOWN = 40


def fill(named: NamedWorkflow, values: Mapping[str, Any]) -> Workflow:
    """The workflow with the caller's values in place, and with the manifest's defaults for those he left out.

    What neither sets stays as the graph has it. Raises InvalidParameter, which names the parameter.
    """
    parameters = named.manifest.parameters
    for name in values:
        if name not in parameters:
            known = ", ".join(parameters) or "none"
            raise InvalidParameter(
                f'This workflow has no parameter "{name[:SHOWN]}". It has: {known}.', parameter=name[:SHOWN]
            )
    changes: dict[tuple[str, str], Any] = {}
    for name, parameter in parameters.items():
        if name in values:
            value = _checked(name, parameter, values[name])
        elif parameter.is_required:
            raise InvalidParameter(f'Parameter "{name}" is needed: {_wanted(parameter)}.', parameter=name)
        elif parameter.default is not None:
            value = parameter.default
        else:
            continue
        changes.update({(place.node, place.input): value for place in parameter.places})
    return named.workflow.with_inputs(changes)


def check_value(parameter: Parameter, value: Any) -> Any:
    """The value as it goes into the graph. Raises ValueError, which says what is wanted."""
    wanted = ValueError(f"{_show(value)} is not {_wanted(parameter)}")
    match parameter.type:
        case Kind.TEXT | Kind.STRING:
            is_right = isinstance(value, str)
        case Kind.BOOLEAN:
            is_right = isinstance(value, bool)
        case Kind.INTEGER | Kind.SEED:
            value = _whole(value)
            is_right = type(value) is int and _is_within(value, parameter)
        case Kind.NUMBER:
            is_right = type(value) in (int, float) and _is_finite(value) and _is_within(value, parameter)
        case Kind.CHOICE:
            # 1 and True are equal to Python, and to nobody else.
            is_right = type(value) in (str, int, float) and value in parameter.options
        case _:
            is_right = isinstance(value, str) and value.strip() != ""
    if not is_right:
        raise wanted
    return value


def from_text(parameter: Parameter, text: str) -> Any:
    """The value that a form's field or a command line means. What makes no sense stays text, and is refused later."""
    match parameter.type:
        case Kind.INTEGER | Kind.SEED if WHOLE.fullmatch(text.strip()):
            return int(text)
        case Kind.INTEGER | Kind.SEED | Kind.NUMBER:
            try:
                return from_json(text.strip(), allow_inf_nan=False)
            except ValueError:
                return text
        case Kind.BOOLEAN:
            return WORDS_FOR_TRUTH.get(text.strip().lower(), text)
        case Kind.CHOICE:
            return next((value for value in parameter.options if str(value) == text), text)
        case _:
            return text


def _checked(name: str, parameter: Parameter, value: Any) -> Any:
    try:
        return check_value(parameter, value)
    except ValueError as exc:
        raise InvalidParameter(f'Parameter "{name}": {exc}.', parameter=name) from None


def _whole(value: Any) -> Any:
    """JSON knows no integers: 20.0 is one as well, as long as it is exact."""
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) <= 2**53
    return int(value) if is_whole else value


def _is_finite(value: float) -> bool:
    """An integer may be larger than any float, and ComfyUI makes one of it."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _is_within(value: float, parameter: Parameter) -> bool:
    low, high = parameter.limits
    return (low is None or value >= low) and (high is None or value <= high)


def _wanted(parameter: Parameter) -> str:
    low, high = parameter.limits
    limits = f" from {low}" if low is not None else ""
    limits += f" up to {high}" if high is not None else ""
    match parameter.type:
        case Kind.TEXT | Kind.STRING:
            return "a text"
        case Kind.INTEGER:
            return f"a whole number{limits}"
        case Kind.NUMBER:
            return f"a number{limits}"
        case Kind.SEED:
            return "a seed, from 0 up to 18446744073709551615, or -1 for a random one"
        case Kind.BOOLEAN:
            return "true or false"
        case Kind.CHOICE:
            return f"one of {', '.join(map(str, parameter.options))}"
        case Kind.MODEL:
            return "the name of a model file"
        case _:
            what = "a picture" if parameter.type in (Kind.IMAGE, Kind.MASK) else f"a file of {parameter.type}"
            return f"{what}: an http(s) URL, a data URI, base64, or the name of a file that ComfyUI has"


def _show(value: Any) -> str:
    if value == "":
        return "an empty text"
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "an array"
    shown = ascii(value)[1:-1] if isinstance(value, str) else to_json(value).decode()
    return shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."
