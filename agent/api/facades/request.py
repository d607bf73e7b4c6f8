"""From what a caller of another API wants to a run of the named workflow that serves his model.

A facade says it in roles, which are the same for all APIs; each role finds its parameter in the workflow by name, and
pictures and seeds by their kind. So workflows of the operator's own need no other manifest to serve a model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pybase64
from aiohttp import web

from agent.admission import RunRequest
from agent.api.facades.models import Model
from agent.api.keys import BOARD, LIBRARY, MODELS, SETTINGS
from agent.api.parse import in_thread
from agent.api.workflows import build_run
from agent.errors import AgentError, InvalidModel, InvalidParameter, WorkflowNotFound
from agent.library.manifest import Kind

if TYPE_CHECKING:
    from agent.library.library import Library, NamedWorkflow

#: What a role's parameter may be called, where that is not the role's own name.
NAMES = {
    "prompt": ("prompt", "text"),
    "guidance": ("guidance", "cfg"),
    "strength": ("strength", "denoise"),
}

#: What kind of parameter a role is where none has its name.
KINDS = {"prompt": Kind.TEXT, "mask": Kind.MASK, "seed": Kind.SEED}

#: Characters of one text, as many as OpenAI's API takes; more would only cost time and memory around the GPU.
LONGEST_TEXT = 32_000

#: Pixels of a megapixel, as ComfyUI counts them.
MEGAPIXEL = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Wish:
    """What a caller wants, in words that are the same for every API. `values`: role -> value; `images`: pictures to
    change, as a named workflow takes them; `names`: what the caller calls a role, for errors; `needs`: roles without
    which it would be another picture than he asked for; `effort`: how many times the steps that the workflow would
    take."""

    values: Mapping[str, Any] = field(repr=False)
    images: Sequence[str] = field(default=(), repr=False)
    mask: str | None = field(default=None, repr=False)
    names: Mapping[str, str] = field(default_factory=dict)
    needs: Collection[str] = ()
    effort: float = 1.0
    wants_url: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run, the model it is for, and the ids of the nodes whose outputs are the answer (none: of all)."""

    run: RunRequest
    model: Model
    nodes: Sequence[str]


def data_uri(data: bytes) -> str:
    """A picture as a named workflow takes it."""
    return f"data:;base64,{pybase64.b64encode_as_string(data)}"


async def find_model(app: web.Application, name: str) -> Model:
    """Raises ModelNotFound."""
    table = await asyncio.to_thread(app[MODELS])
    return table.get(name)


async def prepare(app: web.Application, model: Model, wish: Wish) -> Prepared:
    """The run that a model makes of a wish. Raises InvalidParameter under the caller's own names, InvalidModel."""
    has_lora = wish.values.get("lora") is not None
    try:
        name = model.workflow_for(
            has_picture=bool(wish.images), has_mask=wish.mask is not None, has_lora=has_lora
        )
    except InvalidParameter as error:
        role = str(error.facts.get("parameter", ""))
        raise error.with_facts(parameter=wish.names.get(role, role)) from None
    library = await asyncio.to_thread(app[LIBRARY])
    named = await asyncio.to_thread(_load, library, model, name)
    outputs = "url" if wish.wants_url and app[BOARD].objects is not None else "inline"
    return await in_thread(app, _build, named, model, wish, outputs, app[SETTINGS].max_nodes)


def _load(library: Library, model: Model, name: str) -> NamedWorkflow:
    """The workflow of this name. Raises InvalidModel, also for a value that none of the model's workflows takes."""
    try:
        found = {name: library.get(name) for name in model.workflows}
    except WorkflowNotFound as error:
        raise InvalidModel(
            f"The table of models names a workflow that does not exist: {error.detail}"
        ) from None
    known = {parameter for named in found.values() for parameter in named.manifest.parameters}
    for value in model.values:
        if value not in known:
            raise InvalidModel(
                f'The table of models sets "{value}", which is no parameter of this model\'s workflows.'
            )
    return found[name]


