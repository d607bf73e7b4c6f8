"""What is wrong with a setting, in a sentence that names what is allowed. Values are not repeated: some are secrets."""

from __future__ import annotations

from enum import Enum
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo


def say_wrong(name: str, field: FieldInfo | None, error: Any) -> str:
    """The sentence for one of pydantic's errors. `name` is the setting's, empty where several contradict each other."""
    if error["type"] == "value_error":  # the settings' own words
        found = str(error["ctx"]["error"])
        return f"{name}: {found}" if name else found
    wanted = allowed(field) if field is not None else None
    return f"{name} must be {wanted}" if wanted else f"{name}: {error['msg']}"


def allowed(field: FieldInfo) -> str | None:
    """The values that a setting takes; None where any text may do."""
    kind = _kind(field.annotation)
    if get_origin(kind) is Literal:
        return _one_of(get_args(kind))
    if not isinstance(kind, type):
        return None
    if issubclass(kind, Enum):
        return _one_of(member.value for member in kind)
    if issubclass(kind, bool):
        return "true or false"
    if issubclass(kind, int):
        return f"a whole number{_bounds(field)}"
    if issubclass(kind, float):
        return f"a number{_bounds(field)}"
    return None


def _kind(annotation: Any) -> Any:
    """The type of a value that is given."""
    if get_origin(annotation) in (Union, UnionType):
        return next(kind for kind in get_args(annotation) if kind is not type(None))
    return annotation


def _one_of(values: Any) -> str:
    *others, last = map(str, values)
    return f"{', '.join(others)} or {last}" if others else last


def _bounds(field: FieldInfo) -> str:
    words = {}
    for bound in field.metadata:
        match bound:
            case Ge(ge=value):
                words["low"] = f"at least {value}"
            case Gt(gt=value):
                words["low"] = f"greater than {value}"
            case Le(le=value):
                words["high"] = f"at most {value}"
            case Lt(lt=value):
                words["high"] = f"less than {value}"
    return f", {' and '.join(words[end] for end in ('low', 'high') if end in words)}" if words else ""
