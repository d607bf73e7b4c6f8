"""Samplers as stand-ins: the right steps, progress and previews, but what comes out is drawn."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from PIL import Image

from comfyui.simulator.nodes.latents import Latent, frame_recipe
from comfyui.simulator.nodes.painting import paint
from comfyui.simulator.nodes.spec import Registry, choice, integer, link, number

if TYPE_CHECKING:
    from comfyui.simulator.nodes.conditioning import Conditioning
    from comfyui.simulator.nodes.job import Job
    from comfyui.simulator.nodes.loaders import Model

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
    return paint(frame_recipe(latent, 0), max(1, latent.width // 8), max(1, latent.height // 8), done)
