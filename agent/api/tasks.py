"""The tasks: list, look at, follow, fetch from, cancel. Any instance answers for any task."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from aiohttp import web

from agent.api import render
from agent.api.endpoint import TASK_ID_IN_PATH, Answer, Endpoint, Parameter
from agent.api.keys import BOARD, EVENTS, RUNNER
from agent.api.latest_events import LatestEvents
from agent.api.models import QueueView, TaskPage, TaskView
from agent.api.parse import check_task_id
from agent.api.ranges import part_of
from agent.api.render import error_response, json_response
from agent.api.response import Response
from agent.api.slow import SlowReader, cut_off, reading_limit
from agent.errors import AnswerTooLarge, InvalidQuery, OutputNotFound, RangeNotSatisfiable
from agent.outputs.disposition import content_disposition
from agent.tasks.board import TaskBoard
from agent.tasks.record import Output, State, TaskRecord
from agent.tasks.store import is_cursor

#: A comment line this often keeps boxes on the way from dropping a silent stream.
HEARTBEAT_SECONDS = 20

#: Least time between two events of one stream.
EVENT_SECONDS = 0.1

LARGEST_PAGE = 200


async def list_tasks(request: web.Request) -> web.Response:
    """Recent tasks, newest first. `next` is the value of `before` for the page after this one."""
    board = request.app[BOARD]
    records, following = await board.page(
        state=_state(request), limit=_limit(request), before=_before(request)
    )
    # At once: what signs their URLs may be silent, and shall be waited for once.
    shown = await asyncio.gather(*(render.show_task(board, record) for record in records))
    return json_response({"tasks": shown, "next": following})


async def show_task(request: web.Request) -> web.Response:
    """The whole record of a task."""
    board = request.app[BOARD]
    return json_response(await render.show_task(board, await board.get(_id(request))))


async def cancel_task(request: web.Request) -> web.Response:
    """Cancel; answers with the record as it then is. A task that is over stays as it is."""
    record = await request.app[RUNNER].cancel(_id(request))
    return json_response(await render.show_task(request.app[BOARD], record))


async def stream_task(request: web.Request) -> web.StreamResponse:
    """The record as Server-Sent Events, now and after each change; the stream ends with the final record."""
    board = request.app[BOARD]
    async with aclosing(board.follow(_id(request))) as records:
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
            await _write_events(board, request.app[EVENTS], response, first, records)
        except SlowReader:
            cut_off(request)
    return response


async def fetch_output(request: web.Request) -> web.Response:
    """The bytes of one output, or with a Range header a part of them; a redirect to a signed URL where it lies in the
    object store."""
    index = request.match_info["index"]
    if not (index.isascii() and index.isdigit() and len(index) < 6):
        raise OutputNotFound(f'Outputs are numbered from 0; "{index[:20]}" is no such number.')
    return send_output(request, *await request.app[BOARD].output(_id(request), int(index)))


def send_output(request: web.Request, output: Output, found: bytes | str) -> web.Response:
    """An output's file, or the part of it that is asked for; where it lies in the object store, the way to it."""
    if isinstance(found, str):
        return web.Response(status=302, headers={"Location": found, "Cache-Control": "no-store"})
    headers = {
        "Content-Type": output.media_type,
        "Content-Disposition": content_disposition(output),
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private, max-age=3600, immutable",
        "Accept-Ranges": "bytes",
    }
    # Without a validator, a part is never asked for on the condition that the file is still the same one.
    wanted = None if "If-Range" in request.headers else request.headers.get("Range")
    try:
        part = part_of(wanted, len(found))
    except ValueError as exc:
        response = error_response(RangeNotSatisfiable(f"Ask for another range: {exc}.", bytes=len(found)))
        response.headers["Content-Range"] = f"bytes */{len(found)}"
        return response
    _check_size(len(part or found), len(found), request.app[BOARD].answer_limit)
    if part is None:
        return Response(body=found, headers=headers)
    headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{len(found)}"
    return Response(status=206, body=found[part.start : part.stop], headers=headers)


def _check_size(size: int, whole: int, limit: int | None) -> None:
    """What stands in front of us would cut a larger answer off, or replace it."""
    if limit is not None and size > limit:
        raise AnswerTooLarge(
            f"The output has {whole} bytes, and this server may answer with {limit} at once. Ask for it in parts, with "
            f"a header such as Range: bytes=0-{limit - 1}.",
            bytes=whole,
            limit=limit,
        )


async def fetch_preview(request: web.Request) -> web.Response:
    """The latest picture of what a task at work is making. The record's `preview` changes with each new one."""
    data = await request.app[BOARD].preview(_id(request))
    media_type = "image/png" if data.startswith(b"\x89PNG") else "image/jpeg"  # ComfyUI sends no others
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return web.Response(body=data, content_type=media_type, headers=headers)


async def show_queue(request: web.Request) -> web.Response:
    """What this instance runs, what waits on it, and how much it takes."""
    return json_response(request.app[RUNNER].queue())


async def _write_events(
    board: TaskBoard,
    latest: LatestEvents,
    response: web.StreamResponse,
    record: TaskRecord,
    records: AsyncGenerator[TaskRecord, None],
) -> None:
    """Write `record` and what follows; a comment line whenever nothing comes for a while. The end is written at once,
    other changes with pauses between them."""
    while True:
        await _write(response, await latest.event(board, record))
        if record.state.is_final:
            return
        pause = asyncio.create_task(asyncio.sleep(EVENT_SECONDS))
        upcoming = asyncio.ensure_future(anext(records))
        try:
            while not (await asyncio.wait((upcoming,), timeout=HEARTBEAT_SECONDS))[0]:
                await _write(response, b": still here\n\n")
            record = upcoming.result()
            if not record.state.is_final:
                await pause
        except StopAsyncIteration:
            return
        finally:
            upcoming.cancel()
            pause.cancel()
            await asyncio.gather(upcoming, pause, return_exceptions=True)


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


def _before(request: web.Request) -> str | None:
    given = request.query.get("before")
    if given is not None and not is_cursor(given):
        raise InvalidQuery("before is the `next` of the page before, as it came.", parameter="before")
    return given


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
    Endpoint("GET", "/api/tasks/{id}", show_task, {200: Answer("The task.", TaskView)}, (TASK_ID_IN_PATH,)),
    Endpoint(
        "DELETE", "/api/tasks/{id}", cancel_task, {200: Answer("The task.", TaskView)}, (TASK_ID_IN_PATH,)
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
        {
            200: Answer("The file.", media_type="*/*"),
            206: Answer("The part of it that the Range header asks for.", media_type="*/*"),
            302: Answer("Where the file lies in the object store, for a while.", media_type=None),
        },
        (
            TASK_ID_IN_PATH,
            Parameter("index", "path", {"type": "integer", "minimum": 0}, "The output's index."),
        ),
    ),
    Endpoint(
        "GET",
        "/api/tasks/{id}/preview",
        fetch_preview,
        {200: Answer("The picture.", media_type="image/jpeg", also=("image/png",))},
        (TASK_ID_IN_PATH,),
    ),
    Endpoint("GET", "/api/queue", show_queue, {200: Answer("The queue.", QueueView)}, tag="service"),
]
