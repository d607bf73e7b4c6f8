"""Models that the operator brings, made here with weights of which the answer is known."""

from __future__ import annotations

import asyncio
import math
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agent.safety.classifiers.classifier import ClassifierDown, Label
from agent.safety.classifiers.onnx import Model, OnnxClassifier, load
from agent.safety.judge import Judge
from agent.safety.settings import Layout, SafetySettings, Scores
from tests.labelled.measure_review import GENERATION_SECONDS, picture
from tests.labelled.models import write_color_reader, write_resnet18

RED = Image.new("RGB", (50, 20), (255, 102, 0))
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "scores": Scores.PLAIN}


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("half", [False, True])
def test_pixels_arrive_as_the_model_wants_them(tmp_path: Path, layout: str, half: bool) -> None:
    path = tmp_path / "model.onnx"
    write_color_reader(path, layout=layout, half=half)
    model = Model(str(path), ("r", "g", "b"), **PLAIN)
    assert load(model)(RED) == pytest.approx([1.0, 0.4, 0.0], abs=0.001)
    named = Model(str(path), ("r", "g", "b"), layout=Layout(layout), **PLAIN)
    assert load(named)(RED) == pytest.approx([1.0, 0.4, 0.0], abs=0.001)


def test_normalisation_and_what_makes_scores(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write_color_reader(path)
    names = ("r", "g", "b")
    given = {"mean": (0.5, 0.2, 0.0), "std": (0.25, 0.1, 1.0)}
    raw = np.array([2.0, 2.0, 0.0])
    sigmoid = load(Model(str(path), names, scores=Scores.SIGMOID, **given))(RED)
    assert sigmoid == pytest.approx([1 / (1 + math.exp(-value)) for value in raw])
    softmax = load(Model(str(path), names, scores=Scores.SOFTMAX, **given))(RED)
    assert softmax == pytest.approx(list(np.exp(raw) / np.exp(raw).sum()))


def test_size_comes_from_the_model_or_from_the_setting(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write_color_reader(path, side="side")
    with pytest.raises(ClassifierDown, match="AGENT_SAFETY_ONNX_SIZE"):
        load(Model(str(path), ("r", "g", "b"), **PLAIN))
    assert load(Model(str(path), ("r", "g", "b"), size=(5, 7), **PLAIN))(RED)[0] == pytest.approx(1)


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    path, names = tmp_path / "model.onnx", ("r", "g", "b")
    write_color_reader(path)
    for model, words in [
        (Model(str(path), ("r", "g"), **PLAIN), "3 numbers for 2 labels"),
        (Model(str(path), names, **{**PLAIN, "std": (0.1, 0.1, 0.1)}), "AGENT_SAFETY_ONNX_SCORES"),
        (Model(str(tmp_path / "missing.onnx"), names), "no such file"),
        (Model(__file__, names), "cannot be loaded"),
    ]:
        with pytest.raises(ClassifierDown, match=words) as down:
            load(model)
        assert down.value.is_lasting


async def test_classifier_is_loaded_once_and_asked_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write_color_reader(path)
    classifier = OnnxClassifier(Model(str(path), ("r", "g", "b"), **PLAIN), {"r": 0.9})
    blue = Image.new("RGB", (9, 9), (0, 0, 255))
    await asyncio.gather(classifier.prepare(), classifier.prepare())
    path.unlink()
    first, second = await asyncio.gather(classifier.classify(RED), classifier.classify(blue))
    assert first == [Label("r", 1.0), Label("g", pytest.approx(0.4, abs=0.001)), Label("b", 0.0)]
    assert [label.score for label in second] == [0, 0, 1]
    await classifier.close()


async def test_review_with_an_ordinary_classifier_costs_a_fraction_of_a_generation(tmp_path: Path) -> None:
    """In CPU time, which is what other work on the machine does not change: on two cores it takes no longer."""
    path = tmp_path / "resnet18.onnx"
    write_resnet18(path)
    judge = Judge(
        SafetySettings(), [OnnxClassifier(Model(str(path), tuple("abcde")), {"a": 0.99})], most_pixels=10**8
    )
    await judge.prepare()
    data, spent = picture(), []
    for _ in range(3):
        began = time.process_time()
        found = await judge.judge(data, "image/png", failed=True, classified=True)
        spent.append(time.process_time() - began)
    assert found.seen[0].step == "onnx"
    assert not found.failed
    assert min(spent) < 0.05 * GENERATION_SECONDS
    await judge.close()
