"""The settings of the review. Everything is off unless the operator asks for it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from agent.safety.thresholds import check_thresholds, parse_thresholds
from agent.settings_types import HttpUrl, SecretUrl, SettingsGroup, WordList


class Mode(StrEnum):
    """What comes of what a part of the review finds."""

    OFF = "off"  #: it does not look
    WARN = "warn"  #: it is noted in the record
    ENFORCE = "enforce"  #: it has consequences

    @property
    def strength(self) -> int:
        """Grows with how strict it is."""
        return list(Mode).index(self)


class Down(StrEnum):
    """What a classifier that gives no answer means."""

    OPEN = "open"  #: the task goes on, and its record warns of it
    CLOSED = "closed"  #: the task fails for now


class OtherFiles(StrEnum):
    """What comes of a file that nothing can look at."""

    PASS = "pass"  #: it is delivered, and the record warns of it  # noqa: S105 - no password
    FAIL = "fail"  #: the task fails


class FailedAction(StrEnum):
    """What is done about a picture that a run has failed to make."""

    RETRY = "retry"  #: made again with new seeds; fails when that did not help
    FAIL = "fail"


class ImageAction(StrEnum):
    """What is done about a picture that may not be shown."""

    BLUR = "blur"  #: delivered so that nothing can be made out; the original is gone
    RETRY = "retry"  #: made again with new seeds; fails when that did not help
    FAIL = "fail"


class ImageClassifier(StrEnum):
    """What can look at pictures."""

    ONNX = "onnx"  #: a model that the operator brings
    REKOGNITION = "rekognition"  #: Amazon's
    HTTP = "http"  #: whatever answers at AGENT_SAFETY_IMAGE_URL


class Layout(StrEnum):
    """Where the channels stand in a model's input."""

    AUTO = "auto"  #: where its shape has a 3
    NCHW = "nchw"
    NHWC = "nhwc"


class Scores(StrEnum):
    """What makes scores of a model's outputs."""

    SOFTMAX = "softmax"  #: one of the labels applies
    SIGMOID = "sigmoid"  #: each applies or not
    PLAIN = "plain"  #: they are scores already


def parse_size(text: str) -> tuple[int, int]:
    """Width and height of `224` or `224x256`. Raises ValueError."""
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.strip().isdecimal() and 0 < int(side) <= 4096 for side in sides):
        raise ValueError("write it as 224 or 224x256: width and height of the model's input in pixels")
    return int(sides[0]), int(sides[-1])


def parse_colors(text: str) -> tuple[float, float, float]:
    """Numbers for red, green and blue. Raises ValueError."""
    numbers = [float(part) for part in text.split(",")]
    if len(numbers) != 3:
        raise ValueError("write it as three numbers, for red, green and blue: 0.5,0.5,0.5")
    return numbers[0], numbers[1], numbers[2]


def _check_size(text: str | None) -> str | None:
    if text is not None:
        parse_size(text)
    return text


def _check_colors(text: str) -> str:
    try:
        parse_colors(text)
    except ValueError:
        raise ValueError("write it as three numbers, for red, green and blue: 0.5,0.5,0.5") from None
    return text


def _check_classifiers(names: list[str]) -> list[str]:
    known = [kind.value for kind in ImageClassifier]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"{', '.join(unknown)} is none of {', '.join(known)}")
    return names


Thresholds = Annotated[str, AfterValidator(check_thresholds)]


