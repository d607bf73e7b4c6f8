"""POST /api/run and GET /api/status: the wire format of the agent that ComfyUI on Function Compute began with."""

from __future__ import annotations

from aiohttp import web

from agent.admission import RunRequest
from agent.api.endpoint import TASK_ID_HEADER, TASK_ID_SCHEMA, Answer, Endpoint, Parameter
from agent.api.keys import BOARD, RUNNER, SETTINGS
from agent.api.models import Accepted, NodeResult, RunBody
from agent.api.parse import check_task_id, find_task_id, read_run_request
from agent.api.render import error_response, json_response, progress_map, result_body
from agent.errors import AgentError, InvalidQuery
from agent.runner import Delivery
from agent.tasks.record import State


async def run(request: web.Request) -> web.Response:
    """Run a workflow. Waits for the result, or answers 202 at once where the caller asked for that and no platform
    in front of us did it already."""
    task_id = find_task_id(request)
    try:
        return await _run(request, await read_run_request(request), task_id)
    except AgentError as error:
        if task_id is not None and _must_be_recorded(request):
            await request.app[RUNNER].reject(task_id, error)
        return _failure(request, error, task_id)


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
    body = await result_body(Delivery(record, await board.outputs(record.id)))
    return web.Response(body=body, content_type="application/json", headers={"task-id": record.id})


async def _run(request: web.Request, wanted: RunRequest, task_id: str | None) -> web.Response:
    runner = request.app[RUNNER]
    if _is_async(request) and not request.app[SETTINGS].behind_gateway:
        record = await runner.submit(wanted, task_id)
        headers = {"task-id": record.id, "Location": f"/api/tasks/{record.id}"}
        return json_response({"task_id": record.id, "state": record.state}, status=202, headers=headers)
    delivery = await runner.run(wanted, task_id)
    headers = {"task-id": delivery.record.id}
    return web.Response(body=await result_body(delivery), content_type="application/json", headers=headers)


def _is_async(request: web.Request) -> bool:
    return request.headers.get("X-Fc-Invocation-Type", "").lower() == "async"


def _must_be_recorded(request: web.Request) -> bool:
    """Behind the gateway an asynchronous caller was answered 202 before we saw the request, so that a refusal can
    reach him only under his task-id."""
    return request.app[SETTINGS].behind_gateway


def _failure(request: web.Request, error: AgentError, task_id: str | None) -> web.Response:
    response = error_response(error, task_id or error.facts.get("task_id"))
    if error.transient and request.app[SETTINGS].behind_gateway:
        response.headers["x-fc-status"] = "404"  # makes the platform deliver an asynchronous task again
    return response


ENDPOINTS = [
    Endpoint(
        "POST",
        "/api/run",
        run,
        {
            200: Answer("The final progress map with results.", dict[str, NodeResult]),
            202: Answer("Accepted; poll the task.", Accepted),
        },
        (
            TASK_ID_HEADER,
            Parameter(
                "X-Fc-Invocation-Type",
                "header",
                {"type": "string", "enum": ["Sync", "Async"]},
                "Async: answer 202 at once and run in the background.",
            ),
        ),
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
