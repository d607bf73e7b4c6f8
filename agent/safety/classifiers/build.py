"""Makes the classifiers that the settings name."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from agent.safety.classifiers.classifier import Classifier
from agent.safety.settings import ImageClassifier, SafetySettings, parse_colors, parse_size
from agent.safety.thresholds import parse_thresholds
from agent.settings import SettingsError

#: What a classifier needs that is not always installed: module and extra.
NEEDED = {ImageClassifier.ONNX: ("onnxruntime", "onnx"), ImageClassifier.REKOGNITION: ("boto3", "aws")}


def build_image_classifiers(settings: SafetySettings) -> list[Classifier]:
    """In the order of the setting. Nothing is loaded or asked yet. Raises SettingsError for what cannot work."""
    return [_build(ImageClassifier(name), settings) for name in settings.safety_image_classifiers]


def _build(kind: ImageClassifier, settings: SafetySettings) -> Classifier:
    if kind in NEEDED and find_spec(NEEDED[kind][0]) is None:
        module, extra = NEEDED[kind]
        raise SettingsError(
            f"AGENT_SAFETY_IMAGE_CLASSIFIERS has {kind.value}, which needs {module}: install comfyui-agent[{extra}]"
        )
    match kind:
        case ImageClassifier.ONNX:
            return _onnx(settings)
        case ImageClassifier.REKOGNITION:
            from agent.safety.classifiers.rekognition import Rekognition  # noqa: PLC0415

            return Rekognition(
                parse_thresholds(settings.safety_rekognition_thresholds),
                region=settings.safety_rekognition_region,
                endpoint=settings.safety_rekognition_endpoint,
                seconds=settings.safety_classifier_seconds,
            )
        case ImageClassifier.HTTP:
            from agent.safety.classifiers.hook import Hook, ImageHook  # noqa: PLC0415

            hook = Hook(settings.safety_image_url, settings.safety_image_authorization)
            return ImageHook(hook, parse_thresholds(settings.safety_image_thresholds))


def _onnx(settings: SafetySettings) -> Classifier:
    from agent.safety.classifiers.onnx import Model, OnnxClassifier  # noqa: PLC0415

    path = settings.safety_onnx_model or ""
    if not Path(path).is_file():
        raise SettingsError(f"AGENT_SAFETY_ONNX_MODEL: {path} is no file")
    size = settings.safety_onnx_size
    model = Model(
        path,
        tuple(settings.safety_onnx_labels),
        parse_size(size) if size else None,
        parse_colors(settings.safety_onnx_mean),
        parse_colors(settings.safety_onnx_std),
        settings.safety_onnx_layout,
        settings.safety_onnx_scores,
        settings.safety_onnx_threads,
    )
    return OnnxClassifier(model, parse_thresholds(settings.safety_onnx_thresholds or ""))
