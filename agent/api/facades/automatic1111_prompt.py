"""What AUTOMATIC1111's prompts say beside words: `<lora:NAME:WEIGHT>`."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from agent.errors import InvalidParameter

TAG = re.compile(r"<(lora|lyco|hypernet):([^<>:]{1,200})((?::[^<>:]{0,40}){0,8})>")


class Lora(NamedTuple):
    """A LoRA by the name that the prompt gives it."""

    name: str
    weight: float


def read_prompt(prompt: str, *, is_used: bool = True) -> tuple[str, Lora | None]:
    """The prompt without tags, and its LoRA. `is_used`: whether tags count. Raises InvalidParameter."""
    tags = TAG.findall(prompt)
    words = TAG.sub("", prompt).strip() if tags else prompt
    if not tags or not is_used:
        return words, None
    if any(kind == "hypernet" for kind, *_ in tags):
        raise _refused("hypernetworks are not known here")
    if len(tags) > 1:
        raise _refused("one LoRA at most is used here")
    _, name, values = tags[0]
    return words, Lora(name.strip(), _weight(values))


def _weight(values: str) -> float:
    """The weight after the name; in the long form those of both parts are the same here."""
    given = values.removeprefix(":").split(":") if values else []
    try:
        found = {float(value.rpartition("=")[2]) for value in given}
    except ValueError:
        raise _refused("a LoRA is written <lora:NAME:WEIGHT>") from None
    if any("=" in value and value.partition("=")[0] not in ("te", "unet") for value in given):
        raise _refused("of a LoRA the weights te and unet are known here")
    if len(found) > 1:
        raise _refused("a LoRA has one weight here, for text encoder and unet alike")
    weight = found.pop() if found else 1.0
    if not math.isfinite(weight):
        raise _refused("the weight of a LoRA is a number")
    return weight


def _refused(reason: str) -> InvalidParameter:
    return InvalidParameter(f'Parameter "prompt": {reason}.', parameter="prompt")
