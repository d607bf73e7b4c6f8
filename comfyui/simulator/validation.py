"""Checks a prompt before it is queued, with ComfyUI's error types, texts and details.

As there, constants are converted in place, a prompt with one valid output is accepted, nodes that no output needs are
not looked at, and a cycle is refused without a word.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from comfyui.simulator.folders import Folders
    from comfyui.simulator.nodes.spec import Input, NodeSpec

Errors = list[dict[str, Any]]

LONG_LIST = 20  #: a longer list of options is not spelled out
CONVERSIONS: dict[str, Callable[[Any], Any]] = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}


@dataclass
class Verdict:
    """What validation found: the outputs to run, or the error; node errors may come with either."""

    outputs: list[str] = field(default_factory=list)
    error: dict[str, Any] | None = None
    node_errors: dict[str, Any] = field(default_factory=dict)


def validate(
    prompt: Any, targets: list[str] | None, classes: dict[str, NodeSpec], folders: Folders
) -> Verdict:
    """Judge a prompt. Raises TypeError where ComfyUI fails with 500: the prompt or a node is not a container."""
    wanted = []
    for node_id in prompt:
        node = prompt[node_id]
        if "class_type" not in node:
            return _refused("Cannot execute because a node is missing the class_type property.", node_id)
        if node["class_type"] not in classes:
            return _refused(f"Cannot execute because node {node['class_type']} does not exist.", node_id)
        if classes[node["class_type"]].is_output and (targets is None or node_id in targets):
            wanted.append(node_id)
    if not wanted:
        return Verdict(error=problem("prompt_no_outputs", "Prompt has no outputs"))
    return _Validation(prompt, classes, folders).judge(wanted)


def problem(
    kind: str, message: str, details: str = "", extra_info: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {"type": kind, "message": message, "details": details, "extra_info": extra_info or {}}


def _refused(message: str, node_id: str) -> Verdict:
    return Verdict(error=problem("invalid_prompt", message, f"Node ID '#{node_id}'"))


class _Validation:
    def __init__(self, prompt: dict[str, Any], classes: dict[str, NodeSpec], folders: Folders) -> None:
        self._prompt, self._classes, self._folders = prompt, classes, folders
        self._judged: dict[str, tuple[bool, Errors]] = {}
        self._path: list[str] = []

    def judge(self, wanted: list[str]) -> Verdict:
        verdict = Verdict()
        texts: list[str] = []
        for output in wanted:
            try:
                valid, errors = self._node(output)
            except Exception as exc:  # noqa: BLE001 - whatever is wrong with the node becomes its error
                valid, errors = (
                    False,
                    [_exception("exception_during_validation", "Exception when validating node", exc)],
                )
                self._judged[output] = (valid, errors)
            if valid:
                verdict.outputs.append(output)
                continue
            texts += [f"{error['message']}: {error['details']}" for error in errors]
            self._blame(output, verdict.node_errors)
        if not verdict.outputs:
            message = "Prompt outputs failed validation"
            verdict.error = problem("prompt_outputs_failed_validation", message, "\n".join(texts))
        return verdict

    def _blame(self, output: str, node_errors: dict[str, Any]) -> None:
        """File every error found so far under its node, with the output that fails for it."""
        for node_id, (valid, errors) in self._judged.items():
            if valid or not errors:
                continue
            class_type = self._prompt[node_id]["class_type"]
            fresh = {"errors": errors, "dependent_outputs": [], "class_type": class_type}
            node_errors.setdefault(node_id, fresh)["dependent_outputs"].append(output)

    def _node(self, node_id: str) -> tuple[bool, Errors]:
        if node_id in self._judged:
            return self._judged[node_id]
        if node_id in self._path:
            return False, []  # a cycle; upstream runs into the recursion limit and forgets why
        node = self._prompt[node_id]
        spec, inputs = self._classes[node["class_type"]], node["inputs"]
        self._path.append(node_id)
        try:
            results = [self._input(spec, item, inputs) for item in spec.inputs]
        finally:
            self._path.pop()
        errors = [error for _, found in results for error in found]
        errors += self._checked(spec, inputs)
        self._judged[node_id] = (all(valid for valid, _ in results) and not errors, errors)
        return self._judged[node_id]

    def _input(self, spec: NodeSpec, item: Input, inputs: dict[str, Any]) -> tuple[bool, Errors]:
        """Whether the input and all behind it is sound; the errors are those of this node alone."""
        if item.name not in inputs:
            missing = problem(
                "required_input_missing", "Required input is missing", item.name, {"input_name": item.name}
            )
            return item.is_optional, [] if item.is_optional else [missing]
        value = inputs[item.name]
        if isinstance(value, list):
            return self._link(spec, item, value)
        errors = self._constant(spec, item, inputs)
        return not errors, errors

    def _link(self, spec: NodeSpec, item: Input, value: list[Any]) -> tuple[bool, Errors]:
        about = {"input_name": item.name, "input_config": spec.config_of(item, self._folders)}
        if len(value) != 2:
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            return False, [problem("bad_linked_input", message, item.name, about | {"received_value": value})]
        source = value[0]
        received = self._classes[self._prompt[source]["class_type"]].outputs[value[1]]
        if not _fits(received, item):
            shown = spec.config_of(item, self._folders)[0]
            details = f"{item.name}, received_type({received}) mismatch input_type({shown})"
            extra = about | {"received_type": received, "linked_node": value}
            return False, [
                problem("return_type_mismatch", "Return type mismatch between linked nodes", details, extra)
            ]
        try:
            return self._node(source)[0], []
        except Exception as exc:  # noqa: BLE001 - as above, one node further up
            error = _exception(
                "exception_during_inner_validation", "Exception when validating inner node", exc
            )
            error["extra_info"] |= about | {"exception_message": str(exc), "linked_node": value}
            self._judged[source] = (False, [error])
            return False, []

    def _constant(self, spec: NodeSpec, item: Input, inputs: dict[str, Any]) -> Errors:
        value = inputs[item.name]
        about = {"input_name": item.name, "input_config": spec.config_of(item, self._folders)}
        try:
            if isinstance(value, dict) and "__value__" in value:
                value = inputs[item.name] = value["__value__"]
            if item.kind in CONVERSIONS:
                value = inputs[item.name] = CONVERSIONS[item.kind](value)
        except Exception as exc:  # noqa: BLE001 - int() and its like raise what they want
            message = f"Failed to convert an input value to a {item.kind} value"
            extra = about | {"received_value": value, "exception_message": str(exc)}
            return [problem("invalid_input_type", message, f"{item.name}, {value}, {exc}", extra)]
        if item.name in spec.check:
            return []
        return self._range(spec, item, value, about | {"received_value": value})

    def _range(self, spec: NodeSpec, item: Input, value: Any, about: dict[str, Any]) -> Errors:
        least, most = item.options.get("min"), item.options.get("max")
        if least is not None and value < least:
            return [
                problem(
                    "value_smaller_than_min", f"Value {value} smaller than min of {least}", item.name, about
                )
            ]
        if most is not None and value > most:
            return [
                problem("value_bigger_than_max", f"Value {value} bigger than max of {most}", item.name, about)
            ]
        if item.choices is None or spec.is_v3:
            return []  # this version does not check the lists of V3 nodes
        options = item.options_in(self._folders)
        if value in options:
            return []
        is_long = len(options) > LONG_LIST
        shown = f"(list of length {len(options)})" if is_long else str(options)
        extra = about | {"input_config": None} if is_long else about
        return [
            problem("value_not_in_list", "Value not in list", f"{item.name}: '{value}' not in {shown}", extra)
        ]

    def _checked(self, spec: NodeSpec, inputs: dict[str, Any]) -> Errors:
        """The node's own checks, for constants."""
        errors = []
        for name, check in spec.check.items():
            if name not in inputs or isinstance(inputs[name], list):
                continue
            verdict = check(self._folders, inputs[name])
            if verdict is not True:
                details = name if verdict is False else f"{name} - {verdict}"
                message = "Custom validation failed for node"
                errors.append(problem("custom_validation_failed", message, details, {"input_name": name}))
        return errors


def _fits(received: str, item: Input) -> bool:
    if item.kind == "COMBO" and item.choices is not None:
        return False
    return "*" in {received, item.kind} or bool(set(received.split(",")) & set(item.kind.split(",")))


def _exception(kind: str, message: str, exc: Exception) -> dict[str, Any]:
    extra = {"exception_type": type_name(exc), "traceback": traceback.format_tb(exc.__traceback__)}
    return problem(kind, message, str(exc), extra)


def type_name(exc: BaseException) -> str:
    """The name as ComfyUI reports it: `PIL.UnidentifiedImageError`, but `KeyError`."""
    module = type(exc).__module__
    return type(exc).__qualname__ if module == "builtins" else f"{module}.{type(exc).__qualname__}"
