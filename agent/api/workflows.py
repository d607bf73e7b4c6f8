"""Named workflows: list them, show what one takes, run one with values instead of a graph.

Nothing of `agent.library` is imported before the first request for it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pybase64
from aiohttp import web
from pydantic_core import from_json

from agent.admission import RunRequest
from agent.api.endpoint import Answer, Endpoint, Parameter
from agent.api.form import Field, File, is_form, read_form
from agent.api.keys import BOARD, INVENTORY, LABELLER, LIBRARY, SETTINGS
from agent.api.models import (
    Accepted,
    CallerOptions,
    NamedRunBody,
    NodeResult,
    RunOptions,
    WorkflowDetail,
    WorkflowList,
)
from agent.api.parse import (
    INLINE_BYTES,
    Envelope,
    check_envelope,
    check_options,
    check_webhook,
    in_thread,
    read_body,
)
from agent.api.picture import FORMATS, JSON, picture_response, preferred_type
from agent.api.render import json_response
from agent.api.run import RUN_HEADERS, answer_run, show_progress_map
from agent.errors import InvalidJson, InvalidOptions, InvalidParameter, WorkflowNotFound
from agent.outputs.collect import media_type_of
from agent.policy import denied_nodes
from agent.service import Delivery, Forwarded
from agent.settings import Settings
from comfyui.workflow import LONGEST_NAME

if TYPE_CHECKING:
    from agent.library.library import NamedWorkflow
    from comfyui.catalog import Catalog

#: Begins the names of form fields that are options, so that parameters may be called as they like.
OPTION_PREFIX = "option."

MEDIA_TYPE = re.compile(r"[a-z]+/[a-z0-9.+-]+")


async def list_workflows(request: web.Request) -> web.Response:
    """The named workflows of this server, and whether its engine has all that each needs."""
    library = await asyncio.to_thread(request.app[LIBRARY])
    found, catalog = await asyncio.gather(asyncio.to_thread(library.all), _catalog(request))
    settings = request.app[SETTINGS]
    return json_response({"workflows": [_summary(settings, named, catalog) for named in found]})


async def show_workflow(request: web.Request) -> web.Response:
    """One named workflow: its parameters as JSON Schema, and its graph."""
    from agent.library.schema import schema_of  # noqa: PLC0415

    named, catalog = await _named(request), await _catalog(request)
    detail = {
        **_summary(request.app[SETTINGS], named, catalog),
        "schema": schema_of(named, catalog),
        "outputs": named.manifest.outputs,
        "models": [model.model_dump() for model in named.manifest.models],
        "workflow": named.workflow.graph,
    }
    return json_response(detail)


async def show_thumbnail(request: web.Request) -> web.StreamResponse:
    """The picture that stands beside a workflow."""
    named = await _named(request)
    if named.picture is None:
        raise WorkflowNotFound(f'Workflow "{named.name}" has no picture.')
    headers = {"Content-Type": media_type_of(named.picture.name), "Cache-Control": "max-age=300"}
    return web.FileResponse(named.picture, headers=headers)


async def run_workflow(request: web.Request) -> web.Response:
    """Run a named workflow with values for its parameters, as JSON or as a form.

    Answers as POST /api/run does. `Accept: image/png`, `image/jpeg` or `image/webp` wants the bytes of the first
    picture instead of JSON. A file parameter takes an http(s) URL, a data URI, base64, or the name of a file that the
    engine has; in a form also a file. A form's fields are named after the parameters; those that begin with
    `option.` are options.
    """
    accept = preferred_type(request.headers.getall("Accept", ()))
    nodes: list[str] = []

    async def read(request: web.Request) -> RunRequest:
        named = await _named(request)
        nodes.extend(named.manifest.outputs)
        return await _read_run(request, named, wants_picture=accept != JSON)

    async def show(request: web.Request, delivery: Delivery | Forwarded) -> web.Response:
        if accept == JSON:
            return await show_progress_map(request, delivery)
        return await picture_response(request.app[BOARD], request.app[LABELLER], delivery, nodes, accept)

    return await answer_run(request, read, show)


async def _named(request: web.Request) -> NamedWorkflow:
    library = await asyncio.to_thread(request.app[LIBRARY])
    return await asyncio.to_thread(library.get, request.match_info["name"])


async def _catalog(request: web.Request) -> Catalog | None:
    inventory = request.app.get(INVENTORY)  # a front has none
    return await inventory.catalog() if inventory else None


def _summary(settings: Settings, named: NamedWorkflow, catalog: Catalog | None) -> dict[str, Any]:
    from agent.library.check import missing  # noqa: PLC0415

    denied = denied_nodes(named.workflow, allow=settings.nodes_allow, deny=settings.nodes_deny)
    lacking = sorted({named.workflow.nodes[node].class_type for node in denied})
    lacking += missing(named, catalog) if catalog else []
    found: dict[str, Any] = {
        "name": named.name,
        "title": named.manifest.title,
        "description": named.manifest.description,
        "tags": named.manifest.tags,
        "available": False if lacking else True if catalog else None,
        "missing": lacking,
    }
    if named.picture is not None:
        found["thumbnail"] = f"/api/workflows/{named.name}/thumbnail"
    return found


async def _read_run(request: web.Request, named: NamedWorkflow, *, wants_picture: bool) -> RunRequest:
    wanted = await _read_body(request, named, wants_picture=wants_picture)
    check_webhook(request.app, wanted.webhook)
    return wanted


async def _read_body(request: web.Request, named: NamedWorkflow, *, wants_picture: bool) -> RunRequest:
    max_nodes = request.app[SETTINGS].max_nodes
    if is_form(request):
        fields = await read_form(request)
        return await in_thread(request.app, _from_form, named, fields, max_nodes, wants_picture=wants_picture)
    body = await read_body(request)
    if len(body) <= INLINE_BYTES:
        return _from_json(named, body, max_nodes, wants_picture=wants_picture)
    return await in_thread(request.app, _from_json, named, body, max_nodes, wants_picture=wants_picture)


def _from_json(named: NamedWorkflow, body: bytes, max_nodes: int, *, wants_picture: bool) -> RunRequest:
    try:
        data = from_json(body, allow_inf_nan=False)
    except ValueError as exc:
        raise InvalidJson(f'The body is not JSON: {exc}. Send {{"parameters": {{...}}}} or a form.') from None
    if not isinstance(data, dict):
        raise InvalidJson('The body is a JSON object, {"parameters": {...}}.')
    parameters = data.pop("parameters", {})
    if not isinstance(parameters, dict):
        raise InvalidOptions('"parameters" is an object of values by name.', option="parameters")
    _refuse_values_beside(named, data)
    return build_run(named, parameters, data, max_nodes, wants_picture=wants_picture)


def _refuse_values_beside(named: NamedWorkflow, beside: dict[str, Any]) -> None:
    """Say where values belong; beside them are options alone. Raises InvalidOptions."""
    unknown = [name for name in beside if name not in CallerOptions.model_fields]
    if not unknown:
        return
    meant = next((name for name in unknown if name in named.manifest.parameters), None)
    if meant is not None:
        raise InvalidOptions(
            f'"{meant}" is a parameter of workflow "{named.name}": its value belongs into '
            f'{{"parameters": {{"{meant}": ...}}}}.',
            option=meant,
        )
    name = unknown[0][:LONGEST_NAME]
    raise InvalidOptions(
        f'Option "{name}": unknown option. Values of the workflow\'s parameters belong into {{"parameters": {{...}}}}.',
        option=name,
    )


def _from_form(
    named: NamedWorkflow, fields: Iterable[Field], max_nodes: int, *, wants_picture: bool
) -> RunRequest:
    parameters: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for name, value in fields:
        into = options if name.startswith(OPTION_PREFIX) else parameters
        key = name.removeprefix(OPTION_PREFIX) if into is options else name
        if key in into:
            raise InvalidParameter(f'The form has more than one field "{name[:64]}".', parameter=key[:64])
        if into is options:
            options[key] = _option(value)
        elif (meant := _meant(named, name, value)) is not None:
            parameters[name] = meant
    return build_run(named, parameters, options, max_nodes, wants_picture=wants_picture)


def _meant(named: NamedWorkflow, name: str, value: str | File) -> Any:
    """The value of a form's field; None for one that was left empty."""
    from agent.library.values import from_text  # noqa: PLC0415

    parameter = named.manifest.parameters.get(name)
    if parameter is None:
        return ""  # refused later, as in JSON
    if isinstance(value, str):
        is_left_out = not value.strip() and not parameter.type.is_text
        return None if is_left_out else from_text(parameter, value)
    if parameter.type.is_file:
        media_type = value.media_type.partition(";")[0].strip().lower()
        named_type = media_type if MEDIA_TYPE.fullmatch(media_type) else ""
        return f"data:{named_type};base64,{pybase64.b64encode_as_string(value.data)}"
    try:
        return from_text(parameter, value.data.decode())
    except UnicodeDecodeError:
        raise InvalidParameter(f'Parameter "{name}" takes no file.', parameter=name) from None


