"""What can look at the texts of a workflow besides the operator's lists."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Protocol

from pydantic_core import to_json

from agent.safety.classifiers.classifier import Label
from agent.safety.classifiers.hook import Hook
from agent.safety.prompts.settings import PromptClassifierKind, PromptSettings
from agent.safety.thresholds import parse_thresholds


class PromptClassifier(Protocol):
    """One classifier. Calls may run at the same time."""

    #: Names it in verdicts, metrics and logs.
    step: str
    #: Label in lower case -> from where on it counts; * is any other.
    thresholds: dict[str, float]

    async def classify(self, text: str) -> list[Label] | None:
        """The labels of a text, in any order; None for one in a language that it does not read.

        Raises ClassifierDown.
        """

    async def close(self) -> None:
        """Let go of connections and threads."""


class PromptHook:
    """The HTTP hook for texts: each is posted to it as `{"text": ...}`."""

    step = "prompt-hook"

    def __init__(self, hook: Hook, thresholds: dict[str, float]) -> None:
        self._hook, self.thresholds = hook, thresholds

    async def classify(self, text: str) -> list[Label] | None:
        return await self._hook.ask(to_json({"text": text}), "application/json")

    async def close(self) -> None:
        await self._hook.close()


def build_prompt_classifiers(settings: PromptSettings) -> list[PromptClassifier]:
    """In the order of the setting. Nothing is asked yet. Raises ValueError for what cannot work."""
    return [_build(PromptClassifierKind(name), settings) for name in settings.safety_prompt_classifiers]


def _build(kind: PromptClassifierKind, settings: PromptSettings) -> PromptClassifier:
    match kind:
        case PromptClassifierKind.COMPREHEND:
            if find_spec("boto3") is None:
                raise ValueError(
                    "AGENT_SAFETY_PROMPT_CLASSIFIERS has comprehend, which needs boto3: install comfyui-agent[aws]"
                )
            from agent.safety.prompts.comprehend import Comprehend  # noqa: PLC0415

            return Comprehend(
                parse_thresholds(settings.safety_comprehend_thresholds),
                region=settings.safety_comprehend_region,
                endpoint=settings.safety_comprehend_endpoint,
                seconds=settings.safety_classifier_seconds,
            )
        case PromptClassifierKind.HTTP:
            hook = Hook(settings.safety_prompt_url, settings.safety_prompt_authorization)
            return PromptHook(hook, parse_thresholds(settings.safety_prompt_thresholds))
