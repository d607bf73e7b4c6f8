"""The HTTP routes. Each exists under /api too. Handlers parse, call and render; what they call decides."""

from __future__ import annotations

import json
import os
import sys
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import web

from comfyui.simulator import NOTICE, VERSION
from comfyui.simulator.editor import Editor
from comfyui.simulator.faults import FaultSpecError, parse_fault
from comfyui.simulator.files import Files
from comfyui.simulator.origin import cors, origin_guard
from comfyui.simulator.validation import problem, validate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from comfyui.simulator.executor import Engine
    from comfyui.simulator.queue import Item, PromptQueue

EMPTY_OK = 200


@dataclass
class Server:
    """All routes over one engine and its queue."""

    engine: Engine
    queue: PromptQueue
    features: dict[str, Any]
    next_number: int = 0

    def application(self) -> web.Application:
        options = self.engine.options
        guard = cors(options.cors_origin) if options.cors_origin else origin_guard()
        app = web.Application(middlewares=[guard], client_max_size=int(options.max_body_bytes))
        files = Files(self.engine.folders, self.engine.faults)
        editor = Editor(options.front_end_root, self.engine.folders)
        get: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {
            "/prompt": self.get_prompt,
            "/queue": self.get_queue,
            "/history": self.get_history,
            "/history/{prompt_id}": self.get_history_entry,
            "/object_info": self.object_info,
            "/object_info/{name}": self.object_info_entry,
            "/system_stats": self.system_stats,
            "/features": self.get_features,
            "/models": self.model_folders,
            "/models/{folder}": self.models,
            "/embeddings": self.embeddings,
            "/view": files.view,
            "/ws": self.engine.sockets.handle,
        }
        post: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {
            "/prompt": self.post_prompt,
            "/queue": self.post_queue,
            "/interrupt": self.interrupt,
            "/history": self.post_history,
            "/free": self.free,
            "/upload/image": files.upload_image,
            "/upload/mask": files.upload_mask,
        }
        for prefix in ("", "/api"):
            app.add_routes([web.get(prefix + path, handler) for path, handler in get.items()])
            app.add_routes([web.post(prefix + path, handler) for path, handler in post.items()])
            app.add_routes(editor.routes(prefix))
        app.add_routes(
            [web.get("/simulator/faults", self.get_faults), web.post("/simulator/faults", self.set_faults)]
        )
        # Any other GET asks for one of the editor's files, so a POST elsewhere is 405 and not 404.
        app.add_routes([web.get("/", editor.page), web.get("/{path:.*}", editor.file)])
        return app

    async def post_prompt(self, request: web.Request) -> web.Response:
        if self.engine.faults.take("reject-all"):
            raise web.HTTPInternalServerError
        body = await request.json(loads=json.loads)
        number = self._number(body)
        if "prompt" not in body:
            error = problem("no_prompt", "No prompt provided", "No prompt provided")
            return web.json_response({"error": error, "node_errors": {}}, status=400)
        uuid_only = self.engine.options.uuid_only
        prompt_id = str(body.get("prompt_id", uuid.uuid4()))
        if uuid_only and body.get("prompt_id") is None:
            prompt_id = str(uuid.uuid4())  # later versions take null as absent; this one makes it "None"
        elif uuid_only and not _is_canonical_uuid(prompt_id):
            error = problem("invalid_prompt_id", "prompt_id must be a canonical UUID", f"got {prompt_id!r}")
            return web.json_response({"error": error, "node_errors": {}}, status=400)
        targets = body.get("partial_execution_targets")
        verdict = validate(body["prompt"], targets, self.engine.classes, self.engine.folders)
        extra_data = body.get("extra_data", {})
        if "client_id" in body:
            extra_data["client_id"] = body["client_id"]
        if verdict.error:
            return web.json_response({"error": verdict.error, "node_errors": verdict.node_errors}, status=400)
        item: Item = (number, prompt_id, body["prompt"], extra_data, verdict.outputs)
        self.queue.put(item)
        return web.json_response(
            {"prompt_id": prompt_id, "number": number, "node_errors": verdict.node_errors}
        )

    def _number(self, body: Any) -> float:
        """The place in the queue; the counter goes up for every request that names none, also a refused one."""
        if "number" in body:
            return float(body["number"])
        # Asked with `in` alone: a JSON list has no "front", and is answered with no_prompt instead of 500.
        in_front = "front" in body and body["front"]
        number = -self.next_number if in_front else self.next_number
        self.next_number += 1
        return number

    async def get_prompt(self, _request: web.Request) -> web.Response:
        return web.json_response(queue_info(self.queue))

    async def get_queue(self, _request: web.Request) -> web.Response:
        running, pending = self.queue.show()
        return web.json_response({"queue_running": running, "queue_pending": pending})

    async def post_queue(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body.get("clear"):
            self.queue.clear()
        for prompt_id in body.get("delete", ()):
            self.queue.delete(prompt_id)
        return web.Response(status=EMPTY_OK)

    async def interrupt(self, request: web.Request) -> web.Response:
        """Set the flag, if nothing or the running prompt is named; a body that is no JSON names nothing."""
        try:
            body = await request.json()
        except ValueError:
            body = {}
        prompt_id = body.get("prompt_id")
        if not prompt_id or self.queue.is_running(prompt_id):
            self.engine.interrupted.set()
        return web.Response(status=EMPTY_OK)

    async def get_history(self, request: web.Request) -> web.Response:
        max_items, offset = request.query.get("max_items"), request.query.get("offset")
        page = self.queue.page_history(
            None if max_items is None else int(max_items), -1 if offset is None else int(offset)
        )
        return web.json_response(page)

    async def get_history_entry(self, request: web.Request) -> web.Response:
        return web.json_response(self.queue.find_history(request.match_info["prompt_id"]))

    async def post_history(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body.get("clear"):
            self.queue.forget_history()
        for prompt_id in body.get("delete", ()):
            self.queue.forget_history(prompt_id)
        return web.Response(status=EMPTY_OK)

    async def free(self, request: web.Request) -> web.Response:
        """Done by the worker, after the running prompt."""
        body = await request.json()
        for name in ("unload_models", "free_memory"):
            if body.get(name):
                self.queue.set_flag(name, body[name])
        return web.Response(status=EMPTY_OK)

    async def object_info(self, _request: web.Request) -> web.Response:
        classes, folders = self.engine.classes, self.engine.folders
        return web.json_response({name: spec.describe(folders) for name, spec in classes.items()})

    async def object_info_entry(self, request: web.Request) -> web.Response:
        spec = self.engine.classes.get(request.match_info["name"])
        return web.json_response({spec.name: spec.describe(self.engine.folders)} if spec else {})

    async def system_stats(self, _request: web.Request) -> web.Response:
        total, free = _memory()
        system = {
            "os": os.name,
            "ram_total": total,
            "ram_free": free,
            "comfyui_version": VERSION,
            "required_frontend_version": "1.27.10",
            "installed_templates_version": "0.1.95",
            "required_templates_version": "0.1.95",
            "python_version": sys.version,
            "pytorch_version": "none (simulator)",
            "embedded_python": False,
            "argv": list(self.engine.options.argv),
        }
        device = {"name": "cpu", "type": "cpu", "index": None, "vram_total": total, "vram_free": free}
        device |= {"torch_vram_total": total, "torch_vram_free": free}
        return web.json_response({"system": system, "devices": [device], "simulator": NOTICE})

    async def get_features(self, _request: web.Request) -> web.Response:
        return web.json_response(self.features)

    async def model_folders(self, _request: web.Request) -> web.Response:
        return web.json_response(self.engine.folders.model_kinds())

    async def models(self, request: web.Request) -> web.Response:
        folder = request.match_info["folder"]
        if folder not in self.engine.folders.model_kinds():
            return web.Response(status=404)
        return web.json_response(self.engine.folders.models(folder))

    async def embeddings(self, _request: web.Request) -> web.Response:
        names = self.engine.folders.models("embeddings")
        return web.json_response([os.path.splitext(name)[0] for name in names])  # noqa: PTH122 - a name, no path

    async def get_faults(self, _request: web.Request) -> web.Response:
        return web.json_response({"faults": self.engine.faults.describe()})

    async def set_faults(self, request: web.Request) -> web.Response:
        """`{"faults": [SPEC, ...]}` replaces the faults; 400 with a sentence if one is not understood."""
        body = await request.json()
        try:
            faults = tuple(parse_fault(spec) for spec in body["faults"])
        except FaultSpecError as exc:
            return web.json_response({"error": str(exc)}, status=400)
        self.engine.faults.replace(faults)
        return await self.get_faults(request)


def queue_info(queue: PromptQueue) -> dict[str, Any]:
    return {"exec_info": {"queue_remaining": queue.remaining()}}


def _is_canonical_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _memory() -> tuple[int, int]:
    page = os.sysconf("SC_PAGE_SIZE")
    return page * os.sysconf("SC_PHYS_PAGES"), page * os.sysconf("SC_AVPHYS_PAGES")
