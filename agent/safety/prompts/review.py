"""The review of a workflow's texts: the lists, the classifiers, and what is added to negative texts."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import structlog

from agent.errors import ClassifierUnavailable
from agent.metrics import Metrics
from agent.safety.classifiers.classifier import ClassifierDown, ask
from agent.safety.prompts.classifier import PromptClassifier, build_prompt_classifiers
from agent.safety.prompts.findings import RULES, Checked, Finding, Reviewed, judge, too_long
from agent.safety.prompts.negative import Addition, add_negative, split_terms
from agent.safety.prompts.rules import TermRules
from agent.safety.prompts.settings import PromptSettings
from agent.safety.prompts.terms import load_terms
from agent.safety.prompts.texts import CONCATENATED, Text, TooMuchText, find_texts
from agent.safety.settings import Down, Mode
from agent.safety.thresholds import threshold_of
from agent.safety.verdict import NOTHING, Action, Verdict
from comfyui.catalog import Catalog
from comfyui.workflow import Workflow, is_link

log = structlog.get_logger(__name__)

T = TypeVar("T")

#: Names the step in verdicts and metrics.
NEGATIVE = "negative-prompt"

#: Workflows with less text are looked at on the event loop.
INLINE_CHARACTERS = 8_000

#: Longer ones of all tasks that are looked at at the same time. They have threads of their own: other work of the
#: process does not wait for them.
PARALLEL_LOOKS = 2

#: A text counts as so many characters at least towards AGENT_SAFETY_PROMPT_CHARACTERS: each takes its time, and is
#: a question to each classifier.
LEAST_COUNTED = 20

#: The sign that stands for more letters than any other, and how many more than itself.
LONGEST_SIGN, MORE_LETTERS = "\ufdfa", 17

#: Texts of a task that classifiers are asked about at the same time.
PARALLEL = 4


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

    async def check(self, workflow: Workflow, mode: Mode, catalog: Catalog | None = None) -> Checked:
        """Find the texts and compare them with the lists, in a thread where they are long. Needs no network, and takes
        milliseconds for 10 KB."""
        if mode is Mode.OFF or not self.can_review:
            return Checked(mode=mode, catalog=catalog)
        if _is_long(workflow):
            return await self._in_thread(partial(self._check, workflow, mode, catalog))
        return self._check(workflow, mode, catalog)

    async def classify(self, workflow: Workflow, checked: Checked) -> Reviewed:
        """Ask every classifier of every text. One that is down is a warning, or refuses the task for now."""
        by_value = {text.value: text for text in checked.texts if _has_letters(text.value)}
        texts = list(by_value.values())
        if not texts:
            return Reviewed()
        parts = await asyncio.gather(
            *(self._ask(c, workflow, texts, checked.mode) for c in self._classifiers)
        )
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
        add = partial(
            add_negative, workflow, self._added, catalog, most=self._settings.safety_prompt_characters
        )
        changed, additions = await self._in_thread(add) if _is_long(workflow) else add()
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

    def _check(self, workflow: Workflow, mode: Mode, catalog: Catalog | None) -> Checked:
        texts: list[Text] = []
        counted: Counter[tuple[str, str]] = Counter()
        left = self._settings.safety_prompt_characters
        try:
            for text in find_texts(workflow, catalog):
                if text.is_negative:
                    continue
                texts.append(text)
                size = _counted(text)
                counted[text.node_id, text.input_name] += size
                left -= size
                if left < 0:
                    ((place, _),) = counted.most_common(1)
                    return too_long(workflow, mode, catalog, self._settings, *place)
        except TooMuchText as exc:
            return too_long(workflow, mode, catalog, self._settings, exc.node_id, CONCATENATED[-1])
        found = self._compare(workflow, mode, texts)
        return Checked(found.verdicts, found.error, found.warnings, mode, catalog, texts)

    def _compare(self, workflow: Workflow, mode: Mode, texts: Sequence[Text]) -> Reviewed:
        if self._rules is None:
            return Reviewed()
        began = time.perf_counter()
        known: dict[str, dict[str, str]] = {}
        found: list[Finding] = []
        for text in texts:
            if (categories := known.get(text.value)) is None:
                categories = known[text.value] = {}
                for match in self._rules.find(text.value):
                    categories.setdefault(match.category, match.term.line)
            found += [Finding(text, RULES, name, 1.0, 0.0, term) for name, term in categories.items()]
        ms = round((time.perf_counter() - began) * 1000, 2)
        self._observe(RULES, ms)
        if not found:
            return Reviewed([Verdict(step=RULES, ms=ms)])
        return judge(workflow, mode, self._settings, [finding.lasting(ms) for finding in found])

    async def _ask(
        self, classifier: PromptClassifier, workflow: Workflow, texts: Sequence[Text], mode: Mode
    ) -> Reviewed:
        began, questions = time.perf_counter(), asyncio.Semaphore(PARALLEL)

        async def one(text: Text) -> Finding | None:
            async with questions:
                return await self._find(classifier, text)

        asked = [asyncio.create_task(one(text)) for text in texts]
        try:
            answers = await asyncio.gather(*asked)
        except ClassifierDown as down:
            return self._down(classifier.step, down.reason, mode)
        finally:
            # Of one that is down no more is asked: what still waits for it would outlive the task.
            for question in asked:
                question.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        ms = round((time.perf_counter() - began) * 1000, 1)
        self._observe(classifier.step, ms)
        if found := [finding.lasting(ms) for finding in answers if finding and finding.category != NOTHING]:
            return judge(workflow, mode, self._settings, found)
        score = max((finding.score for finding in answers if finding), default=0.0)
        unread = sum(finding is None for finding in answers)
        detail = (
            f"{unread} of {len(texts)} texts are in a language that it does not read." if unread else None
        )
        return Reviewed([Verdict(step=classifier.step, score=score, ms=ms, detail=detail)])

    async def _find(self, classifier: PromptClassifier, text: Text) -> Finding | None:
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
            return Finding(text, classifier.step, category, round(score, 4), 0.0)
        score = max((entry[0] for entry in known), default=0.0)
        return Finding(text, classifier.step, NOTHING, round(score, 4), 0.0)

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

    def _observe(self, step: str, ms: float) -> None:
        if self._metrics is not None:
            self._metrics.safety_step(step, ms / 1000)


def _is_long(workflow: Workflow) -> bool:
    """Whether there is more to look at than belongs on the event loop. A node counts as some characters, and a link or
    a number as one; who knows how much there is in a list."""
    left = INLINE_CHARACTERS
    for node in workflow.nodes.values():
        left -= LEAST_COUNTED
        for value in node.inputs.values():
            left -= _letters(value) if isinstance(value, str) else 1
            if left < 0 or (isinstance(value, list | dict) and not is_link(value)):
                return True
    return left < 0


def _counted(text: Text) -> int:
    return max(LEAST_COUNTED, _letters(text.value))


def _letters(text: str) -> int:
    return len(text) + MORE_LETTERS * text.count(LONGEST_SIGN)


def _has_letters(text: str) -> bool:
    return any(char.isalpha() for char in text)


def _tell(addition: Addition, workflow: Workflow, ms: float) -> Verdict:
    where = f'input "{addition.input_name}" of node "{addition.node_id}" ({workflow.title(addition.node_id)})'
    if not addition.terms:
        why = (
            "it is a part of a positive text too"
            if addition.is_shared
            else "too many links lead to its texts"
        )
        detail = f"Nothing was added to {where}: {why}."
        return Verdict(step=NEGATIVE, action=Action.WARN, ms=ms, node_id=addition.node_id, detail=detail)
    detail = f"Added to {where}: {', '.join(addition.terms)}."
    return Verdict(step=NEGATIVE, ms=ms, node_id=addition.node_id, detail=detail)
