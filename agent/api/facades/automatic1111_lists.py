"""What AUTOMATIC1111's clients ask before they draw: which checkpoints, LoRAs, samplers and settings there are."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from agent.api.access import shown_key
from agent.api.facades.automatic1111_input import Options, check_options
from agent.api.facades.automatic1111_models import checkpoint_files, find_checkpoint, lora_files, stem
from agent.api.facades.automatic1111_samplers import SAMPLERS, SCHEDULERS
from agent.api.keys import API_KEYS, MODELS, SETTINGS, WEB_UI
from agent.api.parse import read_object
from agent.api.render import json_response
from agent.errors import InvalidOptions


def owner_of(request: web.Request) -> bytes | None:
    """Whose calls and settings are the caller's: those of the same key. None for one who needs none and shows none."""
    return shown_key(request) if request.app[API_KEYS] else b""


def options_of(request: web.Request) -> dict[str, Any]:
    """What the caller has set on this instance."""
    owner = owner_of(request)
    return request.app[WEB_UI].options.get(owner, {}) if owner is not None else {}


async def show_options(request: web.Request) -> web.Response:
    options = Options.model_validate(options_of(request))
    found = await find_checkpoint(request.app, options.sd_model_checkpoint)
    return json_response(
        {
            **options.model_dump(),
            "sd_model_checkpoint": found.title,
            "sd_checkpoint_hash": None,
            "sd_vae": "Automatic",
            "live_previews_enable": True,
        }
    )


async def set_options(request: web.Request) -> web.Response:
    """Keep settings for the calls that follow with the same key. Only one process can remember them: where others may
    get those calls, a change is refused. Raises InvalidParameter, ModelNotFound, InvalidOptions."""
    given = await read_object(request)
    options = check_options(given)
    found = await find_checkpoint(request.app, options.sd_model_checkpoint)
    before = options_of(request)
    kept = {name: value for name, value in options if name in given and given[name] is not None}
    if "sd_model_checkpoint" in kept:
        kept["sd_model_checkpoint"] = found.title
    default = await find_checkpoint(request.app, None)
    usual = {**Options().model_dump(), "sd_model_checkpoint": default.title}
    changes = {name for name, value in kept.items() if value != {**usual, **before}[name]}
    owner = owner_of(request)
    if changes and (owner is None or request.app[SETTINGS].behind_gateway):
        raise InvalidOptions(
            f"{', '.join(sorted(changes))}: another instance may get the next call, and would not know of it. Send it "
            "with each call, in override_settings.",
            option=min(changes),
        )
    if changes and owner is not None:
        request.app[WEB_UI].options[owner] = {**before, **kept}
    return json_response(None)


async def list_checkpoints(request: web.Request) -> web.Response:
    table = await asyncio.to_thread(request.app[MODELS])
    names = dict.fromkeys([*table.own, *await checkpoint_files(request.app, table)])
    return json_response(
        [
            {
                "title": name,
                "model_name": stem(name),
                "hash": None,
                "sha256": None,
                "filename": name,
                "config": None,
            }
            for name in names
        ]
    )


async def list_loras(request: web.Request) -> web.Response:
    files = await lora_files(request.app)
    return json_response([{"name": stem(f), "alias": stem(f), "path": f, "metadata": {}} for f in files])


async def list_samplers(_request: web.Request) -> web.Response:
    return json_response(
        [{"name": s.name, "aliases": s.aliases, "options": _automatic(s.automatic)} for s in SAMPLERS]
    )


def _automatic(ours: str) -> dict[str, str]:
    """A sampler's own scheduler; the usual one is not said there."""
    found = next(s for s in SCHEDULERS if s.ours == ours)
    return {} if ours == "normal" else {"scheduler": found.name}


async def list_schedulers(_request: web.Request) -> web.Response:
    return json_response(
        [
            {"name": s.name, "label": s.label, "aliases": None, "default_rho": -1, "need_inner_model": False}
            for s in SCHEDULERS
        ]
    )


async def list_nothing(_request: web.Request) -> web.Response:
    """What this server has none of."""
    return json_response([])


async def list_embeddings(_request: web.Request) -> web.Response:
    return json_response({"loaded": {}, "skipped": {}})


async def list_scripts(_request: web.Request) -> web.Response:
    return json_response({"txt2img": [], "img2img": []})


async def show_flags(_request: web.Request) -> web.Response:
    return json_response({"api": True, "api_server_stop": False, "nowebui": True})


async def show_memory(_request: web.Request) -> web.Response:
    unknown = {"error": "GET /metrics tells what is known of memory"}
    return json_response({"ram": unknown, "cuda": unknown})


async def refresh(_request: web.Request) -> web.Response:
    """Files of the engine show by themselves."""
    return json_response(None)
