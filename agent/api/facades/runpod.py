"""RunPod's serverless endpoints with worker-comfyui behind them: /run, /runsync, /status/ID, /status-sync/ID,
/stream/ID, /cancel/ID, /health.

They are answered at the root and under /v2/ENDPOINT, where any name of an endpoint may stand. A job is a task, whose id
is the job's, so any instance can tell how it is.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

from aiohttp import web
from pydantic_core import to_json

from agent.admission import RunRequest, new_task_id
from agent.api.facades.answering import answer_early, name_tasks
from agent.api.facades.runpod_jobs import describe, read_job, status_of
from agent.api.keys import BOARD, ENGINE, METRICS, RUNNER
from agent.api.parse import check_task_id
from agent.api.render import ErrorResponse, json_response
from agent.errors import AgentError, InvalidQuery, InvalidRequest, NotFound
from agent.tasks.record import State, TaskRecord
from comfyui.engine import EngineState

__all__ = ["cancel", "health", "refuse", "render_error", "run", "runsync", "status", "status_sync", "stream"]

#: How long /runsync and /status-sync wait without `?wait=`, and what that may be, in seconds.
WAIT_SECONDS, SHORTEST_WAIT, LONGEST_WAIT = 90.0, 1.0, 300.0

#: How long /stream waits, in seconds: some clients ask again at once, and the others give up after 3.
STREAM_WAIT = 1.0

#: Counters of tasks by their end, as /health calls them.
ENDS = {"completed": State.SUCCEEDED, "failed": State.FAILED}


async def run(request: web.Request) -> web.Response:
    """Queue a job, and answer its id."""
    if not request.app[RUNNER].can_submit:
        raise InvalidRequest(
            "On this platform an instance does not go on after its answer, so an engine takes no /run. Send it to a "
            "front (AGENT_ROLE=front), or use /runsync."
        )
    record = await request.app[RUNNER].submit(await read_job(request), name_tasks(request))
    return json_response({"id": record.id, "status": status_of(record)}, headers={"task-id": record.id})


async def runsync(request: web.Request) -> web.StreamResponse:
    """Run a job and answer its result; after `?wait=` milliseconds how it is by then, and it goes on."""
    wait, runner = _wait(request), request.app[RUNNER]
    job, name = await read_job(request), name_tasks(request)
    if not runner.can_submit:  # what is not over with this request would stand still after it
        return await answer_early(request, _run_and_tell(request, job, name or new_task_id()))
    # Before the answer may begin: a job that was not taken has no status, which is what is looked for in a late one.
    record = await runner.submit(job, name)
    return await answer_early(request, _wait_and_tell(request.app, record.id, wait))


async def status(request: web.Request) -> web.Response:
    """How a job is, with its result once it is over."""
    return await _tell(request.app, await request.app[BOARD].get(_id(request)))


async def status_sync(request: web.Request) -> web.StreamResponse:
    """How a job is once it is over, or after `?wait=` milliseconds. So RunPod's client for JavaScript waits for jobs
    that outlast its /runsync."""
    job_id, wait = _id(request), _wait(request)
    return await answer_early(request, _wait_and_tell(request.app, job_id, wait))


async def stream(request: web.Request) -> web.Response:
    """How a job is, within a second: a job of worker-comfyui streams nothing, so callers only learn when it is over."""
    record = await _follow(request.app, _id(request), STREAM_WAIT)
    return json_response(
        {"id": record.id, "status": status_of(record), "stream": []}, headers={"task-id": record.id}
    )


async def cancel(request: web.Request) -> web.Response:
    """End a job; one that is over stays as it is."""
    record = await request.app[RUNNER].cancel(_id(request))
    return json_response({"id": record.id, "status": status_of(record)}, headers={"task-id": record.id})


async def health(request: web.Request) -> web.Response:
    """What this one instance does: it is the worker, and knows of no other."""
    queue, metrics = request.app[RUNNER].queue(), request.app[METRICS]
    counts = metrics.values("tasks_total").items()
    ended = {name: sum(n for labels, n in counts if labels[0] == state) for name, state in ENDS.items()}
    is_busy, engine = bool(queue["running"]), request.app.get(ENGINE)
    is_up = engine is None or engine.state is EngineState.READY  # a front is always ready to take jobs
    is_failed = engine is not None and engine.state is EngineState.FAILED
    return json_response(
        {
            "jobs": {
                **ended,
                "inProgress": len(queue["running"]),
                "inQueue": len(queue["queued"]),
                "retried": sum(metrics.values("task_retries_total").values()),
            },
            "workers": {
                "idle": int(is_up and not is_busy),
                "initializing": int(not is_up and not is_failed),
                "ready": int(is_up and not is_busy),
                "running": int(is_busy),
                "throttled": 0,
                "unhealthy": int(is_failed),
            },
        }
    )


async def refuse(request: web.Request) -> web.Response:
    """What RunPod has beside it."""
    raise NotFound(
        f"{request.path} is not answered here: /run with the same task-id header tries a job again, and jobs are "
        "cancelled one by one."
    )


def render_error(error: AgentError, task_id: str | None = None) -> ErrorResponse:
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after is not None else {}
    if found := task_id or error.task_id:
        headers["task-id"] = found
    response = ErrorResponse(
        body=to_json({"error": error.detail, "code": error.code}),
        status=error.status,
        content_type="application/json",
        headers=headers,
    )
    response.code = error.code
    return response


async def _run_and_tell(request: web.Request, job: RunRequest, task_id: str) -> web.Response:
    try:
        await request.app[RUNNER].run(job, task_id, is_named=True)
    except AgentError as error:
        if error.task_id is None:
            raise  # it was not taken in
    return await _tell(request.app, await request.app[BOARD].get(task_id))


async def _wait_and_tell(app: web.Application, job_id: str, wait: float) -> web.Response:
    return await _tell(app, await _follow(app, job_id, wait))


async def _follow(app: web.Application, job_id: str, wait: float) -> TaskRecord:
    """The job once it is over, or as it is after so many seconds. Raises TaskNotFound, StoreUnavailable."""
    record = await app[BOARD].get(job_id)
    try:
        async with asyncio.timeout(wait), aclosing(app[BOARD].follow(job_id)) as records:
            async for record in records:  # noqa: B007 - the last one is told
                pass
    except TimeoutError:
        pass
    return record


async def _tell(app: web.Application, record: TaskRecord) -> web.Response:
    return json_response(await describe(app, record, time.time()), headers={"task-id": record.id})


def _id(request: web.Request) -> str:
    return check_task_id(request.match_info["id"])


def _wait(request: web.Request) -> float:
    given = request.query.get("wait")
    if given is None:
        return WAIT_SECONDS
    if not (given.isascii() and given.isdigit() and len(given) <= 7):
        raise InvalidQuery("wait is a number of milliseconds, 1000 to 300000.", parameter="wait")
    return min(max(int(given) / 1000, SHORTEST_WAIT), LONGEST_WAIT)
