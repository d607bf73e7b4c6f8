"""What one step of the review found of one prompt or picture. The record of the attempt keeps it."""

from __future__ import annotations

from enum import StrEnum

from pydantic import ConfigDict, Field

from agent.model import Model

#: The category of a verdict that found nothing.
NOTHING = "none"


class Action(StrEnum):
    """What became of the task, or of the picture, because of a verdict."""

    PASS = "pass"  #: nothing was found  # noqa: S105 - no password
    WARN = "warn"  #: something was found, and only noted
    BLUR = "blur"  #: the picture was made unrecognizable; the original is gone
    RETRY = "retry"  #: the pictures were thrown away, and made again with new seeds
    FAIL = "fail"  #: the task has failed of it
    REJECT = "reject"  #: the task was refused before the GPU was used


class Verdict(Model):
    """`score` is 0 to 1, the step's own measure of how sure it is of `category`; `ms` is the time that the step took
    for it in milliseconds. `detail` is a sentence for people; it never repeats what was found in full."""

    model_config = ConfigDict(frozen=True)

    step: str  #: such as "failed-image", "prompt-rules", "rekognition"
    category: str = NOTHING
    score: float = Field(0.0, ge=0, le=1)
    action: Action = Action.PASS
    ms: float = 0.0
    node_id: str | None = None
    output_index: int | None = None  #: of the picture, in the order in which the attempt made them
    detail: str | None = None