class SafetySettings(SettingsGroup):
    """The settings that begin with AGENT_SAFETY_, but for those of the prompts."""

    safety_prompts: Mode = Field(
        Mode.OFF, description="What comes of a prompt that may not be run: off, warn or enforce."
    )
    safety_images: Mode = Field(
        Mode.OFF, description="What comes of a picture that may not be shown: off, warn or enforce."
    )
    safety_failed_images: Mode = Field(
        Mode.OFF,
        description="What comes of a picture that is black, of one colour, or noise: off, warn or enforce.",
    )
    safety_images_action: ImageAction = Field(
        ImageAction.BLUR,
        description="What is done about a picture that may not be shown, where that is enforced: blur, retry or fail.",
    )
    safety_failed_images_action: FailedAction = Field(
        FailedAction.RETRY,
        description="What is done about a failed picture, where that is enforced: retry (with new seeds) or fail.",
    )
    safety_retries: int = Field(
        2, ge=0, description="How often the pictures of a task are made again with new seeds, at most."
    )
    safety_black_level: int = Field(
        10, ge=0, le=255, description="A picture whose brightest value is at most this, of 255, is black."
    )
    safety_flat_range: int = Field(
        2,
        ge=0,
        le=255,
        description="A picture whose parts are at most this far apart, in levels of 255, is of one colour.",
    )
    safety_noise_score: float = Field(
        0.55, gt=0, le=1, description="From this score on, 0 to 1, a picture is noise."
    )
    safety_image_classifiers: Annotated[WordList, AfterValidator(_check_classifiers)] = Field(
        default_factory=list,
        description="Comma-separated, what looks at each picture: onnx, rekognition, http. None: nothing does.",
    )
    safety_classifier_down: Down = Field(
        Down.CLOSED,
        description="What a classifier that gives no answer means: open (go on, and warn) or closed (fail for now).",
    )
    safety_other_files: OtherFiles = Field(
        OtherFiles.FAIL,
        description="Where pictures are enforced, what comes of files that nothing can look at, such as videos and "
        "latents: fail, or pass (with a warning).",
    )
    safety_classifier_seconds: float = Field(
        10,
        gt=0,
        description="How long a classifier may take for one prompt or picture, further tries included.",
    )
    safety_onnx_model: str | None = Field(None, description="onnx: the model's file.")
    safety_onnx_labels: WordList = Field(
        default_factory=list,
        description="onnx: the model's labels, comma-separated, in the order of its outputs.",
    )
    safety_onnx_thresholds: Thresholds | None = Field(
        None,
        description="onnx: the labels that may not be shown, and from which score on: nsfw=0.8,gore=0.7.",
    )
    safety_onnx_size: Annotated[str | None, AfterValidator(_check_size)] = Field(
        None,
        description="onnx: width and height of its input, as 224 or 224x256. Default: what the model says.",
    )
    safety_onnx_mean: Annotated[str, AfterValidator(_check_colors)] = Field(
        "0.485,0.456,0.406", description="onnx: subtracted from red, green and blue between 0 and 1."
    )
    safety_onnx_std: Annotated[str, AfterValidator(_check_colors)] = Field(
        "0.229,0.224,0.225", description="onnx: what they are divided by then."
    )
    safety_onnx_layout: Layout = Field(
        Layout.AUTO, description="onnx: order of its input's dimensions: nchw, nhwc, or auto (by its shape)."
    )
    safety_onnx_scores: Scores = Field(
        Scores.SOFTMAX,
        description="onnx: what makes scores of its outputs: softmax, sigmoid, or plain (they are scores).",
    )
    safety_onnx_threads: int = Field(
        2, ge=1, description="onnx: threads of the CPU that one picture may take."
    )
    safety_rekognition_thresholds: Thresholds = Field(
        "*=0.8",
        description="rekognition: labels, or their groups, that may not be shown, and from which score on; "
        "* is any other.",
    )
    safety_rekognition_region: str | None = Field(
        None,
        description="rekognition: its region. Default: AWS_REGION, or what Amazon's tools are set up for.",
    )
    safety_rekognition_endpoint: HttpUrl | None = Field(
        None, description="rekognition: another address than Amazon's own."
    )
    safety_image_url: SecretUrl | None = Field(
        None, description="http: the address that each picture is posted to. It may be a private one."
    )
    safety_image_authorization: SecretStr | None = Field(
        None, description="http: sent to it as the header Authorization."
    )
    safety_image_thresholds: Thresholds = Field(
        "*=0.8",
        description="http: labels that may not be shown, and from which score on; * is any other.",
    )

    @model_validator(mode="after")
    def _classifiers_have_what_they_need(self) -> Self:
        if self.safety_images is not Mode.OFF and not self.safety_image_classifiers:
            raise ValueError(
                "AGENT_SAFETY_IMAGES needs something that looks: set AGENT_SAFETY_IMAGE_CLASSIFIERS"
            )
        if ImageClassifier.HTTP in self.safety_image_classifiers and self.safety_image_url is None:
            raise ValueError("AGENT_SAFETY_IMAGE_CLASSIFIERS has http: set AGENT_SAFETY_IMAGE_URL")
        if ImageClassifier.ONNX in self.safety_image_classifiers:
            self._check_onnx()
        return self

    def _check_onnx(self) -> None:
        needed = {
            "AGENT_SAFETY_ONNX_MODEL": self.safety_onnx_model,
            "AGENT_SAFETY_ONNX_LABELS": self.safety_onnx_labels,
            "AGENT_SAFETY_ONNX_THRESHOLDS": self.safety_onnx_thresholds,
        }
        if missing := [name for name, value in needed.items() if not value]:
            raise ValueError(f"AGENT_SAFETY_IMAGE_CLASSIFIERS has onnx: set {', '.join(missing)}")
        labels = {label.lower() for label in self.safety_onnx_labels}
        named = parse_thresholds(self.safety_onnx_thresholds or "").keys() - {"*"}
        if unknown := sorted(named - labels):
            raise ValueError(
                f"AGENT_SAFETY_ONNX_THRESHOLDS names {', '.join(unknown)}, which AGENT_SAFETY_ONNX_LABELS lacks"
            )
