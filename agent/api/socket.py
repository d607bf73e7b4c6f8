"""GET /api/run/ws: run a workflow over a WebSocket, with progress on the way."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog
from aiohttp import WSMsgType, web
from pydantic_core import from_json, to_json

from agent.admission import RunRequest, new_task_id
from agent.api.endpoint import TASK_ID_HEADER, Answer, Endpoint
from agent.api.keys import BOARD, RUNNER, SETTINGS
from agent.api.parse import find_task_id, parse_run_request
from agent.api.render import answer_body, progress_map
from agent.api.slow import SlowReader, cut_off, reading_limit
from agent.errors import AgentError, InternalError, InvalidRequest, InvalidWorkflow
from agent.tasks.record import TaskRecord

log = structlog.get_logger(__name__)

#: Pings keep boxes on the way from dropping a connection that is silent while a node works.
PING_SECONDS = 20

#: How long a client may take to send its workflow.
FIRST_MESSAGE_SECONDS = 60

#: Least time between two progress messages.
PROGRESS_SECONDS = 0.05


async def run_socket(request: web.Request) -> web.WebSocketResponse:
    """Run a workflow over a WebSocket, with progress on the way.

    The client's first message is the workflow. Its `{"type": "close"}`, or its going away, cancels the run.
    """
    task_id = find_task_id(request) or new_task_id()
    limit = request.app[SETTINGS].max_body_bytes
    socket = web.WebSocketResponse(heartbeat=PING_SECONDS, max_msg_size=limit, compress=False)
    socket.headers["task-id"] = task_id
    if not _can_open(socket, request):
        raise InvalidRequest("This route is a WebSocket. Connect with ws:// or wss://, or POST to /api/run.")
    await socket.prepare(request)
    with suppress(ConnectionError, SlowReader):
        try:
            message = await socket.receive(timeout=FIRST_MESSAGE_SECONDS)
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                body = message.data.encode() if message.type is WSMsgType.TEXT else message.data
                await _run(request, socket, await parse_run_request(request.app, body), task_id)
        except AgentError as error:
            await _send(socket, "error", to_json(error.to_body(task_id)))
        except SlowReader:
            cut_off(request)
            raise
        except TimeoutError:
            late = InvalidWorkflow("No workflow came. Send it as the first message.")
            await _send(socket, "error", to_json(late.to_body(task_id)))
        except Exception:  # the client shall hear of it: a socket that only closes tells him nothing
            log.exception("socket.crashed", task_id=task_id)
            await _send(socket, "error", to_json(InternalError().to_body(task_id)))
        await socket.close()
    return socket


def _can_open(socket: web.WebSocketResponse, request: web.Request) -> bool:
    try:
        return bool(socket.can_prepare(request))
    except ValueError:  # a Sec-WebSocket-Key that is not even ASCII
        return False


async def _run(request: web.Request, socket: web.WebSocketResponse, wanted: RunRequest, task_id: str) -> None:
    """Run and send the result, unless the client leaves first."""

    async def show(record: TaskRecord) -> None:
        if not record.state.is_final:
            await _send(socket, "progress", to_json(progress_map(record)))
            await asyncio.sleep(PROGRESS_SECONDS)

    is_named = find_task_id(request) is not None
    work = asyncio.create_task(request.app[RUNNER].run(wanted, task_id, is_named=is_named, show=show))
    left = asyncio.create_task(_until_left(socket))
    try:
        await asyncio.wait((work, left), return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            await _send(socket, "result", await answer_body(request.app[BOARD], work.result()))
    finally:
        left.cancel()
        work.cancel()
        await asyncio.gather(work, left, return_exceptions=True)


async def _until_left(socket: web.WebSocketResponse) -> None:
    """Return when the client says close, or is gone."""
    async for message in socket:
        with suppress(ValueError, AttributeError):
            if message.type is WSMsgType.TEXT and from_json(message.data).get("type") == "close":
                return


async def _send(socket: web.WebSocketResponse, kind: str, data: bytes) -> None:
    """Send `{"type": kind, "data": data}`; `data` is JSON already, and may be large. Raises SlowReader."""
    async with reading_limit():
        await socket.send_frame(b'{"type":"%s","data":%s}' % (kind.encode(), data), WSMsgType.TEXT)


ENDPOINTS = [
    Endpoint(
        "GET",
        "/api/run/ws",
        run_socket,
        {101: Answer("A WebSocket.", media_type=None)},
        (TASK_ID_HEADER,),
    ),
]
