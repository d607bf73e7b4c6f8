"""Checkpoints and LoRAs as AUTOMATIC1111's clients name them: by file, without its ending, or as listed with a hash."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import NamedTuple

from aiohttp import web

from agent.api.facades.models import DEFAULT_CHECKPOINT, Model, ModelTable, checkpoint
from agent.api.keys import INVENTORY, MODELS
from agent.errors import InvalidParameter, ModelNotFound

#: The end of a title.
HASH = re.compile(r" \[[0-9a-f]{1,64}\]$")


class Checkpoint(NamedTuple):
    """A model under the name that lists show."""

    title: str
    model: Model


async def find_checkpoint(app: web.Application, name: str | None) -> Checkpoint:
    """The model of this name: a line of the table, a checkpoint that one of its lines loads, or one that the engine of
    this instance has. Raises ModelNotFound."""
    table = await asyncio.to_thread(app[MODELS])
    if not name:
        model = table.get(DEFAULT_CHECKPOINT)
        return Checkpoint(model.values.get("checkpoint", DEFAULT_CHECKPOINT), model)
    wanted = HASH.sub("", name)
    file = _match(wanted, await checkpoint_files(app, table))
    if wanted in table.own:
        return Checkpoint(wanted, table.get(wanted))
    if file is not None:
        return Checkpoint(file, _of_file(table, file))
    try:
        return Checkpoint(wanted, table.get(wanted))
    except ModelNotFound:
        raise ModelNotFound(
            f"There is no checkpoint {name[:64]!a}. GET /sdapi/v1/sd-models lists them, and AGENT_MODELS can name "
            "a workflow for it."
        ) from None


async def checkpoint_files(app: web.Application, table: ModelTable) -> list[str]:
    """Those of the engine, where there is one here and it answers, and those that the table names."""
    named = [file for model in table.models if isinstance(file := model.values.get("checkpoint"), str)]
    return list(dict.fromkeys([*await _files(app, "CheckpointLoaderSimple", "ckpt_name"), *named]))


async def lora_files(app: web.Application) -> list[str]:
    """Those of the engine, where there is one here and it answers."""
    return await _files(app, "LoraLoader", "lora_name")


async def find_lora(app: web.Application, name: str) -> str:
    """The file of a LoRA. A front knows of none, and leaves it to the engine. Raises InvalidParameter."""
    files = await lora_files(app)
    found = _match(name, files)
    if found is None and files:
        raise InvalidParameter(
            f'Parameter "prompt": there is no LoRA {name[:64]!a}. GET /sdapi/v1/loras lists them.',
            parameter="prompt",
        )
    return found or (name if name.endswith(".safetensors") else f"{name}.safetensors")


def stem(file: str) -> str:
    """A file's name without folders and ending."""
    return PurePosixPath(file.replace("\\", "/")).stem


def _of_file(table: ModelTable, file: str) -> Model:
    """What the table says of a checkpoint, where one of its lines draws from words with it; its own values suit it."""
    fitting = (m for m in table.models if m.values.get("checkpoint") == file and m.workflow is not None)
    return next(fitting, None) or checkpoint(file, {})


def _match(name: str, files: Iterable[str]) -> str | None:
    known = list(files)
    if name in known:
        return name
    wanted = name.replace("\\", "/").lower()
    for file in known:
        path = PurePosixPath(file.replace("\\", "/").lower())
        if wanted in (str(path), path.name, str(path.with_suffix("")), path.stem):
            return file
    return None


async def _files(app: web.Application, class_type: str, name: str) -> list[str]:
    inventory = app.get(INVENTORY)  # a front has none
    catalog = await inventory.catalog() if inventory else None
    found = catalog.choices(class_type, name) if catalog else None
    return [file for file in found or [] if isinstance(file, str)]