def _option(value: str | File) -> Any:
    """An option's value: JSON where it is some, else a text."""
    text = value if isinstance(value, str) else value.data.decode(errors="replace")
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError:
        return text


def build_run(
    named: NamedWorkflow,
    parameters: dict[str, Any],
    options: dict[str, Any],
    max_nodes: int,
    *,
    wants_picture: bool,
) -> RunRequest:
    """A run of the workflow with these values. Raises InvalidParameter, InvalidOptions, WorkflowTooLarge."""
    from agent.library.values import fill  # noqa: PLC0415

    check_options(CallerOptions, options)
    if wants_picture:
        options.setdefault("outputs", "inline")  # where outputs usually go to an object store
    beside = {**options, "workflow_name": named.name}
    graph = fill(named, parameters).graph
    return check_envelope(Envelope(graph, beside, check_options(RunOptions, beside)), max_nodes)


NAME_IN_PATH = Parameter(
    "name", "path", {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"}, "The workflow's name."
)

ENDPOINTS = [
    Endpoint(
        "GET",
        "/api/workflows",
        list_workflows,
        {200: Answer("The workflows.", WorkflowList)},
        tag="workflows",
    ),
    Endpoint(
        "GET",
        "/api/workflows/{name}",
        show_workflow,
        {200: Answer("The workflow.", WorkflowDetail)},
        (NAME_IN_PATH,),
        tag="workflows",
    ),
    Endpoint(
        "GET",
        "/api/workflows/{name}/thumbnail",
        show_thumbnail,
        {200: Answer("The picture.", media_type="image/*")},
        (NAME_IN_PATH,),
        tag="workflows",
    ),
    Endpoint(
        "POST",
        "/api/workflows/{name}/run",
        run_workflow,
        {
            200: Answer(
                "The final progress map with results, or the first picture.",
                dict[str, NodeResult],
                also=tuple(FORMATS),
            ),
            202: Answer("Accepted; poll the task.", Accepted),
            303: Answer("The first picture lies in the object store.", media_type=None),
        },
        (
            NAME_IN_PATH,
            Parameter("Accept", "header", {"type": "string"}, "A picture's type: answer with its bytes."),
            *RUN_HEADERS,
        ),
        NamedRunBody,
        form={"type": "object", "additionalProperties": {"type": "string"}},
        tag="workflows",
    ),
]
