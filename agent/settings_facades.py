"""Settings of the facades: routes of other image APIs that lead to named workflows."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from agent.settings_types import SettingsGroup, split_words


class FacadeName(StrEnum):
    """The APIs whose callers need only another base URL."""

    CLOUDFLARE = "cloudflare"
    OPENAI = "openai"
    RUNPOD = "runpod"
    AUTOMATIC1111 = "automatic1111"


#: The facades that can be open to everybody: their callers choose among the models of the table and see nothing of
#: each other. The others take workflows of their callers' own, or let them meddle with the tasks of others.
FOR_PAGES = (FacadeName.CLOUDFLARE, FacadeName.OPENAI, FacadeName.AUTOMATIC1111)


def _read(value: Any) -> Any:
    """Names of facades from their words; the word `none` means that there are none."""
    words = [] if value == "none" else split_words(value)
    if unknown := [str(word) for word in words if word not in list(FacadeName)]:
        raise ValueError(
            f"{', '.join(unknown)} is none of {', '.join(FacadeName)}; write `none` for none of them"
        )
    return list(dict.fromkeys(words))


FacadeList = Annotated[list[FacadeName], BeforeValidator(_read)]


class FacadeSettings(SettingsGroup):
    """Which facades there are, who may use them, and what they run."""

    facades: FacadeList = Field(
        default_factory=lambda: list(FacadeName),
        description="Comma-separated APIs whose routes are answered too (docs/compatibility.md); none: no other's.",
    )
    keyless_facades: FacadeList = Field(
        default_factory=list,
        description="Comma-separated ones of them that need no API key, for pages: whoever reaches them may use them.",
    )
    models: str | None = Field(
        None,
        description="A YAML file: which named workflow serves which model name of those APIs, beside our own table.",
    )
    early_answer_seconds: float = Field(
        5,
        ge=0,
        description="Facades: a JSON answer begins after so long, and goes on with spaces until the result is there, "
        "for gateways that give up on silence. 0: never early.",
    )

    @model_validator(mode="after")
    def _keyless_ones_can_be(self) -> Self:
        if guarded := [name for name in self.keyless_facades if name not in FOR_PAGES]:
            raise ValueError(
                f"AGENT_KEYLESS_FACADES: {', '.join(guarded)} cannot be without a key; {', '.join(FOR_PAGES)} can"
            )
        if closed := [name for name in self.keyless_facades if name not in self.facades]:
            raise ValueError(
                f"AGENT_KEYLESS_FACADES names {', '.join(closed)}, which AGENT_FACADES does not open"
            )
        return self
