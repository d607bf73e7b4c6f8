"""The review of long prompts: it takes a CPU for a while, and must leave the rest of the process alone; and what is too
long for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from agent.errors import PromptRefused, PromptTooLong
from agent.safety.prompts.review import INLINE_CHARACTERS, PARALLEL_LOOKS, PromptReview
from agent.safety.settings import Mode
from agent.safety.verdict import Action
from agent.settings import Settings
from comfyui.workflow import Workflow

#: How long threads may take to come together on a busy machine.
PATIENCE_SECONDS = 30


def drawing(prompt: Any) -> Workflow:
    return Workflow.parse({"1": {"class_type": "Draw", "inputs": {"prompt": prompt, "style": "oil"}}})


def looks_of(review: PromptReview, patch: pytest.MonkeyPatch) -> list[str]:
    """The names of the threads in which texts are compared with the lists, one for each text."""
    found: list[str] = []
    rules = review._rules
    assert rules is not None
    find = rules.find

    def noted(text: str) -> Any:
        found.append(threading.current_thread().name)
        return find(text)

    patch.setattr(rules, "find", noted)
    return found


@pytest.fixture
async def review() -> AsyncIterator[PromptReview]:
    made = PromptReview(Settings(safety_terms=["examples"], safety_prompt_characters=20_000))
    yield made
    await made.close()


async def test_text_is_compared_once_however_often_it_stands_there(
    review: PromptReview, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = looks_of(review, monkeypatch)
    await review.check(drawing(["a harbour"] * 10), Mode.ENFORCE)
    assert len(looks) == 2


@pytest.mark.parametrize("text", ["fog, " * (INLINE_CHARACTERS // 4), "\ufdfa" * (INLINE_CHARACTERS // 16)])
@pytest.mark.parametrize("wrapped", [lambda text: text, lambda text: [text], lambda text: {"a": [[text]]}])
async def test_long_text_is_looked_at_in_a_thread_wherever_it_stands(
    review: PromptReview, monkeypatch: pytest.MonkeyPatch, wrapped: Callable[[str], Any], text: str
) -> None:
    looks = looks_of(review, monkeypatch)
    await review.check(drawing(wrapped(text)), Mode.ENFORCE)
    assert looks
    assert all(name.startswith("prompt-review") for name in looks)


async def test_many_links_are_followed_in_a_thread(
    review: PromptReview, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = looks_of(review, monkeypatch)
    links = {f"in{number}": ["1", number] for number in range(INLINE_CHARACTERS)}
    nodes = {
        "1": {"class_type": "Words", "inputs": {"text": "fog"}},
        "2": {"class_type": "Mix", "inputs": links},
    }
    await review.check(Workflow.parse(nodes), Mode.ENFORCE)
    assert [name.startswith("prompt-review") for name in looks] == [True]


async def test_place_with_most_of_the_text_is_named(review: PromptReview) -> None:
    many = {"class_type": "Draw", "inputs": {"prompt": "a harbour " * 100, "words": ["fog"] * 1000}}
    checked = await review.check(Workflow.parse({"1": many}), Mode.ENFORCE)
    assert isinstance(checked.error, PromptTooLong)
    assert checked.error.facts["input"] == "words"


@pytest.mark.parametrize(
    "prompt",
    [
        "fog, " * 4000,
        ["fog, " * 400] * 10,
        [str(number) for number in range(1000)],  # each takes its time too
        "\ufdfa" * 1200,  # each is as long as 18 letters
    ],
)
async def test_more_text_than_is_reviewed_is_refused(review: PromptReview, prompt: Any) -> None:
    checked = await review.check(drawing(prompt), Mode.ENFORCE)
    assert isinstance(checked.error, PromptTooLong)
    facts = checked.error.facts
    assert (facts["node_id"], facts["input"], facts["limit"]) == ("1", "prompt", 20_000)
    assert not checked.texts


async def test_text_up_to_the_limit_is_reviewed_to_its_end(review: PromptReview) -> None:
    checked = await review.check(drawing("fog, " * 3990 + " pistols"), Mode.ENFORCE)
    assert isinstance(checked.error, PromptRefused)


async def test_where_prompts_only_warn_too_long_ones_are_warned_of(review: PromptReview) -> None:
    checked = await review.check(drawing("fog, " * 5000), Mode.WARN)
    assert checked.error is None
    assert [warning["code"] for warning in checked.warnings] == ["PromptTooLong"]
    assert [(v.step, v.category, v.action) for v in checked.verdicts] == [
        ("prompts", "too-long", Action.WARN)
    ]


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
        looks = (review.check(workflow, Mode.ENFORCE) for _ in range(4 * PARALLEL_LOOKS))
        found = await asyncio.gather(*looks)
    finally:
        await review.close()
    assert all(reviewed.error is None for reviewed in found)
    assert most == PARALLEL_LOOKS
