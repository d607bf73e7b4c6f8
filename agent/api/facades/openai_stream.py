"""The streamed form of OpenAI's Images API: Server-Sent Events with previews on the way, and the picture at the end."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

import pybase64
import structlog
from aiohttp import web
from pydantic_core import to_json

from agent.api.facades.answering import EVENTS, EarlyAnswer, run_tasks
from agent.api.facades.openai_answers import describe
from agent.api.facades.openai_input import Edit, Generation
from agent.api.facades.request import Prepared
from agent.api.facades.results import Picture, as_bytes, check_size, pictures_of
from agent.api.keys import BOARD, SETTINGS
from agent.api.slow import SlowReader, cut_off, reading_limit
from agent.errors import AgentError, InternalError, InvalidModel, PictureTooLarge, PreviewNotFound
from agent.tasks.record import TaskRecord

log = structlog.get_logger(__name__)

#: Between signs of life, where no early answers are set.
QUIET_SECONDS = 15

#: What a preview is.
PREVIEW = "image/jpeg"


class _Previews:
    """Puts the previews of a task into a queue of events, as many as are wanted."""

    def __init__(self, request: web.Request, given: Generation, events: asyncio.Queue[bytes | None]) -> None:
        self._app, self._given, self._events = request.app, given, events
        self._sent = self._seen = 0

    async def show(self, record: TaskRecord) -> None:
        if record.preview <= self._seen or self._sent >= (self._given.partial_images or 0):
            return
        self._seen = record.preview
        with suppress(PreviewNotFound, InvalidModel, PictureTooLarge):  # over already, or nothing to be shown
            data = await self._app[BOARD].preview(record.id)
            made = await as_bytes(self._app, Picture(PREVIEW, data), self._given.media_type)
            index, self._sent = self._sent, self._sent + 1
            self._events.put_nowait(_event(self._given, "partial_image", made, partial_image_index=index))


async def stream(request: web.Request, given: Generation, prepared: Prepared) -> web.StreamResponse:
    """Run the task and tell of it. An error that comes before anything was sent is raised; a later one is an event."""
    events: asyncio.Queue[bytes | None] = asyncio.Queue()
    previews = _Previews(request, given, events)
    working = asyncio.create_task(_work(request, given, prepared, previews))
    working.add_done_callback(lambda _: events.put_nowait(None))
    response = EarlyAnswer(headers={"Content-Type": EVENTS.media_type, "Cache-Control": "no-store"})
    response.headers["X-Accel-Buffering"] = "no"
    pause = request.app[SETTINGS].early_answer_seconds or QUIET_SECONDS
    try:
        event = await _next(events, pause)
        if event is None:
            working.result()  # raises the error of a task that failed at once
        await response.prepare(request)
        while event is not None:
            async with reading_limit():
                await response.write(event)
            event = await _next(events, pause)
        async with reading_limit():
            await response.write(_last(request, response, working))
            await response.write_eof()
    except SlowReader:
        cut_off(request)
    finally:
        if not working.done():  # the caller left
            working.cancel()
            await asyncio.wait({working})
    return response


async def _next(events: asyncio.Queue[bytes | None], pause: float) -> bytes | None:
    """The next event, or a sign of life where there is none in time; None: there is no further one."""
    try:
        async with asyncio.timeout(pause):
            return await events.get()
    except TimeoutError:
        return EVENTS.filler


async def _work(request: web.Request, given: Generation, prepared: Prepared, previews: _Previews) -> bytes:
    (delivery,) = await run_tasks(request, [prepared], show=previews.show)
    first = (await pictures_of(request.app, prepared.nodes, delivery))[0]
    data = await as_bytes(request.app, first, given.media_type, quality=given.output_compression)
    check_size(request.app, len(data) * 4 // 3)
    nothing = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    usage = {**nothing, "input_tokens_details": {"image_tokens": 0, "text_tokens": 0}}
    return await asyncio.to_thread(_event, given, "completed", data, usage=usage)


def _last(request: web.Request, response: EarlyAnswer, working: asyncio.Task[bytes]) -> bytes:
    try:
        return working.result()
    except AgentError as failure:
        error = failure
    except Exception:  # the status has been sent, so nobody else can say it
        log.exception("request.crashed", method=request.method, path=request.path)
        error = InternalError()
    response.code = error.code
    return b"event: error\ndata: " + to_json({"type": "error", "error": describe(error)}) + b"\n\n"


def _event(given: Generation, what: str, picture: bytes, **more: Any) -> bytes:
    kind = f"image_{'edit' if isinstance(given, Edit) else 'generation'}.{what}"
    data = {
        "type": kind,
        "b64_json": pybase64.b64encode_as_string(picture),
        "background": "opaque",
        "created_at": int(time.time()),
        "output_format": given.output_format or "png",
        "quality": given.quality or "auto",
        "size": given.size or "auto",
        **more,
    }
    return f"event: {kind}\ndata: ".encode() + to_json(data) + b"\n\n"
