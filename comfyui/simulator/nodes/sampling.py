"""Latents, samplers and VAEs as stand-ins: the right sizes, steps, progress and previews, but a drawn picture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from PIL import Image

from comfyui.simulator.nodes.images import scale
from comfyui.simulator.nodes.painting import paint
from comfyui.simulator.nodes.spec import Registry, choice, image, integer, link, mask, number
from comfyui.simulator.raster import Band, Raster, compute, from_image

if TYPE_CHECKING:
    from comfyui.simulator.nodes.job import Job
    from comfyui.simulator.nodes.loaders import Conditioning, Model

registry = Registry()
node = registry.node

SAMPLERS = (
    "euler euler_cfg_pp euler_ancestral euler_ancestral_cfg_pp heun heunpp2 dpm_2 dpm_2_ancestral lms dpm_fast "
    "dpm_adaptive dpmpp_2s_ancestral dpmpp_2s_ancestral_cfg_pp dpmpp_sde dpmpp_sde_gpu dpmpp_2m dpmpp_2m_cfg_pp "
    "dpmpp_2m_sde dpmpp_2m_sde_gpu dpmpp_2m_sde_heun dpmpp_2m_sde_heun_gpu dpmpp_3m_sde dpmpp_3m_sde_gpu ddpm lcm "
    "ipndm ipndm_v deis res_multistep res_multistep_cfg_pp res_multistep_ancestral res_multistep_ancestral_cfg_pp "
    "gradient_estimation gradient_estimation_cfg_pp er_sde seeds_2 seeds_3 sa_solver sa_solver_pece ddim uni_pc "
    "uni_pc_bh2"
)
SCHEDULERS = "simple sgm_uniform karras exponential ddim_uniform beta normal linear_quadratic kl_optimal"
SEED: dict[str, Any] = {"min": 0, "max": 0xFFFFFFFFFFFFFFFF, "control_after_generate": True}
CFG: dict[str, Any] = {"min": 0.0, "max": 100.0, "step": 0.1, "round": 0.01}
UPSCALES = ("nearest-exact", "bilinear", "area", "bicubic", "bislerp")
LATENT_SIDE: dict[str, Any] = {"min": 16, "max": 16384, "step": 8}


@dataclass(frozen=True)
class Latent:
    """What stands for a latent: its picture's size, what it was encoded from, and what was sampled over it."""

    width: int
    height: int
    batch: int = 1
    pixels: Raster | None = None
    noise_mask: Raster | None = None
    recipe: str = ""
    denoise: float = 0.0


