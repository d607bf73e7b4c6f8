"""ComfyUI's /api/jobs for the prompts of its own clients."""

from __future__ import annotations

import re

from aiohttp import web

from agent.api.keys import DESK
from agent.api.parse import read_object
from agent.api.render import json_response
from agent.editor.jobs import STATUSES, Asked, Order, describe, listed
from agent.errors import InvalidParameter, InvalidQuery, TaskNotFound

WHOLE_NUMBER = re.compile(r"-?[0-9]{1,9}")


async def list_jobs(request: web.Request) -> web.Response:
    """GET /api/jobs, newest first: `status`, `workflow_id`, `sort_by`, `sort_order`, `limit`, `offset`."""
    return json_response(listed(request.app[DESK].prompts(), _asked(request)))


async def show_job(request: web.Request) -> web.Response:
    """GET /api/jobs/ID: one that is over with its outputs and its workflow."""
    job_id = request.match_info["job_id"]
    for prompt in request.app[DESK].prompts():
        if prompt.id == job_id:
            return json_response(describe(prompt, whole=True))
    raise TaskNotFound("No client of ComfyUI's has queued a prompt with this id here.", task_id=job_id)


async def cancel_job(request: web.Request) -> web.Response:
    """POST /api/jobs/ID/cancel: whether there was anything to cancel."""
    return await _cancel(request, {request.match_info["job_id"]})


async def cancel_jobs(request: web.Request) -> web.Response:
    """POST /api/jobs/cancel, with the ids in `job_ids`."""
    ids = (await read_object(request)).get("job_ids")
    if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
        raise InvalidParameter("job_ids is a list of the ids of jobs.", parameter="job_ids")
    return await _cancel(request, set(ids))


async def _cancel(request: web.Request, ids: set[str]) -> web.Response:
    return json_response({"cancelled": await request.app[DESK].cancel(running=None, prompt_ids=ids)})


def _asked(request: web.Request) -> Asked:
    """Raises InvalidQuery."""
    query = request.query
    words = [word.strip().lower() for word in query.get("status", "").split(",")]
    statuses = frozenset(filter(None, words)) or frozenset(STATUSES.values())
    if unknown := statuses.difference(STATUSES.values()):
        raise InvalidQuery(
            f"{min(unknown)[:40]!r} is no status; there are {', '.join(STATUSES.values())}.",
            parameter="status",
        )
    order, direction = query.get("sort_by", Order.CREATED).lower(), query.get("sort_order", "desc").lower()
    if order not in tuple(Order):
        raise InvalidQuery(f"sort_by is {' or '.join(Order)}.", parameter="sort_by")
    if direction not in ("asc", "desc"):
        raise InvalidQuery("sort_order is asc or desc.", parameter="sort_order")
    most = _number(request, "limit")
    if most is not None and most < 1:
        raise InvalidQuery("limit is a whole number above 0.", parameter="limit")
    return Asked(
        statuses,
        query.get("workflow_id"),
        Order(order),
        direction == "asc",
        most,
        max(_number(request, "offset") or 0, 0),
    )


def _number(request: web.Request, name: str) -> int | None:
    given = request.query.get(name)
    if given is None:
        return None
    if not WHOLE_NUMBER.fullmatch(given):
        raise InvalidQuery(f"{name} is a whole number.", parameter=name)
    return int(given)


ROUTES = (
    ("GET", "/jobs", list_jobs),
    ("POST", "/jobs/cancel", cancel_jobs),
    ("GET", "/jobs/{job_id}", show_job),
    ("POST", "/jobs/{job_id}/cancel", cancel_job),
)


def routes(base: str) -> list[web.RouteDef]:
    """All of them below this address; ComfyUI has them below /api alone."""
    return [web.route(method, f"{base}{path}", handler) for method, path, handler in ROUTES]
