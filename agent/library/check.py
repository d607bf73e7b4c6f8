"""Whether a named workflow fits an engine: its graph, and what its manifest sets in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.library.manifest import Kind, Parameter, Place
from comfyui.workflow import Node, is_link

if TYPE_CHECKING:
    from agent.library.library import NamedWorkflow
    from comfyui.catalog import Catalog

#: Type of a parameter -> types of the inputs that it may set, as /object_info calls them.
FITTING = {
    Kind.TEXT: ("STRING",),
    Kind.STRING: ("STRING", "COMBO"),
    Kind.INTEGER: ("INT", "FLOAT"),
    Kind.NUMBER: ("FLOAT",),
    Kind.SEED: ("INT",),
    Kind.BOOLEAN: ("BOOLEAN",),
    Kind.CHOICE: ("COMBO", "STRING", "INT", "FLOAT"),
    Kind.MODEL: ("COMBO",),
}

PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "STRING": (str,),
    "INT": (int,),
    "FLOAT": (int, float),
    "BOOLEAN": (bool,),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a workflow. `is_missing`: the engine lacks it (a node class, a model file), and can be given
    it; otherwise the workflow or its manifest is wrong."""

    text: str
    is_missing: bool = False


def missing(named: NamedWorkflow, catalog: Catalog) -> list[str]:
    """Node classes and model files that the engine does not have."""
    classes = {named.workflow.nodes[node].class_type for node in catalog.unknown_nodes(named.workflow)}
    return sorted(classes) + list(dict.fromkeys(str(value) for _, _, value in _absent_files(named, catalog)))


def check(named: NamedWorkflow, catalog: Catalog) -> list[Finding]:
    """Everything that is wrong or missing. That the manifest is whole in itself was checked when it was read."""
    return [*_check_graph(named, catalog), *_check_manifest(named, catalog)]


def _check_graph(named: NamedWorkflow, catalog: Catalog) -> Iterator[Finding]:
    workflow = named.workflow
    unknown = set(catalog.unknown_nodes(workflow))
    for class_type in sorted({workflow.nodes[node].class_type for node in unknown}):
        yield Finding(f"node class {class_type} is not there", is_missing=True)
    if not unknown and not catalog.output_nodes(workflow):
        yield Finding("the workflow has no output node, such as SaveImage")
    absent = {(node, name) for node, name, _ in _absent_files(named, catalog)}
    for node in workflow.nodes.values():
        if node.id in unknown:
            continue
        for name in catalog.required(node.class_type):
            if name not in node.inputs:
                yield Finding(f"{_say(node)} lacks its input {name}")
        for name, value in node.inputs.items():
            spec = catalog.spec(node.class_type, name)
            if (node.id, name) in absent:
                yield Finding(f"model file {value} is not there ({_say(node)}, {name})", is_missing=True)
            elif spec is not None and is_link(value):
                yield from _check_link(named, catalog, node, name)
            elif spec is not None and not _is_upload(spec):
                yield from _check_constant(node, name, value, spec)


def _check_link(named: NamedWorkflow, catalog: Catalog, node: Node, name: str) -> Iterator[Finding]:
    source_id, slot = node.inputs[name]
    source = named.workflow.nodes[source_id]
    if source.class_type not in catalog:
        return
    outputs = catalog.outputs(source.class_type)
    wanted = _type(catalog.spec(node.class_type, name))
    if not 0 <= slot < len(outputs):
        yield Finding(f"{_say(node)}: {name} is linked to output {slot} of {_say(source)}, which has none")
    elif not _fits(outputs[int(slot)], wanted):
        yield Finding(f"{_say(node)}: {name} wants {wanted}, and {_say(source)} gives {outputs[int(slot)]}")


