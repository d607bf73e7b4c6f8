"""Calls in threads: how many run at a time, whatever their callers do."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar

import pytest

from agent.gate import Gate

PATIENCE_SECONDS = 30

NAME: ContextVar[str] = ContextVar("NAME")


async def test_call_returns_or_raises_as_it_does_elsewhere_and_in_its_callers_context() -> None:
    gate = Gate(1)
    NAME.set("caller")
    assert await gate.run(lambda first, second: f"{first}{second}{NAME.get()}", 1, second=2) == "12caller"
    for _ in range(2):  # the place is free again
        with pytest.raises(ZeroDivisionError):
            await gate.run(lambda: 1 // 0)


async def test_call_that_is_given_up_keeps_its_place_until_it_is_over() -> None:
    gate, begun, may_end = Gate(1), threading.Event(), threading.Event()

    def long() -> None:
        begun.set()
        assert may_end.wait(PATIENCE_SECONDS)
        raise ValueError("to nobody")

    given_up = asyncio.create_task(gate.run(long))
    await asyncio.to_thread(begun.wait, PATIENCE_SECONDS)
    given_up.cancel()
    await asyncio.wait({given_up})
    assert given_up.cancelled()
    ran: list[int] = []
    next_one = asyncio.create_task(gate.run(ran.append, 1))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not ran
    may_end.set()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await next_one
    assert ran == [1]


async def test_call_that_waits_for_its_place_can_be_given_up() -> None:
    gate, may_end = Gate(1), threading.Event()
    first = asyncio.create_task(gate.run(may_end.wait, PATIENCE_SECONDS))
    waiting = asyncio.create_task(gate.run(pytest.fail, "nobody waits for it"))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    may_end.set()
    assert await first
    assert await gate.run(lambda: 1) == 1
