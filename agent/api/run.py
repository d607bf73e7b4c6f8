"""POST /api/run and GET /api/status: the wire format of the agent that ComfyUI on Function Compute began with."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web

from agent.admission import RunRequest, new_task_id
from agent.api.endpoint import TASK_ID_HEADER, TASK_ID_SCHEMA, Answer, Endpoint, Parameter
from agent.api.facades import facade_of
from agent.api.keys import BOARD, RUNNER, SETTINGS
from agent.api.models import Accepted, NodeResult, RunBody
from agent.api.parse import check_task_id, find_task_id, read_run_request
from agent.api.render import answer_result, error_response, json_response, progress_map
from agent.errors import AgentError, InternalError, InvalidQuery
from agent.service import Delivery, Forwarded
from agent.tasks.record import State

log = structlog.get_logger(__name__)

#: Makes Function Compute deliver an asynchronous task again.
DELIVER_AGAIN = {"x-fc-status": "404"}

#: Where runs begin.
RUN_PATH = re.compile(r"/api/(run|workflows/[^/]+/run)")

#: Keeps Function Compute from doing so. Whether it would after a plain 5xx is not documented.
DELIVERED = {"x-fc-status": "200"}


#: Makes what shall be run from a request.
Read = Callable[[web.Request], Awaitable[RunRequest]]

#: Makes the answer from a result: the body, or what else carries it.
Show = Callable[[web.Request, Delivery | Forwarded], Awaitable[web.Response]]


async def run(request: web.Request) -> web.Response:
    """Run a workflow. Waits for the result, or answers 202 at once where the caller asked for that and no platform
    in front of us did it already."""
    return await answer_run(request, read_run_request, show_progress_map)


async def answer_run(request: web.Request, read: Read, show: Show) -> web.Response:
    """Run what `read` makes of the request; `show` makes the answer to one who waits for the result."""
    task_id, wanted = None, None
    try:
        task_id = find_task_id(request)
        wanted = await read(request)
        return await _run(request, wanted, task_id, show)
    except AgentError as error:
        return await _refuse(request, error, task_id, wanted)
    except ConnectionError:
        raise  # the caller is gone
    except Exception:  # also a crash must be readable under the task's id, where nobody waits for the answer
        log.exception("request.crashed", method=request.method, path=request.path)
        return await _refuse(request, InternalError(), task_id, wanted)


async def show_progress_map(request: web.Request, delivery: Delivery | Forwarded) -> web.Response:
    return await answer_result(request.app[BOARD], delivery)


async def status(request: web.Request) -> web.Response:
    """The progress map of a task, with results once it has succeeded; its error once it has failed."""
    given = request.query.get("id")
    if not given:
        raise InvalidQuery("Name the task: /api/status?id=TASK_ID", parameter="id")
    board = request.app[BOARD]
    record = await board.get(check_task_id(given))
    if record.error is not None and record.state.is_final:
        return error_response(AgentError.from_dict(record.error), record.id)
    if record.state is not State.SUCCEEDED:
        return json_response(progress_map(record), headers={"task-id": record.id})
    response = await answer_result(board, Delivery(record, await board.outputs(record.id)))
    response.headers["task-id"] = record.id
    return response


async def _run(request: web.Request, wanted: RunRequest, task_id: str | None, show: Show) -> web.Response:
    runner = request.app[RUNNER]
    if _is_async(request) and runner.can_submit:
        record = await runner.submit(wanted, task_id)
        headers = {"task-id": record.id, "Location": f"/api/tasks/{record.id}"}
        return json_response({"task_id": record.id, "state": record.state}, status=202, headers=headers)
    delivery = await runner.run(wanted, task_id or new_task_id(), is_named=task_id is not None)
    response = await show(request, delivery)
    response.headers["task-id"] = delivery.task_id
    if task_id is not None and request.app[SETTINGS].behind_gateway and not delivery.is_kept:
        response.headers.update(DELIVER_AGAIN)
    return response


def _is_async(request: web.Request) -> bool:
    """The platform's own header, or the standard one (RFC 7240), which no gateway in front of a front acts upon."""
    preferences = ",".join(request.headers.getall("Prefer", ())).lower().split(",")
    return request.headers.get("X-Fc-Invocation-Type", "").lower() == "async" or "respond-async" in (
        preference.partition(";")[0].strip() for preference in preferences
    )


async def _refuse(
    request: web.Request, error: AgentError, task_id: str | None, wanted: RunRequest | None
) -> web.Response:
    """Answer the error; behind the gateway also keep it for whoever polls. Where that fails, only another delivery
    can tell him."""
    response = error_response(error, task_id)
    if request.app[SETTINGS].behind_gateway:
        is_told = task_id is None or await request.app[RUNNER].reject(task_id, error, wanted)
        response.headers.update(DELIVERED if is_told and not error.transient else DELIVER_AGAIN)
    return response


async def tell_platform(request: web.Request, response: web.StreamResponse) -> None:
    """Say of a run that was refused before it came here (no key, a foreign page) that it need not come again. It is
    not written under its task-id: whoever has no key shall write nothing. Failures of facades need not come again
    either: nobody could read the answer of a later delivery."""
    is_run = RUN_PATH.fullmatch(request.path) or facade_of(request) is not None
    if is_run and response.status >= 400 and request.app[SETTINGS].behind_gateway:
        response.headers.setdefault("x-fc-status", DELIVERED["x-fc-status"])


RUN_HEADERS = (
    TASK_ID_HEADER,
    Parameter(
        "X-Fc-Invocation-Type",
        "header",
        {"type": "string", "enum": ["Sync", "Async"]},
        "Async: answer 202 at once and run in the background.",
    ),
    Parameter(
        "Prefer",
        "header",
        {"type": "string"},
        "respond-async: the same, where a gateway would keep the other header to itself.",
    ),
)

ENDPOINTS = [
    Endpoint(
        "POST",
        "/api/run",
        run,
        {
            200: Answer("The final progress map with results.", dict[str, NodeResult]),
            202: Answer("Accepted; poll the task.", Accepted),
        },
        RUN_HEADERS,
        RunBody,
    ),
    Endpoint(
        "GET",
        "/api/status",
        status,
        {200: Answer("The progress map; with results once the task has succeeded.", dict[str, NodeResult])},
        (Parameter("id", "query", TASK_ID_SCHEMA, "The task's id; needed."),),
    ),
]
