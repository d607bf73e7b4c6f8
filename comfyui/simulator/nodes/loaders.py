"""Loaders of models and what changes models. Nothing is loaded: a model is its name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from comfyui.simulator.nodes.spec import Registry, choice, integer, link, number, optional

if TYPE_CHECKING:
    from collections.abc import Callable

    from comfyui.simulator.folders import Folders

registry = Registry()
node = registry.node


@dataclass(frozen=True)
class Model:
    """A model, text encoder, VAE or control net: what was loaded and what was added to it."""

    name: str


def models(kind: str) -> Callable[[Folders], list[str]]:
    return lambda folders: folders.models(kind)


LORA_TEXT = (
    "LoRAs are used to modify diffusion and CLIP models, altering the way in which latents are denoised such as "
    "applying styles. Multiple LoRA nodes can be linked together."
)
STRENGTH = {"min": -100.0, "max": 100.0, "step": 0.01}
ADVANCED = "advanced/loaders"


@node(
    "CheckpointLoaderSimple",
    choice("ckpt_name", models("checkpoints"), tooltip="The name of the checkpoint (model) to load."),
    outputs=("MODEL", "CLIP", "VAE"),
    category="loaders",
    title="Load Checkpoint",
    description="Loads a diffusion model checkpoint, diffusion models are used to denoise latents.",
    tooltips=(
        "The model used for denoising latents.",
        "The CLIP model used for encoding text prompts.",
        "The VAE model used for encoding and decoding images to and from latent space.",
    ),
)
def load_checkpoint(ckpt_name: str) -> tuple[Model, Model | None, Model]:
    """A name with `noclip` in it plays a checkpoint without text encoder."""
    model = Model(ckpt_name)
    return model, None if "noclip" in ckpt_name else model, model


@node(
    "LoraLoader",
    link("model", "MODEL", tooltip="The diffusion model the LoRA will be applied to."),
    link("clip", "CLIP", tooltip="The CLIP model the LoRA will be applied to."),
    choice("lora_name", models("loras"), tooltip="The name of the LoRA."),
    number(
        "strength_model",
        1.0,
        **STRENGTH,
        tooltip="How strongly to modify the diffusion model. This value can be negative.",
    ),
    number(
        "strength_clip",
        1.0,
        **STRENGTH,
        tooltip="How strongly to modify the CLIP model. This value can be negative.",
    ),
    outputs=("MODEL", "CLIP"),
    category="loaders",
    title="Load LoRA",
    description=LORA_TEXT,
    tooltips=("The modified diffusion model.", "The modified CLIP model."),
)
def load_lora(
    model: Model, clip: Model, lora_name: str, strength_model: float, strength_clip: float
) -> tuple[Model, Model]:
    return _with(model, f"{lora_name} {strength_model}"), _with(clip, f"{lora_name} {strength_clip}")


@node(
    "LoraLoaderModelOnly",
    link("model", "MODEL"),
    choice("lora_name", models("loras")),
    number("strength_model", 1.0, **STRENGTH),
    outputs="MODEL",
    category="loaders",
    description=LORA_TEXT,
    tooltips=("The modified diffusion model.", "The modified CLIP model."),
)
def load_lora_model_only(model: Model, lora_name: str, strength_model: float) -> tuple[Model]:
    return (_with(model, f"{lora_name} {strength_model}"),)


def _with(model: Model, addition: str) -> Model:
    return replace(model, name=f"{model.name} + {addition}")


@node(
    "ControlNetLoader",
    choice("control_net_name", models("controlnet")),
    outputs="CONTROL_NET",
    category="loaders",
    title="Load ControlNet Model",
)
def load_control_net(control_net_name: str) -> tuple[Model]:
    return (Model(control_net_name),)


@node(
    "UNETLoader",
    choice("unet_name", models("diffusion_models")),
    choice("weight_dtype", ("default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2")),
    outputs="MODEL",
    category=ADVANCED,
    title="Load Diffusion Model",
)
def load_unet(unet_name: str, weight_dtype: str) -> tuple[Model]:
    return (Model(f"{unet_name} {weight_dtype}"),)


DEVICE = optional(choice("device", ("default", "cpu"), advanced=True))


@node(
    "DualCLIPLoader",
    choice("clip_name1", models("text_encoders")),
    choice("clip_name2", models("text_encoders")),
    choice("type", ("sdxl", "sd3", "flux", "hunyuan_video", "hidream", "hunyuan_image")),
    DEVICE,
    outputs="CLIP",
    category=ADVANCED,
    description="[Recipes]\n\nsdxl: clip-l, clip-g\nsd3: clip-l, clip-g / clip-l, t5 / clip-g, t5\nflux: clip-l, t5\n"
    "hidream: at least one of t5 or llama, recommended t5 and llama\nhunyuan_image: qwen2.5vl 7b and byt5 small",
)
def load_dual_clip(clip_name1: str, clip_name2: str, type: str, device: str = "default") -> tuple[Model]:  # noqa: A002, ARG001 - the node's inputs
    return (Model(f"{clip_name1} + {clip_name2} {type}"),)


CLIP_TYPES = (
    "stable_diffusion stable_cascade sd3 stable_audio mochi ltxv pixart cosmos lumina2 wan hidream chroma ace omnigen2 "
    "qwen_image hunyuan_image"
)


@node(
    "CLIPLoader",
    choice("clip_name", models("text_encoders")),
    choice("type", tuple(CLIP_TYPES.split())),
    DEVICE,
    outputs="CLIP",
    category=ADVANCED,
    title="Load CLIP",
    description="[Recipes]\n\nstable_diffusion: clip-l\nstable_cascade: clip-g\nsd3: t5 xxl/ clip-g / clip-l\n"
    "stable_audio: t5 base\nmochi: t5 xxl\ncosmos: old t5 xxl\nlumina2: gemma 2 2B\nwan: umt5 xxl\n"
    " hidream: llama-3.1 (Recommend) or t5\nomnigen2: qwen vl 2.5 3B",
)
def load_clip(clip_name: str, type: str, device: str = "default") -> tuple[Model]:  # noqa: A002, ARG001 - the node's inputs
    return (Model(f"{clip_name} {type}"),)


@node(
    "VAELoader",
    choice("vae_name", lambda folders: [*folders.models("vae"), "pixel_space"]),
    outputs="VAE",
    category="loaders",
    title="Load VAE",
)
def load_vae(vae_name: str) -> tuple[Model]:
    return (Model(vae_name),)


@node(
    "UpscaleModelLoader",
    choice("model_name", models("upscale_models")),
    outputs="UPSCALE_MODEL",
    category="loaders",
    title="Load Upscale Model",
    module="comfy_extras.nodes_upscale_model",
    is_v3=True,
)
def load_upscale_model(model_name: str) -> tuple[Model]:
    return (Model(model_name),)


@node(
    "CLIPSetLastLayer",
    link("clip", "CLIP"),
    integer("stop_at_clip_layer", -1, min=-24, max=-1, step=1),
    outputs="CLIP",
    category="conditioning",
    title="CLIP Set Last Layer",
)
def set_last_layer(clip: Model, stop_at_clip_layer: int) -> tuple[Model]:
    return (_with(clip, f"layer {stop_at_clip_layer}"),)