@node(
    "EmptyLatentImage",
    integer("width", 512, **LATENT_SIDE, tooltip="The width of the latent images in pixels."),
    integer("height", 512, **LATENT_SIDE, tooltip="The height of the latent images in pixels."),
    integer("batch_size", 1, min=1, max=4096, tooltip="The number of latent images in the batch."),
    outputs="LATENT",
    category="latent",
    title="Empty Latent Image",
    description="Create a new batch of empty latent images to be denoised via sampling.",
    tooltips=("The empty latent image batch.",),
)
@node(
    "EmptySD3LatentImage",
    integer("width", 1024, min=16, max=16384, step=16),
    integer("height", 1024, min=16, max=16384, step=16),
    integer("batch_size", 1, min=1, max=4096),
    outputs="LATENT",
    category="latent/sd3",
    module="comfy_extras.nodes_sd3",
    is_v3=True,
)
def empty_latent(width: int, height: int, batch_size: int) -> tuple[Latent]:
    """A latent pixel covers 8 by 8, so sizes are cut to a multiple of 8."""
    return (Latent(width // 8 * 8, height // 8 * 8, batch_size),)


@node(
    "KSampler",
    link("model", "MODEL", tooltip="The model used for denoising the input latent."),
    integer("seed", 0, **SEED, tooltip="The random seed used for creating the noise."),
    integer("steps", 20, min=1, max=10000, tooltip="The number of steps used in the denoising process."),
    number(
        "cfg",
        8.0,
        **CFG,
        tooltip="The Classifier-Free Guidance scale balances creativity and adherence to the prompt. Higher values "
        "result in images more closely matching the prompt however too high values will negatively impact quality.",
    ),
    choice(
        "sampler_name",
        tuple(SAMPLERS.split()),
        tooltip="The algorithm used when sampling, this can affect the quality, speed, and style of the generated "
        "output.",
    ),
    choice(
        "scheduler",
        tuple(SCHEDULERS.split()),
        tooltip="The scheduler controls how noise is gradually removed to form the image.",
    ),
    link(
        "positive",
        "CONDITIONING",
        tooltip="The conditioning describing the attributes you want to include in the image.",
    ),
    link(
        "negative",
        "CONDITIONING",
        tooltip="The conditioning describing the attributes you want to exclude from the image.",
    ),
    link("latent_image", "LATENT", tooltip="The latent image to denoise."),
    number(
        "denoise",
        1.0,
        min=0.0,
        max=1.0,
        step=0.01,
        tooltip="The amount of denoising applied, lower values will maintain the structure of the initial image "
        "allowing for image to image sampling.",
    ),
    outputs="LATENT",
    category="sampling",
    description="Uses the provided model, positive and negative conditioning to denoise the latent image.",
    tooltips=("The denoised latent.",),
    is_stand_in=True,
)
def ksampler(
    model: Model,
    seed: int,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    positive: Conditioning,
    negative: Conditioning,
    latent_image: Latent,
    denoise: float,
    job: Job,
) -> tuple[Latent]:
    recipe = f"{seed} {model.name} {cfg} {sampler_name} {scheduler} {positive.text!r} {negative.text!r}"
    return (_sample(job, latent_image, recipe, denoise, steps),)


@node(
    "KSamplerAdvanced",
    link("model", "MODEL"),
    choice("add_noise", ("enable", "disable")),
    integer("noise_seed", 0, **SEED),
    integer("steps", 20, min=1, max=10000),
    number("cfg", 8.0, **CFG),
    choice("sampler_name", tuple(SAMPLERS.split())),
    choice("scheduler", tuple(SCHEDULERS.split())),
    link("positive", "CONDITIONING"),
    link("negative", "CONDITIONING"),
    link("latent_image", "LATENT"),
    integer("start_at_step", 0, min=0, max=10000),
    integer("end_at_step", 10000, min=0, max=10000),
    choice("return_with_leftover_noise", ("disable", "enable")),
    outputs="LATENT",
    category="sampling",
    title="KSampler (Advanced)",
    is_stand_in=True,
)
def ksampler_advanced(job: Job, latent_image: Latent, steps: int, **inputs: Any) -> tuple[Latent]:
    first, last = min(inputs["start_at_step"], steps), min(inputs["end_at_step"], steps)
    positive, negative = inputs["positive"].text, inputs["negative"].text
    words = [inputs[name] for name in ("noise_seed", "cfg", "sampler_name", "scheduler", "add_noise")]
    recipe = f"{words} {inputs['model'].name} {positive!r} {negative!r} {first} {latent_image.recipe}"
    return (_sample(job, latent_image, recipe, 1 - first / steps, max(0, last - first)),)


def _sample(job: Job, latent: Latent, recipe: str, denoise: float, steps: int) -> Latent:
    """Takes the configured time per step and reports each, with a preview if previews are on."""
    sampled = replace(latent, recipe=recipe, denoise=denoise)
    for step in range(1, steps + 1):
        job.sleep(job.options.step_seconds)
        job.progress(step, steps, _preview(job, sampled, step / steps))
    return sampled


def _preview(job: Job, latent: Latent, done: float) -> Image.Image | None:
    """An eighth of the size, as latent2rgb gives; the sender enlarges it to the preview size."""
    if job.options.preview_method == "none":
        return None
    return paint(_frame_recipe(latent, 0), max(1, latent.width // 8), max(1, latent.height // 8), done)


def _frame_recipe(latent: Latent, index: int) -> str:
    return f"{latent.recipe} #{index}"


@node(
    "VAEDecode",
    link("samples", "LATENT", tooltip="The latent to be decoded."),
    link("vae", "VAE", tooltip="The VAE model used for decoding the latent."),
    outputs="IMAGE",
    category="latent",
    title="VAE Decode",
    description="Decodes latent images back into pixel space images.",
    tooltips=("The decoded image.",),
    is_stand_in=True,
)
def vae_decode(samples: Latent, vae: Model) -> tuple[Raster]:  # noqa: ARG001 - no VAE has a say here
    size = (samples.width, samples.height)
    if not samples.recipe:
        empty = from_image(Image.new("RGB", size, (127, 127, 127))).repeated(samples.batch)
        return (empty if samples.pixels is None else samples.pixels,)
    frames = tuple(
        from_image(paint(_frame_recipe(samples, at), *size)).frames[0] for at in range(samples.batch)
    )
    drawn = Raster(frames)
    return (drawn if samples.pixels is None else _blended(samples.pixels, drawn, samples),)


def _blended(pixels: Raster, drawn: Raster, latent: Latent) -> Raster:
    """Image to image: the drawing shows by the amount of denoising, and only where the mask selects."""
    amount = latent.denoise
    matte = (
        None if latent.noise_mask is None else scale(latent.noise_mask, *drawn.size, "bilinear").frames[0][0]
    )

    def mix(below: Band, above: Band) -> Band:
        if matte is None:
            return compute(lambda a, b: a * (1.0 - amount) + b * amount, below, above)
        return compute(lambda a, b, m: a * (1.0 - amount * m) + b * amount * m, below, above, matte)

    return pixels.combine(drawn, mix)


@node(
    "VAEEncode", image("pixels"), link("vae", "VAE"), outputs="LATENT", category="latent", title="VAE Encode"
)
def vae_encode(pixels: Raster, vae: Model) -> tuple[Latent]:  # noqa: ARG001 - no VAE has a say here
    width, height = (side // 8 * 8 for side in pixels.size)
    left, top = ((full - side) // 2 for full, side in zip(pixels.size, (width, height), strict=True))
    cut = pixels.map(lambda band: band.crop((left, top, left + width, top + height)))
    return (Latent(width, height, len(cut.frames), Raster(tuple(frame[:3] for frame in cut.frames))),)


@node(
    "VAEEncodeForInpaint",
    image("pixels"),
    link("vae", "VAE"),
    mask(),
    integer("grow_mask_by", 6, min=0, max=64, step=1),
    outputs="LATENT",
    category="latent/inpaint",
    title="VAE Encode (for Inpainting)",
)
def vae_encode_for_inpaint(pixels: Raster, vae: Model, mask: Raster, grow_mask_by: int) -> tuple[Latent]:  # noqa: ARG001 - the drawing needs no soft border
    (latent,) = vae_encode(pixels, vae)
    return (replace(latent, noise_mask=mask),)


@node(
    "SetLatentNoiseMask",
    link("samples", "LATENT"),
    mask(),
    outputs="LATENT",
    category="latent/inpaint",
    title="Set Latent Noise Mask",
)
def set_latent_noise_mask(samples: Latent, mask: Raster) -> tuple[Latent]:
    return (replace(samples, noise_mask=mask),)


@node(
    "LatentUpscale",
    link("samples", "LATENT"),
    choice("upscale_method", UPSCALES),
    integer("width", 512, min=0, max=16384, step=8),
    integer("height", 512, min=0, max=16384, step=8),
    choice("crop", ("disabled", "center")),
    outputs="LATENT",
    category="latent",
    title="Upscale Latent",
)
def latent_upscale(samples: Latent, upscale_method: str, width: int, height: int, crop: str) -> tuple[Latent]:  # noqa: ARG001 - the drawing is only stretched
    if width == 0 and height == 0:
        return (samples,)
    width = width or max(64, round(samples.width * height / samples.height))
    height = height or max(64, round(samples.height * width / samples.width))
    pixels = None if samples.pixels is None else scale(samples.pixels, width, height, "bilinear")
    return (replace(samples, width=width // 8 * 8, height=height // 8 * 8, pixels=pixels),)


@node(
    "ImageUpscaleWithModel",
    link("upscale_model", "UPSCALE_MODEL"),
    image(),
    outputs="IMAGE",
    category="image/upscaling",
    title="Upscale Image (using Model)",
    module="comfy_extras.nodes_upscale_model",
    is_v3=True,
    is_stand_in=True,
)
def upscale_with_model(upscale_model: Model, image: Raster) -> tuple[Raster]:
    """Four times the size, or as often as the model's name says (x2, 2x)."""
    by = next((n for n in (2, 3, 8) if f"x{n}" in upscale_model.name or f"{n}x" in upscale_model.name), 4)
    width, height = image.size
    return (scale(image, width * by, height * by, "bicubic"),)
