"""The look-up of a prompt's end at moments that a real engine does not offer on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from comfyui import execution as execution_module
from comfyui.client import Client, HistoryEntry, Queue
from comfyui.errors import EngineUnreachableError, UnexpectedAnswerError
from comfyui.events import (
    Event,
    NodeExecuted,
    PreviewImage,
    PromptEnded,
    PromptFailed,
    PromptInterrupted,
    PromptStarted,
    PromptSucceeded,
)
from comfyui.execution import Ended, Execution, Result
from comfyui.feed import ConnectionLost, ConnectionRestored, Feed

SUCCESS = HistoryEntry(succeeded=True, outputs={"9": {"text": ["a"]}}, messages=())


class Engine(Client):
    """A client whose engine answers look-ups from a list; the last answer stays. An answer may be an error, and may
    be a function that is called at the moment of the question."""

    def __init__(self, *histories: Any, is_running: bool = False) -> None:
        super().__init__("http://127.0.0.1:1")
        self.histories, self.is_running, self.asked = list(histories), is_running, 0

    async def history(self, prompt_id: str) -> HistoryEntry | None:
        self.asked += 1
        answer = self.histories.pop(0) if len(self.histories) > 1 else self.histories[0]
        answer = answer() if callable(answer) else answer
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def queue(self) -> Queue:
        return Queue(("?",) if not self.is_running else (self.prompt_id,), ())

    prompt_id = ""


class Line(Feed):
    """A feed on which the test says what comes."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:1")
        self._connected.set()
        self.renewed = 0

    def reconnect(self) -> None:
        self.renewed += 1

    def say(self, *events: Event) -> None:
        for queue in self._followers.values():
            for event in events:
                queue.put_nowait(event)


async def told(engine: Engine, line: Line, *events: Event, **limits: float) -> list[Event]:
    """What an execution says when these events come, up to its end."""
    with Execution(engine, line, **{"silence_seconds": 0.01, "stall_seconds": 60} | limits) as execution:
        engine.prompt_id = execution.prompt_id
        line.say(*events)
        async with asyncio.timeout(5):
            return [event async for event in execution.events()]


def result(events: list[Event]) -> Result:
    assert isinstance(events[-1], Ended)
    return events[-1].result


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Line:
    monkeypatch.setattr(execution_module, "END_GRACE_SECONDS", 0.02)
    return Line()


async def test_pictures_that_come_during_the_look_up_are_delivered_before_the_end(line: Line) -> None:
    picture = PreviewImage("p", "9", "image/png", b"png")

    def ends_now() -> HistoryEntry:
        line.say(
            picture, ConnectionLost(None), ConnectionRestored(None), PromptSucceeded("p"), PromptEnded("p")
        )
        return SUCCESS

    events = await told(Engine(ends_now), line, PromptStarted("p"))
    assert events[:-1] == [PromptStarted("p"), picture, PromptSucceeded("p")]
    assert result(events) is Result.SUCCEEDED
    assert line.renewed == 0  # the connection works


async def test_an_end_that_nobody_told_renews_the_connection(line: Line) -> None:
    events = await told(Engine(SUCCESS), line)
    assert result(events) is Result.SUCCEEDED
    assert line.renewed == 1


async def test_a_final_message_that_was_lost_is_no_reason_to_renew_the_connection(line: Line) -> None:
    await told(Engine(SUCCESS), line, PromptSucceeded("p"))
    assert line.renewed == 0


async def test_an_entry_that_comes_a_moment_late_is_waited_for(line: Line) -> None:
    events = await told(Engine(None, None, SUCCESS), line, PromptStarted("p"), PromptEnded("p"))
    assert result(events) is Result.SUCCEEDED


async def test_a_prompt_of_which_nothing_was_heard_is_lost_at_once(line: Line) -> None:
    engine = Engine(None)
    assert result(await told(engine, line)) is Result.LOST
    assert engine.asked == 2


FAILED = PromptFailed("p", "3", "KSampler", "RuntimeError", "no", ())


