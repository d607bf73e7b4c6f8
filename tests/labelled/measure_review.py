"""Measures what the review of one picture of 1024 x 1024 adds: `python -m tests.labelled.measure_review`.

The classifier is a ResNet-18 with random weights at 224 x 224, on two threads. Each part is measured as tasks have it
done: from the bytes of a PNG to the verdict.
"""

from __future__ import annotations

import asyncio
import io
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from agent.safety.classifiers.classifier import Classifier
from agent.safety.classifiers.onnx import Model, OnnxClassifier
from agent.safety.judge import Judge
from agent.safety.settings import SafetySettings
from tests.labelled.models import write_resnet18
from tests.labelled.pictures import _fractal

ROUNDS = 20
GENERATION_SECONDS = 15


def picture(side: int = 1024) -> bytes:
    """A landscape under a little grain, which is as much work to decode as a photograph."""
    chance = np.random.default_rng(3)
    pixels = _fractal(chance, 1.3, side)[..., None] * np.array([250, 220, 190]) + chance.normal(
        0, 3, (side, side, 3)
    )
    out = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


async def measure(classifiers: list[Classifier], data: bytes) -> list[float]:
    """Milliseconds of each round, after one that loads everything."""
    judge = Judge(SafetySettings(), classifiers, most_pixels=10**8)
    await judge.prepare()
    found = []
    try:
        for _ in range(ROUNDS + 1):
            began = time.perf_counter()
            await judge.judge(data, "image/png", failed=True, classified=bool(classifiers))
            found.append((time.perf_counter() - began) * 1000)
    finally:
        await judge.close()
    return found[1:]


def main() -> None:
    data = picture()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "resnet18.onnx"
        write_resnet18(path)
        model = Model(str(path), tuple("abcde"))
        print(f"{os.cpu_count()} cores; PNG of 1024 x 1024, {len(data)} bytes; median (largest) of {ROUNDS}:")
        for what, classifiers in (
            ("failed-image check alone", []),
            ("failed-image check and ResNet-18", [OnnxClassifier(model, {"a": 0.99})]),
        ):
            times = asyncio.run(measure(classifiers, data))
            middle = statistics.median(times)
            share = middle / 1000 / GENERATION_SECONDS
            print(f"{what:<34} {middle:6.0f} ms ({max(times):.0f}), {share:.2%} of {GENERATION_SECONDS} s")


if __name__ == "__main__":
    main()
