"""AUTOMATIC1111's API, /sdapi/v1: txt2img and img2img, how they are going, and what there is to choose from.

Each picture is a task of its own. Clients know a key as the password of HTTP Basic.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from contextlib import suppress
from typing import Any

import pybase64
from aiohttp import web

from agent.api.facades.answering import answer_early, blame, name_tasks, task_ids
from agent.api.facades.automatic1111_answers import Order, body_of, render_error
from agent.api.facades.automatic1111_input import (
    LARGEST_SEED,
    Change,
    Drawing,
    check_options,
    read_call,
)
from agent.api.facades.automatic1111_lists import (
    list_checkpoints,
    list_embeddings,
    list_loras,
    list_nothing,
    list_samplers,
    list_schedulers,
    list_scripts,
    options_of,
    owner_of,
    refresh,
    set_options,
    show_flags,
    show_memory,
    show_options,
)
from agent.api.facades.automatic1111_models import find_checkpoint, find_lora
from agent.api.facades.automatic1111_pictures import Pictures, prepare_pictures
from agent.api.facades.automatic1111_prompt import read_prompt
from agent.api.facades.automatic1111_samplers import choose
from agent.api.facades.automatic1111_state import Job
from agent.api.facades.request import MEGAPIXEL, Wish, prepare
from agent.api.facades.results import Picture, as_bytes
from agent.api.keys import BOARD, RUNNER, WEB_UI
from agent.api.parse import in_thread
from agent.api.render import json_response
from agent.api.response import Response
from agent.errors import (
    InvalidModel,
    InvalidParameter,
    NotLabelled,
    PictureTooLarge,
    PreviewNotFound,
    StoreUnavailable,
    TaskNotFound,
    WorkflowRejected,
)
from agent.service import Delivery, Forwarded

__all__ = [
    "img2img",
    "interrupt",
    "list_checkpoints",
    "list_embeddings",
    "list_loras",
    "list_nothing",
    "list_samplers",
    "list_schedulers",
    "list_scripts",
    "progress",
    "refresh",
    "render_error",
    "set_options",
    "show_flags",
    "show_memory",
    "show_options",
    "skip",
    "txt2img",
]

#: What the caller calls a role.
NAMES = {
    "guidance": "cfg_scale",
    "strength": "denoising_strength",
    "sampler": "sampler_name",
    "megapixels": "width",
    "image": "init_images",
    "lora": "prompt",
    "lora_strength": "prompt",
    "stop_at_clip_layer": "override_settings.CLIP_stop_at_last_layers",
}

#: Said while a call runs that has made no step yet.
BEGUN = 0.01


async def txt2img(request: web.Request) -> web.StreamResponse:
    given, sent = await read_call(request, Drawing)
    return await _make(request, await _order(request, given, sent), "txt2img")


async def img2img(request: web.Request) -> web.StreamResponse:
    given, sent = await read_call(request, Change)
    pictures = await in_thread(request.app, prepare_pictures, given)
    return await _make(request, await _order(request, given, sent, pictures), "img2img")


async def progress(request: web.Request) -> web.Response:
    """How the caller's oldest call on this instance is going."""
    jobs = request.app[WEB_UI].jobs(owner_of(request))
    if not jobs:
        return json_response(_state(None, 0.0, 0.0))
    job = jobs[0]
    done = max(job.progress, BEGUN)
    passed = time.time() - job.began_at
    told = _state(job, done, passed / done - passed)
    if request.query.get("skip_current_image", "").lower() not in ("true", "1"):
        told["current_image"] = await _preview(request.app, job)
    return json_response(told)


async def interrupt(request: web.Request) -> web.Response:
    """End the caller's calls on this instance; each answers what it has made by then."""
    for job in request.app[WEB_UI].jobs(owner_of(request)):
        job.interrupt()
    return json_response({})


async def skip(request: web.Request) -> web.Response:
    """End the picture that is being made, and go on with the next of the call."""
    for job in request.app[WEB_UI].jobs(owner_of(request))[:1]:
        job.skip()
    return json_response({})


