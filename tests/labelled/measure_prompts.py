"""How long the lists take for a prompt of 10 KB with 5,000 terms: `python -m tests.labelled.measure_prompts`.

CPU time, the median of 20, so that others on the machine do not count.
"""

from __future__ import annotations

import random
import statistics
import string
import time
from collections.abc import Iterable

from agent.safety.prompts.rules import TermRules
from agent.safety.prompts.terms import parse_term

BYTES, TERMS = 10_240, 5_000
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


if __name__ == "__main__":
    main()
