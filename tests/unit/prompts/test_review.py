"""The review of long prompts: it takes a CPU for a while, and must leave the rest of the process alone."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from agent.safety.prompts.review import INLINE_CHARACTERS, PARALLEL_LOOKS, PromptReview
from agent.safety.settings import Mode
from agent.settings import Settings
from comfyui.workflow import Workflow

#: How long threads may take to come together on a busy machine.
PATIENCE_SECONDS = 30


async def test_long_prompts_take_no_more_than_their_own_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    review = PromptReview(Settings(safety_terms=["examples"]))
    at_once, most, lock = 0, 0, threading.Lock()
    everybody = threading.Barrier(PARALLEL_LOOKS)
    rules = review._rules
    assert rules is not None
    find = rules.find

    def counted(text: str) -> Any:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        everybody.wait(PATIENCE_SECONDS)
        with lock:
            at_once -= 1
        return find(text)

    monkeypatch.setattr(rules, "find", counted)
    text = "a harbour in fog, " * (INLINE_CHARACTERS // 10)
    workflow = Workflow.parse({"1": {"class_type": "Draw", "inputs": {"prompt": text}}})
    try:
        looks = (review.check_quickly(workflow, Mode.ENFORCE) for _ in range(4 * PARALLEL_LOOKS))
        found = await asyncio.gather(*looks)
    finally:
        await review.close()
    assert all(reviewed.error is None for reviewed in found)
    assert most == PARALLEL_LOOKS
