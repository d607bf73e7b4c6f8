"""How long the lists take for a prompt of 10 KB with 5,000 terms: `python -m tests.labelled.measure_prompts`.

CPU time, the median of 20, so that others on the machine do not count. Then of the longest workflow that is reviewed:
until it is reviewed, and how long it made an event loop wait at most, which is best measured on a quiet machine.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import string
import time
from collections.abc import Iterable

from agent.errors import PromptTooLong
from agent.safety.prompts.review import PromptReview
from agent.safety.prompts.rules import TermRules
from agent.safety.prompts.settings import PromptSettings
from agent.safety.prompts.terms import parse_term
from agent.safety.settings import Mode
from comfyui.workflow import Workflow

BYTES, TERMS = 10_240, 5_000
TICK_SECONDS = 0.002
HAN = [chr(code) for code in range(0x4E00, 0x9FA5)]


def word(source: random.Random, least: int = 2, most: int = 9) -> str:
    return "".join(source.choices(string.ascii_lowercase, k=source.randint(least, most)))


def terms(source: random.Random) -> Iterable[str]:
    for number in range(TERMS):
        match number % 5:
            case 0 | 1:
                yield word(source, 4, 10)
            case 2:
                yield f"{word(source, 4)} {word(source, 4)}"
            case _:
                yield "".join(source.choices(HAN, k=source.randint(2, 4)))


def texts(source: random.Random) -> dict[str, str]:
    words = [word(source) for _ in range(800)]
    return {
        "plain words": _fill(lambda: f"{source.choice(words)} "),
        "weighted tags": _fill(lambda: f"({source.choice(words)}:1.{source.randint(1, 9)}), "),
        "Chinese": _fill(lambda: source.choice([*HAN, *["，"] * 2000])),
        "letters that stand apart": _fill(lambda: f"{source.choice(string.ascii_lowercase)} "),
    }


def _fill(piece: object) -> str:
    assert callable(piece)
    text = ""
    while len(text.encode()) < BYTES:
        text += "".join(piece() for _ in range(100))
    return text.encode()[:BYTES].decode(errors="ignore")


async def measure_longest(rules: TermRules, text: str) -> tuple[float, float]:
    """Seconds until a text of as many characters as are reviewed is, and the longest that the loop stood still."""
    settings = PromptSettings(safety_terms=["examples"])
    review = PromptReview(settings)
    review._rules = rules
    prompt = (text * (settings.safety_prompt_characters // len(text) + 1))[
        : settings.safety_prompt_characters
    ]
    workflow = Workflow.parse({"1": {"class_type": "Draw", "inputs": {"prompt": prompt}}})
    began = before = time.perf_counter()
    waited = 0.0
    checking = asyncio.create_task(review.check(workflow, Mode.ENFORCE))
    while not checking.done():
        await asyncio.sleep(TICK_SECONDS)
        now = time.perf_counter()
        before, waited = now, max(waited, now - before - TICK_SECONDS)
    assert not isinstance((await checking).error, PromptTooLong)
    await review.close()
    return before - began, waited


def main() -> None:
    source = random.Random(1)
    rules = TermRules([parse_term(line, "list", "here") for line in terms(source)])
    for name, text in texts(source).items():
        spent = []
        for _ in range(20):
            began = time.process_time()
            rules.find(text)
            spent.append(time.process_time() - began)
        print(f"{name}: {1000 * statistics.median(spent):.1f} ms")
    for name, text in texts(source).items():
        seconds, waited = asyncio.run(measure_longest(rules, text))
        print(f"{name}, the longest: {seconds:.2f} s, others waited {1000 * waited:.0f} ms at most")


if __name__ == "__main__":
    main()
