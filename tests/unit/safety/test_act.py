"""From what is found to what comes of it, for tasks with several pictures and several classifiers."""

from __future__ import annotations

from typing import Any

import pytest

from agent.errors import ClassifierUnavailable, FailedImage, UnsafeImage
from agent.safety.act import decide
from agent.safety.judge import Finding, Judgement
from agent.safety.options import Modes
from agent.safety.settings import Mode
from agent.safety.verdict import Action
from agent.tasks.record import Output
from tests.integration.agent.service import settings_of

BLACK = Finding("failed-image", "black", 1.0, 20.0)
FINE = Finding("failed-image", ms=20.0)
GORE = Finding("onnx", "gore", 0.9, 40.0)
CLEAN = Finding("onnx", score=0.2, ms=40.0)
ENFORCED = Modes(images=Mode.ENFORCE, failed_images=Mode.ENFORCE)


def output(index: int) -> Output:
    return Output(
        index=index,
        node_id="9",
        filename=f"{index}.png",
        subfolder="",
        type="output",
        media_type="image/png",
        bytes=1,
        url="",
    )


def decided(*judgements: Judgement, modes: Modes = ENFORCED, may_remake: bool = True, **settings: Any) -> Any:
    given = settings_of(safety_image_classifiers=["rekognition"], **settings)
    found = [(output(index), judgement) for index, judgement in enumerate(judgements)]
    return decide(given, modes, found, may_remake=may_remake)


def actions(what: Any) -> list[tuple[str, Action]]:
    return [(verdict.step, verdict.action) for verdict in what.verdicts]


def test_of_what_is_fine_one_verdict_a_step_stays() -> None:
    what = decided(*[Judgement(FINE, [Finding("onnx", score=n / 100, ms=40)]) for n in range(50)])
    assert actions(what) == [("failed-image", Action.PASS), ("onnx", Action.PASS)]
    assert (what.verdicts[1].score, what.verdicts[1].output_index, what.verdicts[1].ms) == (0.49, 49, 2000)
    assert (what.error, what.blurred, what.warnings) == (None, set(), [])


def test_one_picture_of_many_is_blurred_once_whoever_finds_it() -> None:
    other = Finding("rekognition", "Violence", 0.95, 80)
    what = decided(Judgement(FINE, [CLEAN]), Judgement(FINE, [GORE, other]))
    assert what.blurred == {1}
    assert [warning["code"] for warning in what.warnings] == ["ImageBlurred"]
    assert actions(what)[-2:] == [("onnx", Action.BLUR), ("rekognition", Action.BLUR)]


def test_what_new_seeds_cannot_cure_fails_at_once() -> None:
    remade = decided(Judgement(BLACK, []), Judgement(FINE, [CLEAN]))
    assert isinstance(remade.error, FailedImage)
    assert remade.is_remade
    lasting = decided(Judgement(BLACK, []), Judgement(is_unseen=True))
    assert isinstance(lasting.error, UnsafeImage)
    assert not lasting.is_remade
    assert {verdict.action for verdict in lasting.verdicts} == {Action.FAIL}
    down = decided(Judgement(BLACK, [], down={"onnx": "it is away"}))
    assert isinstance(down.error, ClassifierUnavailable)
    assert not down.is_remade


@pytest.mark.parametrize("action", ["retry", "fail"])
def test_without_a_chance_for_new_seeds_it_fails(action: str) -> None:
    what = decided(Judgement(FINE, [GORE]), may_remake=False, safety_images_action=action)
    assert isinstance(what.error, UnsafeImage)
    assert not what.is_remade
    assert actions(what)[-1] == ("onnx", Action.FAIL)


def test_what_is_off_or_warned_of_has_no_consequences() -> None:
    warned = Modes(images=Mode.WARN, failed_images=Mode.WARN)
    what = decided(
        Judgement(BLACK, [GORE], down={"rekognition": "it is away"}), Judgement(is_unseen=True), modes=warned
    )
    assert what.error is None
    assert {verdict.action for verdict in what.verdicts} == {Action.WARN}
    assert sorted(warning["code"] for warning in what.warnings) == [
        "ClassifierUnavailable",
        "FailedImage",
        "FileNotReviewed",
        "UnsafeImage",
    ]
    only_failed = decided(Judgement(is_unseen=True), modes=Modes(failed_images=Mode.ENFORCE))
    assert (only_failed.error, only_failed.verdicts) == (None, [])
