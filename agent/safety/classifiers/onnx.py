"""Any image classifier in ONNX format that the operator brings. onnxruntime is the extra `onnx`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.safety.classifiers.classifier import ClassifierDown, Label
from agent.safety.settings import Layout, Scores

if TYPE_CHECKING:
    from PIL import Image

#: ONNX's names of the element types that a model may want, and numpy's.
TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16"}


@dataclass(frozen=True, slots=True)
class Model:
    """A model and how to use it. `size` is width and height in pixels, None: as its input says; `mean` and `std` are
    those of red, green and blue between 0 and 1."""

    path: str
    labels: tuple[str, ...]
    size: tuple[int, int] | None = None
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    layout: Layout = Layout.AUTO
    scores: Scores = Scores.SOFTMAX
    threads: int = 2


class OnnxClassifier:
    """One model, loaded at the first question. The whole picture is squeezed into its input, so that nothing at the
    margins is missed."""

    step = "onnx"

    def __init__(self, model: Model, thresholds: dict[str, float]) -> None:
        self._model, self.thresholds = model, thresholds
        self._lock = asyncio.Lock()
        self._score: Callable[[Image.Image], list[float]] | None = None

    async def prepare(self) -> None:
        async with self._lock:
            if self._score is None:
                self._score = await asyncio.to_thread(load, self._model)

    async def classify(self, picture: Image.Image) -> list[Label]:
        await self.prepare()
        score = self._score
        if score is None:  # pragma: no cover - prepare has just set it
            raise ClassifierDown("it is not loaded")
        async with self._lock:  # one picture at a time has all threads
            scores = await asyncio.to_thread(score, picture)
        return [Label(label, value) for label, value in zip(self._model.labels, scores, strict=True)]

    async def close(self) -> None:
        self._score = None


def load(model: Model) -> Callable[[Image.Image], list[float]]:
    """What gives an RGB picture its scores in the order of the labels. Takes a while.

    Raises ClassifierDown with what is wrong: with the file, its shapes, or the number of its labels.
    """
    try:
        import numpy as np  # noqa: PLC0415 - an extra
        import onnxruntime  # noqa: PLC0415
    except ImportError:
        raise ClassifierDown("onnxruntime is not installed: add the extra onnx", is_lasting=True) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = model.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the engine needs the cores too
    if not Path(model.path).is_file():
        raise ClassifierDown("there is no such file", is_lasting=True)
    try:
        session = onnxruntime.InferenceSession(model.path, options, providers=["CPUExecutionProvider"])
        run = _Run(model, session, np)
        run.scores(_blank(run.size))
    except ClassifierDown:
        raise
    except Exception as exc:  # noqa: BLE001 - onnxruntime has no common class for what it raises
        raise ClassifierDown(f"it cannot be loaded: {str(exc)[:300]}", is_lasting=True) from None
    return run.scores


class _Run:
    """A loaded model with what its input is like."""

    def __init__(self, model: Model, session: Any, np: Any) -> None:
        self._model, self._session, self._np = model, session, np
        (wanted, *others) = session.get_inputs()
        if others or len(wanted.shape) != 4 or wanted.type not in TYPES:
            raise _unfit(
                f"its input is {wanted.type} {wanted.shape}: one of four dimensions, of floats, is needed"
            )
        self._name, self._type = wanted.name, TYPES[wanted.type]
        self._is_nchw = _is_nchw(model.layout, wanted.shape)
        sides = wanted.shape[2:] if self._is_nchw else wanted.shape[1:3]
        if model.size is not None:
            self.size = model.size
        elif all(isinstance(side, int) for side in sides):
            self.size = (sides[1], sides[0])
        else:
            raise _unfit("its input takes any size: set AGENT_SAFETY_ONNX_SIZE")
        self._mean = np.asarray(model.mean, "float32")
        self._std = np.asarray(model.std, "float32")

    def scores(self, picture: Image.Image) -> list[float]:
        """In the order of the labels. Raises ClassifierDown."""
        from PIL import Image  # noqa: PLC0415

        np = self._np
        small = picture.resize(self.size, Image.Resampling.BILINEAR, reducing_gap=2)
        pixels = (np.asarray(small, "float32") / 255 - self._mean) / self._std
        if self._is_nchw:
            pixels = pixels.transpose(2, 0, 1)
        batch = np.ascontiguousarray(pixels[None], self._type)
        raw = np.asarray(self._session.run(None, {self._name: batch})[0], "float64").reshape(-1)
        if len(raw) != len(self._model.labels):
            raise _unfit(f"it gives {len(raw)} numbers for {len(self._model.labels)} labels")
        match self._model.scores:
            case Scores.SOFTMAX:
                powers = np.exp(raw - raw.max())
                raw = powers / powers.sum()
            case Scores.SIGMOID:
                raw = 1 / (1 + np.exp(-np.clip(raw, -60, 60)))
        if not np.isfinite(raw).all() or raw.min() < -0.001 or raw.max() > 1.001:
            raise _unfit("its outputs are no scores from 0 to 1: set AGENT_SAFETY_ONNX_SCORES")
        return [float(value) for value in np.clip(raw, 0, 1)]


def _is_nchw(layout: Layout, shape: list[Any]) -> bool:
    if layout is not Layout.AUTO:
        return layout is Layout.NCHW
    if 3 not in (shape[1], shape[3]):
        raise _unfit("its input does not say where the channels are: set AGENT_SAFETY_ONNX_LAYOUT")
    return bool(shape[1] == 3)


def _blank(size: tuple[int, int]) -> Image.Image:
    from PIL import Image  # noqa: PLC0415

    return Image.new("RGB", size, (128, 128, 128))


def _unfit(reason: str) -> ClassifierDown:
    return ClassifierDown(reason, is_lasting=True)
