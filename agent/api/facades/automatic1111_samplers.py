"""The names of samplers and schedulers in AUTOMATIC1111's web UI, and in ComfyUI.

The schedulers are those of its modules/sd_schedulers.py, names and aliases of samplers those of its
modules/sd_samplers_kdiffusion.py; which scheduler a sampler takes by itself since version 1.9 is from memory.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from agent.errors import InvalidParameter


class Sampler(NamedTuple):
    """`name` there, `ours` in ComfyUI; `automatic`: the scheduler that it takes where none is asked for, as named in
    ComfyUI."""

    name: str
    ours: str
    aliases: tuple[str, ...]
    automatic: str = "normal"


class Scheduler(NamedTuple):
    """`ours` is None for the one that leaves the choice to the sampler."""

    name: str
    label: str
    ours: str | None


SAMPLERS = (
    Sampler("DPM++ 2M", "dpmpp_2m", ("k_dpmpp_2m",), "karras"),
    Sampler("DPM++ SDE", "dpmpp_sde", ("k_dpmpp_sde",), "karras"),
    Sampler("DPM++ 2M SDE", "dpmpp_2m_sde", ("k_dpmpp_2m_sde",), "exponential"),
    Sampler("DPM++ 2M SDE Heun", "dpmpp_2m_sde_heun", ("k_dpmpp_2m_sde_heun",), "exponential"),
    Sampler("DPM++ 2S a", "dpmpp_2s_ancestral", ("k_dpmpp_2s_a",), "karras"),
    Sampler("DPM++ 3M SDE", "dpmpp_3m_sde", ("k_dpmpp_3m_sde",), "exponential"),
    Sampler("Euler a", "euler_ancestral", ("k_euler_a", "k_euler_ancestral")),
    Sampler("Euler", "euler", ("k_euler",)),
    Sampler("LMS", "lms", ("k_lms",)),
    Sampler("Heun", "heun", ("k_heun",)),
    Sampler("DPM2", "dpm_2", ("k_dpm_2",), "karras"),
    Sampler("DPM2 a", "dpm_2_ancestral", ("k_dpm_2_a",), "karras"),
    Sampler("DPM fast", "dpm_fast", ("k_dpm_fast",)),
    Sampler("DPM adaptive", "dpm_adaptive", ("k_dpm_ad",)),
    Sampler("LCM", "lcm", ("k_lcm",), "sgm_uniform"),
    Sampler("DDIM", "ddim", (), "ddim_uniform"),
    Sampler("UniPC", "uni_pc", ("unipc",)),
)

SCHEDULERS = (
    Scheduler("automatic", "Automatic", None),
    Scheduler("uniform", "Uniform", "normal"),
    Scheduler("karras", "Karras", "karras"),
    Scheduler("exponential", "Exponential", "exponential"),
    Scheduler("sgm_uniform", "SGM Uniform", "sgm_uniform"),
    Scheduler("kl_optimal", "KL Optimal", "kl_optimal"),
    Scheduler("simple", "Simple", "simple"),
    Scheduler("normal", "Normal", "normal"),
    Scheduler("ddim", "DDIM", "ddim_uniform"),
    Scheduler("beta", "Beta", "beta"),
)

#: Before version 1.9 a scheduler was the end of the sampler's name.
WITH_SCHEDULER = re.compile(r"(.+?)(?: |_)(karras|ka|exponential|sgmuniform|sgm uniform)", re.IGNORECASE)
ENDINGS = {"ka": "karras", "sgmuniform": "sgm_uniform", "sgm uniform": "sgm_uniform"}

_SAMPLERS = {
    name.lower(): sampler for sampler in SAMPLERS for name in (sampler.ours, *sampler.aliases, sampler.name)
}
_SCHEDULERS = {
    **{s.ours: s for s in reversed(SCHEDULERS) if s.ours is not None},
    **{name.lower(): s for s in SCHEDULERS for name in (s.name, s.label)},
    "sgmuniform": next(s for s in SCHEDULERS if s.name == "sgm_uniform"),
}


class Choice(NamedTuple):
    """What the workflow is told, in ComfyUI's names; None: what it has itself."""

    sampler: str | None
    scheduler: str | None


def choose(sampler: str | None, scheduler: str | None) -> Choice:
    """The sampler and the scheduler that are meant. Raises InvalidParameter."""
    ending = None
    found = None
    if sampler:
        key = sampler.strip().lower()
        found = _SAMPLERS.get(key)
        if found is None and (parts := WITH_SCHEDULER.fullmatch(key)):
            found = _SAMPLERS.get(parts[1])
            ending = ENDINGS.get(parts[2], parts[2])
        if found is None:
            raise InvalidParameter(
                f'Parameter "sampler_name": {_show(sampler)} is none of '
                f"{', '.join(s.name for s in SAMPLERS)}.",
                parameter="sampler_name",
            )
    asked = scheduler.strip().lower() if scheduler else ""
    if asked and asked not in _SCHEDULERS:
        raise InvalidParameter(
            f'Parameter "scheduler": {_show(scheduler)} is none of {", ".join(s.label for s in SCHEDULERS)}.',
            parameter="scheduler",
        )
    ours = _SCHEDULERS[asked].ours if asked else None
    automatic = found.automatic if found is not None else None
    return Choice(found.ours if found else None, ours or ending or automatic)


def sampler_name(ours: str) -> str:
    """What ComfyUI's sampler is called there; its own name where it is not known there."""
    return next((s.name for s in SAMPLERS if s.ours == ours), ours)


def scheduler_label(ours: str) -> str:
    """As `sampler_name`, for a scheduler."""
    return next((s.label for s in SCHEDULERS if s.ours == ours), ours)


def _show(name: str | None) -> str:
    return ascii((name or "")[:40])
