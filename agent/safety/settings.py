"""The settings of the review. Everything is off unless the operator asks for it."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field
from pydantic_settings import BaseSettings


class Mode(StrEnum):
    """What comes of what a part of the review finds."""

    OFF = "off"  #: it does not look
    WARN = "warn"  #: it is noted in the record
    ENFORCE = "enforce"  #: it has consequences

    @property
    def strength(self) -> int:
        """Grows with how strict it is."""
        return list(Mode).index(self)


class Down(StrEnum):
    """What a classifier that gives no answer means."""

    OPEN = "open"  #: the task goes on, and its record warns of it
    CLOSED = "closed"  #: the task fails for now


class SafetySettings(BaseSettings):
    """The settings that begin with AGENT_SAFETY_, but for those of the prompts."""

    safety_prompts: Mode = Field(
        Mode.OFF, description="What comes of a prompt that may not be run: off, warn or enforce."
    )
    safety_images: Mode = Field(
        Mode.OFF, description="What comes of a picture that may not be shown: off, warn or enforce."
    )
    safety_failed_images: Mode = Field(
        Mode.OFF,
        description="What comes of a picture that is black, of one colour, or noise: off, warn or enforce.",
    )
    safety_classifier_down: Down = Field(
        Down.CLOSED,
        description="What a classifier that gives no answer means: open (go on, and warn) or closed (fail for now).",
    )