async def _order(
    request: web.Request, given: Drawing, sent: dict[str, Any], pictures: Pictures | None = None
) -> Order:
    app = request.app
    check_options(given.override_settings, of="override_settings.")
    options = check_options({**options_of(request), **given.override_settings})
    checkpoint = await find_checkpoint(app, options.sd_model_checkpoint)
    words, lora = read_prompt(given.prompt, is_used=not given.disable_extra_networks)
    sampler = choose(given.sampler_name or given.sampler_index, given.scheduler)
    values: dict[str, Any] = {
        "prompt": words,
        "negative_prompt": read_prompt(given.negative_prompt, is_used=False)[0],
        "steps": given.steps,
        "guidance": given.cfg_scale,
        "width": given.width,
        "height": given.height,
        "sampler": sampler.sampler,
        "scheduler": sampler.scheduler,
    }
    needs = set()
    if lora is not None:
        values |= {"lora": await find_lora(app, lora.name), "lora_strength": lora.weight}
        needs |= {"lora", "lora_strength"}
    if (layers := options.CLIP_stop_at_last_layers) > 1:
        values["stop_at_clip_layer"] = -layers  # as CLIPSetLastLayer counts
        needs.add("stop_at_clip_layer")
    if pictures is not None:
        values["strength"] = given.denoising_strength
        if pictures.mask is None and given.denoising_strength is not None:
            needs.add("strength")
        if pictures.size is not None:
            width, height = pictures.size
            values |= {"width": width, "height": height, "megapixels": width * height / MEGAPIXEL}
    seeds = _seeds(request, given)
    prepared = []
    for seed in seeds:
        wish = Wish(
            {**values, "seed": seed},
            images=[pictures.image] if pictures else [],
            mask=pictures.mask if pictures else None,
            names=NAMES,
            needs=needs,
        )
        prepared.append(await prepare(app, checkpoint.model, wish))
    return Order(given, sent, options, checkpoint, seeds, prepared)


def _seeds(request: web.Request, given: Drawing) -> list[int]:
    """Each picture has the next one. A random one is the same for a call that is sent again under its name."""
    first = given.seed
    if first < 0:
        name = name_tasks(request)
        digest = hashlib.sha256(name.encode()).digest() if name is not None else secrets.token_bytes(4)
        first = int.from_bytes(digest[:4]) % (LARGEST_SEED - given.count)
    return [first + number for number in range(given.count)]


async def _make(request: web.Request, order: Order, name: str) -> web.StreamResponse:
    return await answer_early(request, _result(request, order, name))


async def _result(request: web.Request, order: Order, name: str) -> web.Response:
    ids, is_named = task_ids(request, order.prepared)
    runner = request.app[RUNNER]
    with request.app[WEB_UI].job(owner_of(request), name, len(ids)) as job:
        try:
            async with asyncio.TaskGroup() as group:
                runs: list[asyncio.Task[Delivery | Forwarded | None]] = [
                    group.create_task(
                        job.attend(
                            task_id, runner.run(prepared.run, task_id, is_named=is_named, show=job.note)
                        )
                    )
                    for prepared, task_id in zip(order.prepared, ids, strict=True)
                ]
        except ExceptionGroup as failures:
            raise _blame(order, failures.exceptions[0]) from None
    body = await body_of(request.app, order, [run.result() for run in runs])
    return Response(body=body, content_type="application/json", headers={"task-id": ids[0]})


def _blame(order: Order, error: Exception) -> Exception:
    """A LoRA that no engine knows is the caller's fault, which a front learns only now."""
    if isinstance(error, WorkflowRejected) and "lora_name" in error.detail and "<lo" in order.given.prompt:
        return InvalidParameter(f'Parameter "prompt": {error.detail}', parameter="prompt")
    return blame(error)


def _state(job: Job | None, done: float, remaining: float) -> dict[str, Any]:
    node = job.current.current_node if job and job.current else None
    return {
        "progress": done,
        "eta_relative": remaining,
        "state": {
            "skipped": job.is_skipped if job else False,
            "interrupted": job.is_interrupted if job else False,
            "stopping_generation": False,
            "job": job.name if job else "",
            "job_count": job.count if job else 0,
            "job_timestamp": time.strftime("%Y%m%d%H%M%S", time.gmtime(job.began_at)) if job else "0",
            "job_no": job.done if job else 0,
            "sampling_step": int(node.value) if node else 0,
            "sampling_steps": int(node.max) if node else 0,
        },
        "current_image": None,
        "textinfo": None,
    }


async def _preview(app: web.Application, job: Job) -> str | None:
    """The latest preview of the picture that is being made, as base64 of a PNG."""
    if job.current is None or not job.current.preview:
        return None
    with suppress(
        PreviewNotFound, TaskNotFound, StoreUnavailable, InvalidModel, NotLabelled, PictureTooLarge
    ):
        data = await app[BOARD].preview(job.current.id)
        made = await as_bytes(app, Picture("image/jpeg", data), "image/png")
        return await asyncio.to_thread(pybase64.b64encode_as_string, made)
    return None
