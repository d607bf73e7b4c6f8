"""Judges pictures, of tasks and of folders alike: what is found of each, whatever comes of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog

from agent.gate import Gate
from agent.metrics import Metrics
from agent.safety.classifiers.classifier import Classifier, ClassifierDown, Label, ask
from agent.safety.settings import SafetySettings
from agent.safety.thresholds import threshold_of
from agent.safety.verdict import NOTHING

log = structlog.get_logger(__name__)

#: Names the check for failed pictures in verdicts and metrics.
FAILED_IMAGE = "failed-image"

#: Pictures of all tasks that are decoded at the same time: each takes three bytes a pixel and more.
PARALLEL_LOOKS = 2

#: Pictures of all tasks that are at hand at the same time, made small, while classifiers are asked about them.
PARALLEL_PICTURES = 8

#: Pictures of all tasks that a classifier is asked about at the same time.
PARALLEL_QUESTIONS = 4

#: Files that hold no picture, by the beginning of their media type.
NO_PICTURES = ("audio/", "text/plain", "text/csv")


@dataclass(frozen=True, slots=True)
class Finding:
    """What one step found of one picture; category "none": nothing. `score` is then that of the nearest miss."""

    step: str
    category: str = NOTHING
    score: float = 0.0
    ms: float = 0.0

    def __bool__(self) -> bool:
        return self.category != NOTHING


@dataclass(slots=True)
class Judgement:
    """All that was found of one file. `is_unseen`: nothing can look at it; `reason`: why, where it is a picture.
    `down`: classifiers that gave no answer, and why."""

    failed: Finding | None = None
    seen: list[Finding] = field(default_factory=list)
    down: dict[str, str] = field(default_factory=dict)
    is_unseen: bool = False
    reason: str | None = None

    @property
    def findings(self) -> list[Finding]:
        """Those of all steps that looked, the check for failed pictures first."""
        return [*([self.failed] if self.failed is not None else []), *self.seen]

    @property
    def unsafe(self) -> list[Finding]:
        """What classifiers found that may not be shown."""
        return [finding for finding in self.seen if finding]


class Judge:
    """Looks at pictures. Calls may run at the same time."""

    def __init__(
        self,
        settings: SafetySettings,
        classifiers: Sequence[Classifier],
        metrics: Metrics | None = None,
        *,
        most_pixels: int,
    ) -> None:
        """`most_pixels`: of a picture that is decoded; what has more is unseen."""
        self._settings, self.classifiers, self._metrics = settings, tuple(classifiers), metrics
        self._most_pixels = most_pixels
        self._pictures = asyncio.Semaphore(PARALLEL_PICTURES)
        self.looks = Gate(PARALLEL_LOOKS)
        self._questions = asyncio.Semaphore(PARALLEL_QUESTIONS)

    async def prepare(self) -> None:
        """Have every classifier get ready. One that cannot says so when it is asked."""
        await asyncio.gather(*(c.prepare() for c in self.classifiers), return_exceptions=True)

    async def close(self) -> None:
        for classifier in self.classifiers:
            await classifier.close()

    async def judge_all(
        self, files: Sequence[tuple[bytes, str]], *, failed: bool, classified: bool
    ) -> list[Judgement]:
        """What is found of the files of one task, given with their media types. A classifier that gives no answer to
        one of them is not waited for again with each of the others."""
        down: dict[str, str] = {}
        judged = (
            self.judge(data, media_type, failed=failed, classified=classified, down=down)
            for data, media_type in files
        )
        return list(await asyncio.gather(*judged))

    async def judge(
        self,
        data: bytes,
        media_type: str,
        *,
        failed: bool,
        classified: bool,
        down: dict[str, str] | None = None,
    ) -> Judgement:
        """`failed`, `classified`: what is to be found out. `down`: classifiers not to ask, and why; grows."""
        async with self._pictures:
            return await self._judge(
                data, media_type, failed=failed, classified=classified, down={} if down is None else down
            )

    async def _judge(
        self, data: bytes, media_type: str, *, failed: bool, classified: bool, down: dict[str, str]
    ) -> Judgement:
        from agent.safety.failed_images import Limits  # noqa: PLC0415 - Pillow
        from agent.safety.look import look_at  # noqa: PLC0415
        from agent.safety.picture import TooManyPixels, Unreadable  # noqa: PLC0415

        s = self._settings
        limits = Limits(s.safety_black_level, s.safety_flat_range, s.safety_noise_score) if failed else None
        found = Judgement()
        try:
            look = await self.looks.run(
                look_at, data, limits, wants_views=classified, most_pixels=self._most_pixels
            )
        except TooManyPixels as exc:
            found.is_unseen = True
            found.reason = f"it has {exc} (AGENT_MAX_OUTPUT_PIXELS)"
            return found
        except Unreadable:
            found.is_unseen = not media_type.startswith(NO_PICTURES)
            return found
        if failed:
            failure = look.failure
            found.failed = (
                Finding(FAILED_IMAGE, failure.category, round(failure.score, 4), look.ms)
                if failure
                else Finding(FAILED_IMAGE, ms=look.ms)
            )
            self._observe(FAILED_IMAGE, look.ms)
        if classified:
            answers = await asyncio.gather(*(self._classify(c, look.views, down) for c in self.classifiers))
            for classifier, answer in zip(self.classifiers, answers, strict=True):
                if isinstance(answer, Finding):
                    found.seen.append(answer)
                else:
                    found.down[classifier.step] = down.setdefault(classifier.step, answer)
        return found

    async def _classify(
        self, classifier: Classifier, views: Sequence[Any], down: dict[str, str]
    ) -> Finding | str:
        """The worst of all views, or why the classifier gave no answer."""
        began = time.perf_counter()
        labels: list[Label] = []
        try:
            for view in views:
                async with self._questions:
                    if (known := down.get(classifier.step)) is not None:
                        return known
                    labels += await ask(
                        partial(classifier.classify, view), self._settings.safety_classifier_seconds
                    )
        except ClassifierDown as silent:
            down.setdefault(classifier.step, silent.reason)
            log.warning("safety.classifier_down", step=classifier.step, reason=silent.reason)
            if self._metrics is not None:
                self._metrics.classifier_failed(classifier.step)
            return silent.reason
        except Exception:
            log.exception("safety.classifier_crashed", step=classifier.step)
            if self._metrics is not None:
                self._metrics.classifier_failed(classifier.step)
            return "it failed in a way that nobody foresaw"
        ms = round((time.perf_counter() - began) * 1000, 1)
        self._observe(classifier.step, ms)
        return _worst(classifier, labels, ms)

    def _observe(self, step: str, ms: float) -> None:
        if self._metrics is not None:
            self._metrics.safety_step(step, ms / 1000)


def _worst(classifier: Classifier, labels: Sequence[Label], ms: float) -> Finding:
    """The label that is furthest above its threshold; none above: the one with the highest score that has one."""
    judged = [
        (label, threshold)
        for label in labels
        if (threshold := threshold_of(classifier.thresholds, (label.category, label.group))) is not None
    ]
    above = [(label, threshold) for label, threshold in judged if label.score >= threshold]
    if above:
        label, _ = max(above, key=lambda pair: pair[0].score - pair[1])
        return Finding(classifier.step, label.category, round(min(label.score, 1.0), 4), ms)
    nearest = max((label.score for label, _ in judged), default=0.0)
    return Finding(classifier.step, score=round(max(0.0, min(nearest, 1.0)), 4), ms=ms)