def _check_constant(node: Node, name: str, value: Any, spec: Any) -> Iterator[Finding]:
    kind, options = _type(spec), _options(spec)
    where = f"{_say(node)}: {name}"
    if kind == "COMBO":
        choices = _choices(spec)
        if choices and value not in choices:
            yield Finding(f"{where} is {value!r}, which is not to be chosen there")
    elif kind in PYTHON_TYPES:
        if type(value) not in PYTHON_TYPES[kind]:
            yield Finding(f"{where} wants {kind}, and is {value!r}")
        elif isinstance(value, int | float) and not _is_within(value, options):
            yield Finding(f"{where} is {value}, beyond {options.get('min')} to {options.get('max')}")
    else:
        yield Finding(f"{where} wants a link to {kind}, and is {value!r}")


def _check_manifest(named: NamedWorkflow, catalog: Catalog) -> Iterator[Finding]:
    for name, parameter in named.manifest.parameters.items():
        for place in parameter.places:
            node = named.workflow.nodes[place.node]
            if node.class_type in catalog:
                yield from _check_place(name, parameter, place, node, catalog)
    outputs = catalog.output_nodes(named.workflow)
    for node_id in named.manifest.outputs:
        node = named.workflow.nodes[node_id]
        if node.class_type in catalog and node_id not in outputs:
            yield Finding(f'"outputs" names {_say(node)}, which is no output node')


def _check_place(
    name: str, parameter: Parameter, place: Place, node: Node, catalog: Catalog
) -> Iterator[Finding]:
    spec = catalog.spec(node.class_type, place.input)
    where = f'parameter "{name}" sets {place} ({node.class_type})'
    if spec is None:
        yield Finding(f"{where}, which has no such input")
        return
    kind, options = _type(spec), _options(spec)
    if is_link(node.inputs.get(place.input)):
        yield Finding(f"{where}, which is linked to another node in the graph")
    if parameter.type.is_file:
        if not _is_upload(spec):
            yield Finding(f"{where}, which takes no file")
        return
    if kind not in FITTING[parameter.type]:
        yield Finding(f"{where}, which is {kind} and no {parameter.type}")
    elif parameter.type in (Kind.INTEGER, Kind.NUMBER):
        for limit in parameter.limits:
            if limit is not None and not _is_within(limit, options):
                yield Finding(f"{where} to {limit}, beyond {options.get('min')} to {options.get('max')}")
    elif parameter.type is Kind.CHOICE and kind == "COMBO":
        for value in parameter.options:
            if value not in _choices(spec):
                yield Finding(f"{where} to {value!r}, which is not to be chosen there")


def _absent_files(named: NamedWorkflow, catalog: Catalog) -> Iterator[tuple[str, str, Any]]:
    """Inputs (node, name, value) whose model file the engine does not have."""
    files = {model.file for model in named.manifest.models}
    chosen = {
        (place.node, place.input)
        for parameter in named.manifest.parameters.values()
        if parameter.type is Kind.MODEL
        for place in parameter.places
    }
    for node in named.workflow.nodes.values():
        for name, value in node.inputs.items():
            if isinstance(value, str) and (value in files or (node.id, name) in chosen):
                choices = catalog.choices(node.class_type, name)
                if choices is not None and value not in choices:
                    yield node.id, name, value


def _type(spec: Any) -> str:
    """Old nodes list their choices in place of the type."""
    return "COMBO" if isinstance(spec[0], list) else str(spec[0])


def _options(spec: Any) -> dict[str, Any]:
    return spec[1] if len(spec) > 1 and isinstance(spec[1], dict) else {}


def _choices(spec: Any) -> list[Any]:
    found = spec[0] if isinstance(spec[0], list) else _options(spec).get("options")
    return found if isinstance(found, list) else []


def _is_upload(spec: Any) -> bool:
    return any(word.endswith("_upload") and value for word, value in _options(spec).items())


def _fits(given: str, wanted: str) -> bool:
    """Types may be unions, "INT,FLOAT", and "*" is any."""
    return "*" in (given, wanted) or bool(set(given.split(",")) & set(wanted.split(",")))


def _is_within(value: float, options: dict[str, Any]) -> bool:
    low, high = options.get("min"), options.get("max")
    return (low is None or value >= low) and (high is None or value <= high)


def _say(node: Node) -> str:
    return f'node "{node.id}" ({node.class_type})'
