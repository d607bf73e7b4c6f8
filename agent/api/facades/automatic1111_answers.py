"""What is answered as AUTOMATIC1111's API would: pictures, their `info`, and errors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import pybase64
from aiohttp import web
from pydantic_core import to_json

from agent.api.facades.automatic1111_input import Change, Drawing, Options
from agent.api.facades.automatic1111_models import Checkpoint, stem
from agent.api.facades.automatic1111_samplers import sampler_name, scheduler_label
from agent.api.facades.request import Prepared
from agent.api.facades.results import as_bytes, check_size, pictures_of
from agent.api.keys import BOARD
from agent.api.render import ErrorResponse
from agent.errors import AgentError, StoreUnavailable, TaskNotFound
from agent.labels.parameters import parameters_text
from agent.service import Delivery, Forwarded
from agent.tasks.record import TaskRecord

#: Errors of what was sent, as the original's framework tells them.
OF_FIELDS = ("InvalidParameter", "InvalidInput", "InvalidJson", "InvalidRequest")

#: What has another name there.
WORDS = {"Sampler": sampler_name, "Schedule type": scheduler_label}

#: Pictures that were sent are not sent back.
SENT_PICTURES = ("init_images", "mask", "latent_mask")


class Order(NamedTuple):
    """A call that was understood: for each picture its seed and its run."""

    given: Drawing
    sent: dict[str, Any]
    options: Options
    checkpoint: Checkpoint
    seeds: Sequence[int]
    prepared: Sequence[Prepared]


class Made(NamedTuple):
    """One picture: its bytes as base64, the seed that it was made with, and its text."""

    data: str
    seed: int
    text: str
    size: tuple[int, int]


def render_error(error: AgentError, task_id: str | None = None) -> ErrorResponse:
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after is not None else {}
    if found := task_id or error.task_id:
        headers["task-id"] = found
    if error.code == "Unauthorized":
        headers["WWW-Authenticate"] = "Basic"
    status, body = error.status, describe(error)
    if error.code in OF_FIELDS:
        status = 422
        where = ["body", *str(error.facts.get("parameter") or "").split(".")]
        body = {"detail": [{"loc": [w for w in where if w], "msg": error.detail, "type": error.code}]}
    response = ErrorResponse(
        body=to_json(body), status=status, content_type="application/json", headers=headers
    )
    response.code = error.code
    return response


def describe(error: AgentError) -> dict[str, Any]:
    return {"error": error.code, "detail": error.detail, "body": "", "errors": error.detail}


async def body_of(
    app: web.Application, order: Order, results: Sequence[Delivery | Forwarded | None]
) -> bytes:
    """The whole answer as JSON; pictures that were interrupted are missing in it. Raises AnswerTooLarge."""
    made: list[Made] = []
    for prepared, seed, delivery in zip(order.prepared, order.seeds, results, strict=True):
        if delivery is not None:
            made += await _pictures(app, order, prepared, seed, delivery)
    sent = dict(order.sent)
    if not getattr(order.given, "include_init_images", False):
        sent |= {name: None for name in SENT_PICTURES if name in sent}
    answer = {
        "images": [one.data for one in made] if order.given.send_images else [],
        "parameters": sent,
        "info": to_json(_info(order, made)).decode(),
    }
    body = await asyncio.to_thread(to_json, answer)
    check_size(app, len(body))
    return body


async def _pictures(
    app: web.Application, order: Order, prepared: Prepared, seed: int, delivery: Delivery | Forwarded
) -> list[Made]:
    record = await _record(app, delivery)
    # A review that refused a picture has had it made again, with another seed.
    changed = record.seeds if record else {}
    used = next((value for values in changed.values() for value in values.values()), seed)
    found = []
    for picture in await pictures_of(app, prepared.nodes, delivery):
        data = await as_bytes(app, picture, order.options.media_type)
        size = await asyncio.to_thread(_size, data)
        text = await asyncio.to_thread(_text, order, prepared, changed, size)
        found.append(Made(await asyncio.to_thread(pybase64.b64encode_as_string, data), used, text, size))
    return found


async def _record(app: web.Application, delivery: Delivery | Forwarded) -> TaskRecord | None:
    if isinstance(delivery, Delivery):
        return delivery.record
    with suppress(TaskNotFound, StoreUnavailable):
        return await app[BOARD].get(delivery.task_id)
    return None


def _size(data: bytes) -> tuple[int, int]:
    from agent.safety.picture import open_picture  # noqa: PLC0415 - keeps the start of the process light

    with open_picture(data) as picture:
        return picture.size


def _text(order: Order, prepared: Prepared, seeds: dict[str, dict[str, int]], size: tuple[int, int]) -> str:
    """The text that the web UI shows below a picture: what the sampler was told, in the names that it has there."""
    changes = {(node, name): seed for node, values in seeds.items() for name, seed in values.items()}
    workflow = prepared.run.workflow.with_inputs(changes) if changes else prepared.run.workflow
    nodes = [node for node in prepared.nodes or workflow.nodes if node in workflow.nodes]
    texts = (parameters_text(workflow, node, size) for node in nodes)
    told = next((text for text in texts if text is not None), None)
    facts = told.rpartition("\n")[2] if told is not None else f"Size: {size[0]}x{size[1]}"
    named = []
    for fact in facts.split(", "):
        label, _, value = fact.partition(": ")
        say = WORDS.get(label)
        named.append(fact if say is None else f"{label}: {say(value)}")
    if order.options.CLIP_stop_at_last_layers > 1:
        named.insert(-1, f"Clip skip: {order.options.CLIP_stop_at_last_layers}")
    lines = [order.given.prompt]
    if order.given.negative_prompt:
        lines.append(f"Negative prompt: {order.given.negative_prompt}")
    return "\n".join([*lines, ", ".join(named)])


def _info(order: Order, made: Sequence[Made]) -> dict[str, Any]:
    given = order.given
    told = dict(fact.split(": ", 1) for fact in _facts(made) if ": " in fact)
    width, height = made[0].size if made else (given.width, given.height)
    seeds = [one.seed for one in made]
    steps = given.steps if given.steps is not None else _number(told.get("Steps"))
    scale = given.cfg_scale if given.cfg_scale is not None else _number(told.get("CFG scale"))
    return {
        "prompt": given.prompt,
        "all_prompts": [given.prompt] * len(made),
        "negative_prompt": given.negative_prompt,
        "all_negative_prompts": [given.negative_prompt] * len(made),
        "seed": seeds[0] if seeds else order.seeds[0],
        "all_seeds": seeds,
        "subseed": seeds[0] if seeds else order.seeds[0],
        "all_subseeds": seeds,
        "subseed_strength": 0,
        "width": width,
        "height": height,
        "sampler_name": told.get("Sampler") or given.sampler_name,
        "cfg_scale": scale,
        "steps": steps,
        "batch_size": given.batch_size,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": stem(order.checkpoint.title),
        "sd_model_hash": None,
        "sd_vae_name": None,
        "sd_vae_hash": None,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": given.denoising_strength if isinstance(given, Change) else None,
        "extra_generation_params": {k: told[k] for k in ("Schedule type",) if k in told},
        "index_of_first_image": 0,
        "infotexts": [one.text for one in made],
        "styles": [],
        "job_timestamp": time.strftime("%Y%m%d%H%M%S", time.gmtime()),
        "clip_skip": order.options.CLIP_stop_at_last_layers,
        "is_using_inpainting_conditioning": False,
        "version": "ComfyUI",
    }


def _facts(made: Sequence[Made]) -> list[str]:
    return made[0].text.rpartition("\n")[2].split(", ") if made else []


def _number(text: str | None) -> float | int | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return int(value) if value.is_integer() else value
