"""Texts that guide a sampler, and what is done to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from comfyui.simulator.nodes.spec import Registry, image, link, number, optional, string

if TYPE_CHECKING:
    from comfyui.simulator.nodes.loaders import Model
    from comfyui.simulator.raster import Raster

registry = Registry()
node = registry.node


@dataclass(frozen=True)
class Conditioning:
    """The texts that guide a sampler, joined."""

    text: str


PERCENT = {"min": 0.0, "max": 1.0, "step": 0.001}


@node(
    "CLIPTextEncode",
    string("text", multiline=True, dynamicPrompts=True, tooltip="The text to be encoded."),
    link("clip", "CLIP", tooltip="The CLIP model used for encoding the text."),
    outputs="CONDITIONING",
    category="conditioning",
    title="CLIP Text Encode (Prompt)",
    description="Encodes a text prompt using a CLIP model into an embedding that can be used to guide the diffusion "
    "model towards generating specific images.",
    tooltips=("A conditioning containing the embedded text used to guide the diffusion model.",),
)
def encode_text(text: str, clip: Model | None) -> tuple[Conditioning]:
    if clip is None:
        raise RuntimeError(
            "ERROR: clip input is invalid: None\n\nIf the clip is from a checkpoint loader node your checkpoint does "
            "not contain a valid clip or text encoder model."
        )
    return (Conditioning(text),)


@node(
    "ControlNetApplyAdvanced",
    link("positive", "CONDITIONING"),
    link("negative", "CONDITIONING"),
    link("control_net", "CONTROL_NET"),
    image(),
    number("strength", 1.0, min=0.0, max=10.0, step=0.01),
    number("start_percent", 0.0, **PERCENT),
    number("end_percent", 1.0, **PERCENT),
    optional(link("vae", "VAE")),
    outputs=("CONDITIONING", "CONDITIONING"),
    names=("positive", "negative"),
    category="conditioning/controlnet",
    title="Apply ControlNet",
)
def apply_control_net(
    positive: Conditioning,
    negative: Conditioning,
    control_net: Model,
    image: Raster,
    strength: float,
    start_percent: float,
    end_percent: float,
    vae: Model | None = None,  # noqa: ARG001 - only some control nets use it
) -> tuple[Conditioning, Conditioning]:
    width, height = image.size
    guide = f"{control_net.name} {width}x{height} {strength} {start_percent}-{end_percent}"
    return tuple(Conditioning(f"{one.text} [{guide}]") for one in (positive, negative))  # type: ignore[return-value]


@node(
    "ConditioningCombine",
    link("conditioning_1", "CONDITIONING"),
    link("conditioning_2", "CONDITIONING"),
    outputs="CONDITIONING",
    category="conditioning",
    title="Conditioning (Combine)",
)
def combine_conditionings(conditioning_1: Conditioning, conditioning_2: Conditioning) -> tuple[Conditioning]:
    return (Conditioning(f"{conditioning_1.text} | {conditioning_2.text}"),)


@node(
    "ConditioningZeroOut",
    link("conditioning", "CONDITIONING"),
    outputs="CONDITIONING",
    category="advanced/conditioning",
)
def zero_out(conditioning: Conditioning) -> tuple[Conditioning]:  # noqa: ARG001 - it is what is forgotten
    return (Conditioning(""),)


@node(
    "FluxGuidance",
    link("conditioning", "CONDITIONING"),
    number("guidance", 3.5, min=0.0, max=100.0, step=0.1),
    outputs="CONDITIONING",
    category="advanced/conditioning/flux",
    module="comfy_extras.nodes_flux",
    is_v3=True,
)
def flux_guidance(conditioning: Conditioning, guidance: float) -> tuple[Any]:
    return (Conditioning(f"{conditioning.text} [guidance {guidance}]"),)
