"""The tasks: list, look at, follow, fetch from, cancel. Any instance answers for any task."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from urllib.parse import quote

from aiohttp import web
from pydantic_core import to_json

from agent.api.endpoint import TASK_ID_IN_PATH, Answer, Endpoint, Parameter
from agent.api.keys import BOARD, RUNNER
from agent.api.models import QueueView, TaskPage
from agent.api.parse import check_task_id
from agent.api.render import json_response, render_task
from agent.api.slow import SlowReader, cut_off, reading_limit
from agent.errors import InvalidQuery, OutputNotFound
from agent.tasks.record import State, TaskRecord

#: A comment line this often keeps boxes on the way from dropping a silent stream.
HEARTBEAT_SECONDS = 20

#: Least time between two events of one stream.
EVENT_SECONDS = 0.1

LARGEST_PAGE = 200

#: Kinds that a browser may show in place; anything else (HTML, SVG, ...) could run scripts in our origin.
SHOWN_IN_PLACE = (
    "image/png",
    "image/jpeg",
    "image/webp",
    "image/gif",
    "image/avif",
    "video/",
    "audio/",
    "text/plain",
)


async def list_tasks(request: web.Request) -> web.Response:
    """Recent tasks, newest first. `next` is the value of `before` for the page after this one."""
    records, following = await request.app[BOARD].page(
        state=_state(request), limit=_limit(request), before=request.query.get("before")
    )
    return json_response({"tasks": [render_task(record) for record in records], "next": following})


async def show_task(request: web.Request) -> web.Response:
    """The whole record of a task."""
    return json_response(render_task(await request.app[BOARD].get(_id(request))))


async def cancel_task(request: web.Request) -> web.Response:
    """Cancel; answers with the record as it then is. A task that is over stays as it is."""
    return json_response(render_task(await request.app[RUNNER].cancel(_id(request))))


async def stream_task(request: web.Request) -> web.StreamResponse:
    """The record as Server-Sent Events, now and after each change; the stream ends with the final record."""
    async with aclosing(request.app[BOARD].follow(_id(request))) as records:
        first = await anext(records)  # an unknown task is a plain 404
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream",
                "Cache-Control": "no-store",
                "X-Accel-Buffering": "no",
            }
        )
        await response.prepare(request)
        try:
            await _write_events(response, first, records)
        except SlowReader:
            cut_off(request)
    return response


async def fetch_output(request: web.Request) -> web.Response:
    """The bytes of one output."""
    index = request.match_info["index"]
    if not (index.isascii() and index.isdigit() and len(index) < 6):
        raise OutputNotFound(f'Outputs are numbered from 0; "{index[:20]}" is no such number.')
    output, data = await request.app[BOARD].output(_id(request), int(index))
    place = "inline" if output.media_type.startswith(SHOWN_IN_PLACE) else "attachment"
    headers = {
        "Content-Type": output.media_type,
        "Content-Disposition": f"{place}; filename*=UTF-8''{quote(output.filename, safe='')}",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private, max-age=3600, immutable",
    }
    return web.Response(body=data, headers=headers)


async def show_queue(request: web.Request) -> web.Response:
    """What this instance runs, what waits on it, and how much it takes."""
    return json_response(request.app[RUNNER].queue())


async def _write_events(
    response: web.StreamResponse, record: TaskRecord, records: AsyncGenerator[TaskRecord, None]
) -> None:
    """Write `record` and what follows; a comment line whenever nothing comes for a while."""
    while True:
        await _write(response, b"data: %s\n\n" % to_json(render_task(record)))
        if record.state.is_final:
            return
        await asyncio.sleep(EVENT_SECONDS)  # what changes meanwhile comes in one event
        upcoming = asyncio.ensure_future(anext(records))
        try:
            while not (await asyncio.wait((upcoming,), timeout=HEARTBEAT_SECONDS))[0]:
                await _write(response, b": still here\n\n")
            record = upcoming.result()
        except StopAsyncIteration:
            return
        finally:
            upcoming.cancel()
            await asyncio.gather(upcoming, return_exceptions=True)


async def _write(response: web.StreamResponse, data: bytes) -> None:
    async with reading_limit():
        await response.write(data)


def _id(request: web.Request) -> str:
    return check_task_id(request.match_info["id"])


def _state(request: web.Request) -> State | None:
    given = request.query.get("state")
    if given is None:
        return None
    if given not in set(State):
        raise InvalidQuery(f"state is one of {', '.join(State)}.", parameter="state")
    return State(given)


def _limit(request: web.Request) -> int:
    given = request.query.get("limit", "50")
    if not (given.isascii() and given.isdigit() and len(given) <= 3 and 1 <= int(given) <= LARGEST_PAGE):
        raise InvalidQuery(f"limit is a number from 1 to {LARGEST_PAGE}.", parameter="limit")
    return int(given)


ENDPOINTS = [
    Endpoint(
        "GET",
        "/api/tasks",
        list_tasks,
        {200: Answer("A page of tasks.", TaskPage)},
        (
            Parameter("state", "query", {"type": "string", "enum": list(State)}, "Only tasks in this state."),
            Parameter(
                "limit",
                "query",
                {"type": "integer", "minimum": 1, "maximum": LARGEST_PAGE},
                "At most so many.",
            ),
            Parameter("before", "query", {"type": "string"}, "The `next` of the page before."),
        ),
    ),
    Endpoint("GET", "/api/tasks/{id}", show_task, {200: Answer("The task.", TaskRecord)}, (TASK_ID_IN_PATH,)),
    Endpoint(
        "DELETE", "/api/tasks/{id}", cancel_task, {200: Answer("The task.", TaskRecord)}, (TASK_ID_IN_PATH,)
    ),
    Endpoint(
        "GET",
        "/api/tasks/{id}/events",
        stream_task,
        {200: Answer("Server-Sent Events; each `data` is a task record.", media_type="text/event-stream")},
        (TASK_ID_IN_PATH,),
    ),
    Endpoint(
        "GET",
        "/api/tasks/{id}/outputs/{index}",
        fetch_output,
        {200: Answer("The file.", media_type="*/*")},
        (
            TASK_ID_IN_PATH,
            Parameter("index", "path", {"type": "integer", "minimum": 0}, "The output's index."),
        ),
    ),
    Endpoint("GET", "/api/queue", show_queue, {200: Answer("The queue.", QueueView)}, tag="service"),
]