def _build(named: NamedWorkflow, model: Model, wish: Wish, outputs: str, max_nodes: int) -> Prepared:
    parameters, roles = dict(model.values), {}
    for role, value in _roles(named, wish).items():
        if (name := _place(named, role)) is not None:
            parameters[name], roles[name] = value, role
        elif role in wish.needs:
            called = wish.names.get(role, role)
            raise InvalidParameter(
                f'Parameter "{called}": the workflow of this model has nothing for it.', parameter=called
            )
    if wish.mask is not None and "mask" not in roles.values():
        raise InvalidModel(
            f'The workflow "{named.name}" paints over a part, but has no parameter for a mask.'
        )
    for name, value in zip(_pictures(named, wish), wish.images, strict=True):
        parameters[name], roles[name] = value, "image"
    known = {name: value for name, value in parameters.items() if name in named.manifest.parameters}
    if wish.effort != 1 and "steps" not in roles:
        known |= _scaled_steps(named, known, wish.effort)
    for name, parameter in named.manifest.parameters.items():
        if parameter.type.is_file and parameter.is_required and name not in known:
            role = "mask" if parameter.type is Kind.MASK else "image"
            called = wish.names.get(role, role)
            raise InvalidParameter(f'Parameter "{called}": this model needs more pictures.', parameter=called)
    try:
        run = build_run(named, known, {"outputs": outputs}, max_nodes, wants_picture=False)
    except InvalidParameter as error:
        raise _say(error, roles, wish.names) from None
    return Prepared(run, model, named.manifest.outputs)


def _scaled_steps(named: NamedWorkflow, values: Mapping[str, Any], effort: float) -> dict[str, int]:
    """So many times the steps that the workflow would take, within their limits; nothing where it has none."""
    parameter = named.manifest.parameters.get("steps")
    usual = values.get("steps", named.default("steps")) if parameter else None
    if parameter is None or not isinstance(usual, int):
        return {}
    low, high = parameter.limits
    steps = max(round(usual * effort), int(low or 1))
    return {"steps": steps if high is None else min(steps, int(high))}


def _roles(named: NamedWorkflow, wish: Wish) -> dict[str, Any]:
    """Role -> value, of those that the caller gave."""
    given = {role: value for role, value in wish.values.items() if value is not None}
    if wish.mask is not None:
        given["mask"] = wish.mask
    size = named.manifest.parameters.get("megapixels")
    if size is not None and "megapixels" not in given and "width" in given and "height" in given:
        # A picture that is changed keeps its shape: how large it becomes is all that is left to say.
        low, high = size.limits
        wanted = given["width"] * given["height"] / MEGAPIXEL  # exact: one pixel less would cost eight
        given["megapixels"] = min(max(wanted, low or 0), wanted if high is None else high)
    return given


def _place(named: NamedWorkflow, role: str) -> str | None:
    """The parameter that a role sets; None where the workflow has none for it, and does without."""
    parameters = named.manifest.parameters
    for name in NAMES.get(role, (role,)):
        if name in parameters:
            return name
    kind = KINDS.get(role)
    return next((name for name, p in parameters.items() if p.type is kind), None) if kind else None


def _pictures(named: NamedWorkflow, wish: Wish) -> list[str]:
    """The parameters that take the caller's pictures, as many as there are. Raises InvalidParameter."""
    found = [name for name, p in named.manifest.parameters.items() if p.type is Kind.IMAGE]
    if len(wish.images) > len(found):
        takes = "no picture" if not found else f"{len(found)} picture{'s' if len(found) > 1 else ''} at most"
        raise InvalidParameter(
            f'Parameter "image": the workflow of this model takes {takes}.',
            parameter=wish.names.get("image", "image"),
        )
    return found[: len(wish.images)]


def _say(error: InvalidParameter, roles: Mapping[str, str], names: Mapping[str, str]) -> AgentError:
    """The error under the name that the caller used. One that he has no name for is the table's fault."""
    parameter = str(error.facts.get("parameter", ""))
    if parameter not in roles:
        return InvalidModel(f"The workflow of this model cannot be run: {error.detail}")
    called = names.get(roles[parameter], roles[parameter])
    detail = error.detail.replace(f'"{parameter}"', f'"{called}"', 1)
    if roles[parameter] == "megapixels":  # he gave a width and a height
        detail = f"{detail.removesuffix('.')}, in megapixels: width times height."
    return InvalidParameter(detail, parameter=called)
