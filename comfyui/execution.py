"""One prompt from its submission to its end: the feed tells quickly, `/history` and `/queue` tell for certain."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Any, Self, TypeGuard

import structlog

from comfyui.client import Client, HistoryEntry, Submitted
from comfyui.errors import ComfyUIError, UnexpectedAnswerError
from comfyui.events import Event, PromptEnded, PromptFailed, PromptInterrupted, PromptSucceeded, parse_data
from comfyui.feed import ConnectionLost, ConnectionRestored, Feed

log = structlog.get_logger(__name__)

#: So many answers in a row that cannot be understood end an execution.
ODD_ANSWERS = 5

#: After the success or error message the final one follows within milliseconds, or it was lost.
END_GRACE_SECONDS = 0.5


class Result(StrEnum):
    """How a prompt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"  #: a node raised
    INTERRUPTED = "interrupted"
    LOST = "lost"  #: neither queued, nor running, nor in the history
    STALLED = "stalled"  #: running for ever: the engine shows no sign of work on it


@dataclass(frozen=True, slots=True)
class Ended(Event):
    """The last event of every execution. `history` is there when the end was learnt over HTTP, because events
    were missed: then its outputs are the whole truth. `error` is there for FAILED and INTERRUPTED, if known."""

    result: Result
    error: PromptFailed | PromptInterrupted | None = None
    history: HistoryEntry | None = field(default=None, repr=False)


_Finish = PromptSucceeded | PromptFailed | PromptInterrupted


