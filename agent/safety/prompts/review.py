"""The review of a workflow's texts: the lists, the classifiers, and what is added to negative texts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import structlog

from agent.errors import ClassifierUnavailable, PromptRefused
from agent.metrics import Metrics
from agent.safety.classifiers.classifier import ClassifierDown, ask
from agent.safety.prompts.classifier import PromptClassifier, build_prompt_classifiers
from agent.safety.prompts.negative import Addition, add_negative, split_terms
from agent.safety.prompts.rules import TermRules
from agent.safety.prompts.settings import PromptSettings
from agent.safety.prompts.terms import load_terms
from agent.safety.prompts.texts import Text, find_texts
from agent.safety.settings import Down, Mode
from agent.safety.thresholds import threshold_of
from agent.safety.verdict import NOTHING, Action, Verdict
from comfyui.catalog import Catalog
from comfyui.workflow import Workflow

log = structlog.get_logger(__name__)

T = TypeVar("T")

#: Names the steps in verdicts and metrics.
RULES, NEGATIVE = "prompt-rules", "negative-prompt"

#: What is found is told of so many places of one workflow; one is enough to refuse it.
MOST_FINDINGS = 20

#: Workflows with less text are looked at on the event loop.
INLINE_CHARACTERS = 8_000

#: Longer ones of all tasks that are looked at at the same time. Megabytes take seconds of a CPU, so they have threads
#: of their own: other work of the process does not wait for them.
PARALLEL_LOOKS = 2

#: Texts of a task that classifiers are asked about at the same time.
PARALLEL = 4


@dataclass(frozen=True, slots=True)
class Reviewed:
    """What a step found. `error` is what the task is refused of, if it is."""

    verdicts: list[Verdict] = field(default_factory=list)
    error: PromptRefused | ClassifierUnavailable | None = None
    warnings: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Finding:
    text: Text
    step: str
    category: str
    score: float
    ms: float
    term: str | None = None


class PromptReview:
    """Reviews workflows by what the operator has set up. The lists are read once, here.

    Raises ValueError for settings that cannot work: a list that cannot be read, a classifier that is not installed.
    """

    def __init__(self, settings: PromptSettings, metrics: Metrics | None = None) -> None:
        self._settings, self._metrics = settings, metrics
        self._rules = TermRules(load_terms(settings.safety_terms)) if settings.safety_terms else None
        self._classifiers: Sequence[PromptClassifier] = build_prompt_classifiers(settings)
        self._added = split_terms(settings.safety_negative)
        self._threads = ThreadPoolExecutor(PARALLEL_LOOKS, thread_name_prefix="prompt-review")

    @property
    def can_review(self) -> bool:
        """Whether there is anything to go by."""
        return self._rules is not None or bool(self._classifiers)

    @property
    def summary(self) -> str:
        """What there is, for people."""
        parts = [f"{self._rules.size} terms"] if self._rules is not None else []
        parts += [classifier.step for classifier in self._classifiers]
        parts += [f"{len(self._added)} terms for negative texts"] if self._added else []
        return ", ".join(parts)

    def check(self, workflow: Workflow, mode: Mode, catalog: Catalog | None = None) -> Reviewed:
        """Compare the texts with the lists. Needs no network, and takes milliseconds for 10 KB."""
        if self._rules is None or mode is Mode.OFF:
            return Reviewed()
        began = time.perf_counter()
        found: list[_Finding] = []
        for text in self._positive(workflow, catalog):
            categories: dict[str, str] = {}
            for match in self._rules.find(text.value):
                categories.setdefault(match.category, match.term.line)
            found += [_Finding(text, RULES, name, 1.0, 0.0, term) for name, term in categories.items()]
        ms = round((time.perf_counter() - began) * 1000, 2)
        self._observe(RULES, ms)
        if not found:
            return Reviewed([Verdict(step=RULES, ms=ms)])
        return self._judge(workflow, mode, [_with_ms(finding, ms) for finding in found])

    async def check_quickly(self, workflow: Workflow, mode: Mode, catalog: Catalog | None = None) -> Reviewed:
        """As `check`; without holding up the event loop where the texts are long."""
        if _size(workflow) < INLINE_CHARACTERS:
            return self.check(workflow, mode, catalog)
        return await self._in_thread(partial(self.check, workflow, mode, catalog))

    async def classify(self, workflow: Workflow, mode: Mode, catalog: Catalog | None = None) -> Reviewed:
        """Ask every classifier of every text. One that is down is a warning, or refuses the task for now."""
        if not self._classifiers or mode is Mode.OFF:
            return Reviewed()
        by_value = {
            text.value: text for text in self._positive(workflow, catalog) if _has_letters(text.value)
        }
        texts = list(by_value.values())
        parts = await asyncio.gather(*(self._ask(c, workflow, texts, mode) for c in self._classifiers))
        return Reviewed(
            [verdict for part in parts for verdict in part.verdicts],
            next((part.error for part in parts if part.error is not None), None),
            [warning for part in parts for warning in part.warnings],
        )

    async def add_negative(
        self, workflow: Workflow, catalog: Catalog | None = None
    ) -> tuple[Workflow, Reviewed]:
        """The workflow with the operator's terms in its negative texts, and what was added where."""
        if not self._added:
            return workflow, Reviewed()
        began = time.perf_counter()
        if _size(workflow) < INLINE_CHARACTERS:
            changed, additions = add_negative(workflow, self._added, catalog)
        else:
            changed, additions = await self._in_thread(partial(add_negative, workflow, self._added, catalog))
        ms = round((time.perf_counter() - began) * 1000, 2)
        verdicts = [_tell(addition, workflow, ms) for addition in additions]
        warnings = [
            {"code": "NegativeNotAdded", "detail": verdict.detail, "node_id": verdict.node_id}
            for verdict in verdicts
            if verdict.action is Action.WARN
        ]
        return changed, Reviewed(verdicts, warnings=warnings)

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for classifier in self._classifiers:
            await classifier.close()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _positive(self, workflow: Workflow, catalog: Catalog | None) -> list[Text]:
        return [text for text in find_texts(workflow, catalog) if not text.is_negative]

    async def _ask(
        self, classifier: PromptClassifier, workflow: Workflow, texts: Sequence[Text], mode: Mode
    ) -> Reviewed:
        began, questions = time.perf_counter(), asyncio.Semaphore(PARALLEL)

        async def one(text: Text) -> _Finding | None:
            async with questions:
                return await self._find(classifier, text)

        try:
            answers = await asyncio.gather(*map(one, texts))
        except ClassifierDown as down:
            return self._down(classifier.step, down.reason, mode)
        ms = round((time.perf_counter() - began) * 1000, 1)
        self._observe(classifier.step, ms)
        if found := [_with_ms(finding, ms) for finding in answers if finding and finding.category != NOTHING]:
            return self._judge(workflow, mode, found)
        score = max((finding.score for finding in answers if finding), default=0.0)
        unread = sum(finding is None for finding in answers)
        detail = (
            f"{unread} of {len(texts)} texts are in a language that it does not read." if unread else None
        )
        return Reviewed([Verdict(step=classifier.step, score=score, ms=ms, detail=detail)])

    async def _find(self, classifier: PromptClassifier, text: Text) -> _Finding | None:
        """The label that is furthest above its threshold, or the nearest miss; None for a text that is not read."""
        labels = await ask(partial(classifier.classify, text.value), self._settings.safety_classifier_seconds)
        if labels is None:
            return None
        known = [
            (min(max(label.score, 0.0), 1.0), threshold, label.category)
            for label in labels
            if (threshold := threshold_of(classifier.thresholds, (label.category, label.group))) is not None
        ]
        above = [entry for entry in known if entry[0] >= entry[1]]
        if above:
            score, _, category = max(above, key=lambda entry: entry[0] - entry[1])
            return _Finding(text, classifier.step, category, round(score, 4), 0.0)
        score = max((entry[0] for entry in known), default=0.0)
        return _Finding(text, classifier.step, NOTHING, round(score, 4), 0.0)

    def _down(self, step: str, reason: str, mode: Mode) -> Reviewed:
        log.warning("safety.classifier_down", step=step, reason=reason)
        if self._metrics is not None:
            self._metrics.classifier_failed(step)
        is_open = mode is Mode.WARN or self._settings.safety_classifier_down is Down.OPEN
        detail = f"The classifier of prompts gave no answer: {reason}."
        action = Action.WARN if is_open else Action.REJECT
        verdict = Verdict(step=step, category="unavailable", action=action, detail=detail)
        if not is_open:
            return Reviewed([verdict], ClassifierUnavailable(f"{detail} Try again later.", step=step))
        return Reviewed([verdict], warnings=[{"code": "PromptNotClassified", "detail": detail, "step": step}])

    def _judge(self, workflow: Workflow, mode: Mode, found: Sequence[_Finding]) -> Reviewed:
        is_refused = mode is Mode.ENFORCE
        verdicts = [
            Verdict(
                step=finding.step,
                category=finding.category,
                score=finding.score,
                action=Action.REJECT if is_refused else Action.WARN,
                ms=finding.ms,
                node_id=finding.text.node_id,
                detail=self._say(finding, workflow),
            )
            for finding in found[:MOST_FINDINGS]
        ]
        if is_refused:
            error = self._refusal(found[0], workflow)
            error.verdicts = tuple(verdicts)
            return Reviewed(verdicts, error)
        warnings = [
            {
                "code": "PromptFlagged",
                "detail": verdict.detail,
                "node_id": verdict.node_id,
                "category": verdict.category,
            }
            for verdict in verdicts
        ]
        return Reviewed(verdicts, warnings=warnings)

    def _refusal(self, finding: _Finding, workflow: Workflow) -> PromptRefused:
        return PromptRefused(
            f"This server does not make what the prompt asks for. {self._say(finding, workflow)}",
            node_id=finding.text.node_id,
            node_title=workflow.title(finding.text.node_id),
            input=finding.text.input_name,
            category=finding.category,
            step=finding.step,
            term=finding.term if self._settings.safety_show_terms else None,
        )

    def _say(self, finding: _Finding, workflow: Workflow) -> str:
        node_id = finding.text.node_id
        where = f'Input "{finding.text.input_name}" of node "{node_id}" ({workflow.title(node_id)})'
        if finding.step != RULES:
            return f'{where} is "{finding.category}" to {finding.step}.'
        if self._settings.safety_show_terms and finding.term:
            return f'{where} holds "{finding.term}" of the list "{finding.category}".'
        return f'{where} holds a term of the list "{finding.category}".'

    def _observe(self, step: str, ms: float) -> None:
        if self._metrics is not None:
            self._metrics.safety_step(step, ms / 1000)


def _size(workflow: Workflow) -> int:
    """Roughly how much there is to look at, in characters; a node counts as some."""
    inputs = (value for node in workflow.nodes.values() for value in node.inputs.values())
    return 20 * len(workflow.nodes) + sum(
        1_000 if isinstance(value, dict) else len(value)
        for value in inputs
        if isinstance(value, str | list | dict)
    )


def _with_ms(finding: _Finding, ms: float) -> _Finding:
    return _Finding(finding.text, finding.step, finding.category, finding.score, ms, finding.term)


def _has_letters(text: str) -> bool:
    return any(char.isalpha() for char in text)


def _tell(addition: Addition, workflow: Workflow, ms: float) -> Verdict:
    where = f'input "{addition.input_name}" of node "{addition.node_id}" ({workflow.title(addition.node_id)})'
    if addition.is_shared:
        detail = f"Nothing was added to {where}: it is a part of a positive text too."
        return Verdict(step=NEGATIVE, action=Action.WARN, ms=ms, node_id=addition.node_id, detail=detail)
    detail = f"Added to {where}: {', '.join(addition.terms)}."
    return Verdict(step=NEGATIVE, ms=ms, node_id=addition.node_id, detail=detail)
