"""The parameters of a named workflow as JSON Schema, for forms and clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.library.manifest import Kind, Parameter, Text, english

if TYPE_CHECKING:
    from agent.library.library import NamedWorkflow
    from comfyui.catalog import Catalog

DIALECT = "https://json-schema.org/draft/2020-12/schema"

TYPES = {Kind.INTEGER: "integer", Kind.SEED: "integer", Kind.NUMBER: "number", Kind.BOOLEAN: "boolean"}


def schema_of(named: NamedWorkflow, catalog: Catalog | None = None) -> dict[str, Any]:
    """JSON Schema (2020-12) of the parameters. Words that begin with x- say what a form needs beyond it.

    With a catalogue, a parameter that names a model file says which files the engine has (`x-files`).
    """
    parameters = named.manifest.parameters
    return {
        "$schema": DIALECT,
        "title": english(named.manifest.title),
        "type": "object",
        "properties": {name: _property(named, name, order, catalog) for order, name in enumerate(parameters)},
        "required": [name for name, parameter in parameters.items() if parameter.is_required],
        "additionalProperties": False,
    }


def _property(named: NamedWorkflow, name: str, order: int, catalog: Catalog | None) -> dict[str, Any]:
    parameter = named.manifest.parameters[name]
    low, high = parameter.limits
    found: dict[str, Any] = {
        "title": english(parameter.title),
        "description": english(parameter.description) if parameter.description else None,
        "default": named.default(name),
        "minimum": low,
        "maximum": high,
        **_type_of(parameter),
        "x-type": parameter.type.value,
        "x-order": order,
        "x-titles": _languages(parameter.title),
        "x-descriptions": _languages(parameter.description),
        "x-step": parameter.step,
        "x-mask-of": parameter.mask_of,
        "x-multiline": _is_multiline(parameter) if parameter.type.is_text else None,
        "x-hidden": parameter.hidden or None,
        "x-sets": [str(place) for place in parameter.places] if parameter.type is Kind.SEED else None,
    }
    if parameter.type is Kind.MODEL and catalog is not None:
        place = parameter.places[0]
        class_type = named.workflow.nodes[place.node].class_type
        found["x-files"] = catalog.choices(class_type, place.input)
    return {word: value for word, value in found.items() if value is not None}


def _type_of(parameter: Parameter) -> dict[str, Any]:
    if parameter.type is Kind.CHOICE:
        titles = {str(value): title for value, title in parameter.options.items()}
        return {"enum": list(parameter.options), "x-choices-titles": titles}
    if parameter.type in TYPES:
        return {"type": TYPES[parameter.type]}
    return {"type": "string"} if parameter.type.is_text else {"type": "string", "minLength": 1}


def _is_multiline(parameter: Parameter) -> bool:
    return parameter.type is Kind.TEXT if parameter.multiline is None else parameter.multiline


def _languages(text: Text | None) -> Text | None:
    return text if isinstance(text, dict) else None