@pytest.mark.parametrize(
    ("finish", "expected"),
    [
        (PromptSucceeded("p"), Result.SUCCEEDED),
        (FAILED, Result.FAILED),
        (PromptInterrupted("p", "3"), Result.INTERRUPTED),
    ],
)
async def test_with_all_events_at_hand_an_emptied_history_changes_nothing(
    line: Line, finish: Event, expected: Result
) -> None:
    events = await told(Engine(None), line, PromptStarted("p"), finish)
    assert result(events) is expected


async def test_with_events_missing_an_emptied_history_means_lost(line: Line) -> None:
    # Its outputs are not known.
    events = await told(
        Engine(None), line, PromptStarted("p"), ConnectionLost(None), PromptSucceeded("p"), PromptEnded("p")
    )
    assert result(events) is Result.LOST


@pytest.mark.parametrize(
    "error", [EngineUnreachableError("gone"), UnexpectedAnswerError("GET /history", 500)]
)
async def test_an_engine_that_cannot_be_asked_decides_nothing(line: Line, error: Exception) -> None:
    events = await told(Engine(error, error, error, SUCCESS), line)
    assert result(events) is Result.SUCCEEDED


async def test_a_long_silence_doubts_the_connection_before_the_engine(line: Line) -> None:
    renewed_at: list[float] = []
    engine = Engine(None, is_running=True)
    line.reconnect = lambda: renewed_at.append(engine.asked)  # type: ignore[method-assign,assignment]
    events = await told(engine, line, stall_seconds=0.1)
    assert result(events) is Result.STALLED
    assert len(renewed_at) == 1
    assert renewed_at[0] < engine.asked - 3


async def test_a_prompt_that_waits_in_the_queue_never_stalls(line: Line) -> None:
    class Waiting(Engine):
        async def queue(self) -> Queue:
            return Queue((), (self.prompt_id,))

    engine = Waiting(*[None] * 30, SUCCESS)
    assert result(await told(engine, line, stall_seconds=0.02)) is Result.SUCCEEDED


def entry_with(*messages: tuple[Any, Any]) -> HistoryEntry:
    return HistoryEntry(succeeded=False, outputs={}, messages=messages)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (entry_with(("execution_start", {}), ("execution_error", {"node_id": "3"})), Result.FAILED),
        (entry_with(("execution_interrupted", {"node_id": "3"})), Result.INTERRUPTED),
        (entry_with(), Result.FAILED),
        (entry_with(("execution_cached", None)), Result.FAILED),
        (entry_with(("execution_error", {"traceback": 5})), Result.FAILED),
        (entry_with((None, None)), Result.FAILED),
    ],
)
async def test_the_end_is_read_from_the_history_whatever_is_in_it(
    line: Line, entry: HistoryEntry, expected: Result
) -> None:
    assert result(await told(Engine(entry), line)) is expected


async def test_outputs_are_passed_on_before_the_end(line: Line) -> None:
    executed = NodeExecuted("p", "9", "9", {"text": ["a"]})
    events = await told(
        Engine(SUCCESS), line, PromptStarted("p"), executed, PromptSucceeded("p"), PromptEnded("p")
    )
    assert events == [
        PromptStarted("p"),
        executed,
        PromptSucceeded("p"),
        Ended(events[-1].prompt_id, Result.SUCCEEDED),
    ]


async def test_stopping_waits_until_the_engine_is_done_with_it(line: Line) -> None:
    done: Callable[[], HistoryEntry] = lambda: entry_with(("execution_interrupted", {}))  # noqa: E731

    class Slow(Engine):
        interrupts = 0

        async def dequeue(self, prompt_id: str) -> None:
            pass

        async def interrupt(self, prompt_id: str) -> None:
            self.interrupts += 1
            if self.interrupts == 1:
                raise EngineUnreachableError("busy")
            line.say(PreviewImage("p", "3", "image/png", b""))

    engine = Slow(None, None, None, done, is_running=True)
    with Execution(engine, line, silence_seconds=1, stall_seconds=60) as execution:
        engine.prompt_id = execution.prompt_id
        async with asyncio.timeout(5):
            ended = await execution.stop()
    assert ended.result is Result.INTERRUPTED
    assert engine.interrupts == 4