class Execution:
    """Submits one prompt and follows it. A context manager, entered once:

        with Execution(client, feed, silence_seconds=2, stall_seconds=900) as execution:
            await execution.submit(graph)
            async for event in execution.events():
                ...  # the last one is an Ended

    Leaving it does not stop the prompt; `stop` does, also afterwards, and `close` ends what is under way.
    `missed_events` tells whether messages may have been lost on the way; what only messages carry, such as streamed
    pictures, is lost with them.
    """

    def __init__(self, client: Client, feed: Feed, *, silence_seconds: float, stall_seconds: float) -> None:
        self.prompt_id = str(uuid.uuid4())
        self._client, self._feed, self._silence_seconds = client, feed, silence_seconds
        self._follower = feed.follow(self.prompt_id)
        self._stall_seconds, self._silent_seconds = stall_seconds, 0.0
        self._is_running = False
        self._has_begun = False
        self._doubts_socket = False
        self._odd_answers = 0
        self._submission: asyncio.Task[Submitted] | None = None
        self.missed_events = False
        self._finish: _Finish | None = None

    def __enter__(self) -> Self:
        self._events = self._follower.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._follower.__exit__(kind, error, trace)

    async def submit(
        self,
        graph: Mapping[str, Any],
        *,
        extra_data: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Submitted:
        """Queue the workflow under this execution's prompt id. Raises as `Client.submit` does."""
        self.missed_events = not self._feed.is_connected
        self._submission = asyncio.create_task(
            self._client.submit(
                graph,
                prompt_id=self.prompt_id,
                client_id=self._feed.client_id,
                extra_data=extra_data,
                options=options,
            )
        )
        # A request that is cut off half-way may still arrive: it is let finish, so that `stop` knows what to stop.
        return await asyncio.shield(self._submission)

    async def events(self) -> AsyncIterator[Event]:
        """The prompt's events, ended by one Ended. Silence, a broken socket or a lost message delay the end, but
        never hide it; only an engine that cannot be asked any more makes this wait on."""
        while True:
            patience = END_GRACE_SECONDS if self._finish is not None else self._silence_seconds
            event = await self._next(patience)
            ended: Ended | None = None
            match event:
                case None:
                    ended = await self._after_silence(patience)
                case ConnectionRestored():
                    ended = await self._look_up()
                case ConnectionLost():
                    self.missed_events = True
                case PromptEnded():
                    ended = await self._end()
                case _:
                    self._has_begun, self._silent_seconds, self._doubts_socket = True, 0.0, False
                    if _is_finish(event):
                        self._finish = event
                    yield event
            if ended is not None:
                for late in self._late_events():
                    yield late
                yield ended
                return

    async def stop(self) -> Ended:
        """Take the prompt out of the queue, or interrupt it, and wait until the engine is done with it.

        No other prompt is touched. First the queue, then the interrupt: whatever moment the prompt starts, one
        of the two meets it. Both are asked again after each event and each silence, since ComfyUI forgets an
        interrupt that comes while the prompt begins, and looks at one only between nodes and at progress steps.
        Waits as long as the engine does not answer: set a deadline.
        """
        if self._submission is not None:
            await asyncio.wait((self._submission,))
        while True:
            with contextlib.suppress(ComfyUIError):
                await self._client.dequeue(self.prompt_id)
                await self._client.interrupt(self.prompt_id)
            if ended := await self._look_up():
                return ended
            await self._next(patience=END_GRACE_SECONDS)

    async def close(self) -> None:
        """Give up a submission that is still on its way, if there is one."""
        if self._submission is not None:
            self._submission.cancel()
            await asyncio.gather(self._submission, return_exceptions=True)

    async def _next(self, patience: float) -> Event | None:
        """The next event, or None after so many seconds of silence."""
        if not self._events.empty():  # a timer for each of them would cost more than the event
            return self._events.get_nowait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                return await self._events.get()
        return None

    def _late_events(self) -> Iterator[Event]:
        """What came while the end was being looked up: pictures sent over the WebSocket are nowhere else."""
        while not self._events.empty():
            event = self._events.get_nowait()
            if not isinstance(event, ConnectionLost | ConnectionRestored | PromptEnded):
                yield event

    async def _after_silence(self, seconds: float) -> Ended | None:
        """Look the prompt up. One that runs in silence for too long has met a dead worker thread: ComfyUI goes on
        answering over HTTP then, for ever. The sum counts waits, not the clock, which jumps when an instance is
        frozen; and a prompt that only waits in the queue is no sign of anything."""
        ended = await self._look_up()
        if ended is not None:
            if self._finish is None and self._events.empty():
                self.missed_events = True
                self._feed.reconnect()  # it ended, and this socket was not told
            return ended
        self._silent_seconds = self._silent_seconds + seconds if self._is_running else 0.0
        if self._silent_seconds >= self._stall_seconds / 2 and not self._doubts_socket:
            self._doubts_socket = True
            self._feed.reconnect()  # the silence may be the socket's: ComfyUI forgets sockets that stay open
        if self._silent_seconds >= self._stall_seconds:
            return Ended(self.prompt_id, Result.STALLED)
        return None

    async def _end(self) -> Ended | None:
        """What the final message means: only with every event at hand is it enough by itself."""
        if self.missed_events or self._finish is None:
            return await self._look_up()
        return _told(self.prompt_id, self._finish)

    async def _look_up(self) -> Ended | None:
        """Ask the engine. None: the prompt waits or runs, or the engine does not answer at the moment.

        Raises UnexpectedAnswerError when it keeps answering what cannot be understood.
        """
        try:
            entry = await self._client.history(self.prompt_id)
            if entry is None:
                queue = await self._client.queue()
                self._is_running = self.prompt_id in queue.running
                if self.prompt_id in queue:
                    return None
                # It may have ended between the two questions.
                entry = await self._client.history(self.prompt_id)
                if entry is None and self._has_begun:
                    await asyncio.sleep(
                        END_GRACE_SECONDS
                    )  # to call finished work lost is dear: it runs again
                    entry = await self._client.history(self.prompt_id)
        except UnexpectedAnswerError as exc:
            self._odd_answers += 1
            if self._odd_answers >= ODD_ANSWERS:
                raise
            log.debug("prompt.not_looked_up", prompt_id=self.prompt_id, reason=str(exc))
            return None
        except ComfyUIError as exc:
            log.debug("prompt.not_looked_up", prompt_id=self.prompt_id, reason=str(exc))
            return None
        self._odd_answers = 0
        if entry is not None:
            return _ended(self.prompt_id, entry)
        if self._finish is not None and not self.missed_events:
            return _told(self.prompt_id, self._finish)  # somebody emptied the history
        return Ended(self.prompt_id, Result.LOST)


def _is_finish(event: Event) -> TypeGuard[_Finish]:
    """Whether only the final message can come after this event."""
    if isinstance(event, PromptFailed):
        return not event.is_blocked_output
    return isinstance(event, PromptSucceeded | PromptInterrupted)


def _told(prompt_id: str, finish: _Finish) -> Ended:
    """The end that the events told."""
    match finish:
        case PromptFailed():
            return Ended(prompt_id, Result.FAILED, finish)
        case PromptInterrupted():
            return Ended(prompt_id, Result.INTERRUPTED, finish)
        case PromptSucceeded():
            return Ended(prompt_id, Result.SUCCEEDED)


def _ended(prompt_id: str, entry: HistoryEntry) -> Ended:
    """Read the end from a history entry. An interrupted prompt has status "error" there too."""
    if entry.succeeded:
        return Ended(prompt_id, Result.SUCCEEDED, None, entry)
    for event in (parse_data(kind, data) for kind, data in entry.messages):
        if isinstance(event, PromptInterrupted):
            return Ended(prompt_id, Result.INTERRUPTED, event, entry)
        if isinstance(event, PromptFailed):
            return Ended(prompt_id, Result.FAILED, event, entry)
    return Ended(prompt_id, Result.FAILED, None, entry)
