"""From what was found of a task's pictures to what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agent.errors import AgentError, ClassifierUnavailable, FailedImage, UnsafeImage
from agent.gate import Gate
from agent.outputs.collect import Collected
from agent.safety.judge import Finding, Judgement
from agent.safety.options import Modes
from agent.safety.settings import Down, FailedAction, ImageAction, Mode, OtherFiles, SafetySettings
from agent.safety.verdict import Action, Verdict
from agent.tasks.record import Output

#: The step of a verdict on a file that nothing can look at.
UNSEEN = "unseen"

#: The category of a verdict of a classifier that gave no answer.
UNAVAILABLE = "unavailable"


@dataclass(slots=True)
class Consequences:
    """What comes of the review of one attempt: either `error`, or all outputs but those in `blurred` as they are."""

    verdicts: list[Verdict] = field(default_factory=list)
    warnings: list[dict[str, Any]] = field(default_factory=list)
    blurred: set[int] = field(default_factory=set)
    error: AgentError | None = None
    #: Whether the error is to be answered with new seeds.
    is_remade: bool = False

    def fail(self, error: AgentError, *, is_remade: bool = False) -> None:
        """The first error counts, but one that no new seeds can cure counts more."""
        if self.error is None or (self.is_remade and not is_remade):
            self.error, self.is_remade = error, is_remade

    def warn(self, code: str, detail: str, output: Output) -> None:
        self.warnings.append({"code": code, "detail": detail, "node_id": output.node_id})


def decide(
    settings: SafetySettings,
    modes: Modes,
    found: Sequence[tuple[Output, Judgement]],
    *,
    may_remake: bool,
) -> Consequences:
    """`may_remake`: new seeds are possible, and there is time for them."""
    what = Consequences()
    for output, judgement in found:
        if judgement.is_unseen and modes.images is not Mode.OFF:
            _decide_unseen(what, settings, modes, output, judgement.reason)
        for finding in judgement.findings:
            if not finding:
                what.verdicts.append(_verdict(finding, output, Action.PASS))
            elif finding is judgement.failed:
                _decide_failed(what, settings, modes, output, finding, may_remake=may_remake)
            else:
                _decide_seen(what, settings, modes, output, finding, may_remake=may_remake)
        for step, reason in judgement.down.items():
            _decide_down(what, settings, modes, output, step, reason)
    if what.error is not None and not what.is_remade:
        # What was to be made again, or shown blurred, is not: the task fails.
        what.verdicts = [_as_failed(v) if v.action is Action.RETRY else v for v in what.verdicts]
    what.verdicts = _in_short(what.verdicts)
    return what


async def blur(collected: Sequence[Collected], which: set[int], gate: Gate) -> list[Collected]:
    """The outputs, those of these indices blurred, in threads behind this gate."""
    from agent.safety.blur import blurred  # noqa: PLC0415 - Pillow

    shown = []
    for item in collected:
        if item.output.index in which:
            data = await gate.run(blurred, item.data)
            shown.append(replace(item, output=item.output.model_copy(update={"bytes": len(data)}), data=data))
        else:
            shown.append(item)
    return shown


def _decide_failed(
    what: Consequences,
    settings: SafetySettings,
    modes: Modes,
    output: Output,
    finding: Finding,
    *,
    may_remake: bool,
) -> None:
    sentence = (
        f'Picture "{output.filename}" of node "{output.node_id}" has failed: it is {SAID[finding.category]}.'
    )
    if modes.failed_images is not Mode.ENFORCE:
        what.verdicts.append(_verdict(finding, output, Action.WARN))
        what.warn(FailedImage.code, sentence, output)
        return
    is_remade = may_remake and settings.safety_failed_images_action is FailedAction.RETRY
    what.verdicts.append(_verdict(finding, output, Action.RETRY if is_remade else Action.FAIL))
    what.fail(
        FailedImage(sentence, node_id=output.node_id, filename=output.filename, category=finding.category),
        is_remade=is_remade,
    )


def _decide_seen(
    what: Consequences,
    settings: SafetySettings,
    modes: Modes,
    output: Output,
    finding: Finding,
    *,
    may_remake: bool,
) -> None:
    sentence = f'{finding.step} finds "{finding.category}" in a picture of node "{output.node_id}".'
    if modes.images is not Mode.ENFORCE:
        what.verdicts.append(_verdict(finding, output, Action.WARN))
        what.warn(UnsafeImage.code, sentence, output)
        return
    if settings.safety_images_action is ImageAction.BLUR:
        what.verdicts.append(_verdict(finding, output, Action.BLUR))
        if output.index not in what.blurred:
            what.blurred.add(output.index)
            what.warn("ImageBlurred", f"{sentence} It is delivered blurred.", output)
        return
    is_remade = may_remake and settings.safety_images_action is ImageAction.RETRY
    what.verdicts.append(_verdict(finding, output, Action.RETRY if is_remade else Action.FAIL))
    error = UnsafeImage(
        f"{sentence} It may not be shown by this server.", node_id=output.node_id, category=finding.category
    )
    what.fail(error, is_remade=is_remade)


def _decide_unseen(
    what: Consequences, settings: SafetySettings, modes: Modes, output: Output, reason: str | None
) -> None:
    because = f": {reason}" if reason else ""
    sentence = (
        f'File "{output.filename}" of node "{output.node_id}" is no picture that could be reviewed{because}.'
    )
    fails = modes.images is Mode.ENFORCE and settings.safety_other_files is OtherFiles.FAIL
    verdict = Verdict(
        step=UNSEEN,
        category=UNSEEN,
        score=1.0,
        action=Action.FAIL if fails else Action.WARN,
        node_id=output.node_id,
        output_index=output.index,
    )
    what.verdicts.append(verdict)
    if fails:
        what.fail(UnsafeImage(f"{sentence} AGENT_SAFETY_OTHER_FILES decides.", node_id=output.node_id))
    else:
        what.warn("FileNotReviewed", sentence, output)


def _decide_down(
    what: Consequences, settings: SafetySettings, modes: Modes, output: Output, step: str, reason: str
) -> None:
    fails = modes.images is Mode.ENFORCE and settings.safety_classifier_down is Down.CLOSED
    verdict = Verdict(
        step=step,
        category=UNAVAILABLE,
        action=Action.FAIL if fails else Action.WARN,
        node_id=output.node_id,
        output_index=output.index,
        detail=f"No answer: {reason}.",
    )
    what.verdicts.append(verdict)
    sentence = f"The classifier {step} gave no answer: {reason}."
    if fails:
        what.fail(ClassifierUnavailable(sentence, step=step))
    else:
        what.warn(ClassifierUnavailable.code, f"{sentence} The picture was not reviewed by it.", output)


#: The categories of failed pictures in words.
SAID = {"black": "black", "flat": "of a single colour", "noise": "noise"}


def _verdict(finding: Finding, output: Output, action: Action) -> Verdict:
    return Verdict(
        step=finding.step,
        category=finding.category,
        score=finding.score,
        action=action,
        ms=finding.ms,
        node_id=output.node_id,
        output_index=output.index,
    )


def _as_failed(verdict: Verdict) -> Verdict:
    return verdict.model_copy(update={"action": Action.FAIL})


def _in_short(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Of the verdicts of a step that found nothing one stays, with the highest score and the time of all: a record of a
    hundred pictures would else be mostly that."""
    kept: list[Verdict] = []
    passed: dict[str, Verdict] = {}
    for verdict in verdicts:
        if verdict.action is not Action.PASS:
            kept.append(verdict)
            continue
        before = passed.get(verdict.step)
        best = verdict if before is None or verdict.score > before.score else before
        total = verdict.ms + (before.ms if before else 0.0)
        passed[verdict.step] = best.model_copy(update={"ms": round(total, 1)})
    return [*passed.values(), *kept]
