"""The settings of the review of prompts."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from agent.safety.settings import Mode, SafetySettings, Thresholds
from agent.settings_types import HttpUrl, SecretUrl, WordList


class PromptClassifierKind(StrEnum):
    """What can look at texts."""

    COMPREHEND = "comprehend"  #: Amazon's
    HTTP = "http"  #: whatever answers at AGENT_SAFETY_PROMPT_URL


def _check_classifiers(names: list[str]) -> list[str]:
    known = [kind.value for kind in PromptClassifierKind]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"{', '.join(unknown)} is none of {', '.join(known)}")
    return names


class PromptSettings(SafetySettings):
    """The settings of the review of prompts; all begin with AGENT_SAFETY_."""

    safety_terms: WordList = Field(
        default_factory=list,
        description="Comma-separated files of banned terms, or folders of such *.txt files; examples: the short lists "
        "that come with the agent.",
    )
    safety_show_terms: bool = Field(
        default=False,
        description="Name the banned term in verdicts and errors, so that callers may learn the lists.",
    )
    safety_prompt_characters: int = Field(
        200_000,
        gt=0,
        description="Most characters of all texts of one workflow that are reviewed; with more of them it is refused, "
        "or warned of where prompts only warn.",
    )
    safety_negative: str = Field(
        "",
        description="Comma-separated terms that the negative text of each sampler that has one is given, "
        "whatever AGENT_SAFETY_PROMPTS says.",
    )
    safety_prompt_classifiers: Annotated[WordList, AfterValidator(_check_classifiers)] = Field(
        default_factory=list,
        description="Comma-separated, what looks at each positive text: comprehend, http. None: nothing does.",
    )
    safety_comprehend_thresholds: Thresholds = Field(
        "*=0.8",
        description="comprehend: labels that may not be run, and from which score on; toxicity is that of the text as "
        "a whole, * any other.",
    )
    safety_comprehend_region: str | None = Field(
        None,
        description="comprehend: its region. Default: AWS_REGION, or what Amazon's tools are set up for.",
    )
    safety_comprehend_endpoint: HttpUrl | None = Field(
        None, description="comprehend: another address than Amazon's own."
    )
    safety_prompt_url: SecretUrl | None = Field(
        None, description="http: the address that each text is posted to. It may be a private one."
    )
    safety_prompt_authorization: SecretStr | None = Field(
        None, description="http: sent to it as the header Authorization."
    )
    safety_prompt_thresholds: Thresholds = Field(
        "*=0.8", description="http: labels that may not be run, and from which score on; * is any other."
    )

    @model_validator(mode="after")
    def _prompts_have_what_they_need(self) -> Self:
        if self.safety_prompts is not Mode.OFF and not (self.safety_terms or self.safety_prompt_classifiers):
            raise ValueError(
                "AGENT_SAFETY_PROMPTS needs something to go by: set AGENT_SAFETY_TERMS, or "
                "AGENT_SAFETY_PROMPT_CLASSIFIERS"
            )
        if PromptClassifierKind.HTTP in self.safety_prompt_classifiers and self.safety_prompt_url is None:
            raise ValueError("AGENT_SAFETY_PROMPT_CLASSIFIERS has http: set AGENT_SAFETY_PROMPT_URL")
        return self
