"""What ComfyUI's editor asks for beside the rest: its own files, its settings, and the workflows that people save.

The editor itself is not ours and not part of this. `--front-end-root` names its folder, as for ComfyUI: the `static` of
the package `comfyui-frontend-package`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from comfyui.simulator import NOTICE
from comfyui.simulator.files import inside

if TYPE_CHECKING:
    from comfyui.simulator.folders import Folders

PAGE = f"<!doctype html><title>ComfyUI simulator</title><p>{NOTICE}</p>"


class Editor:
    """The handlers. There is one user, as where ComfyUI was not started with `--multi-user`."""

    def __init__(self, root: Path | None, folders: Folders) -> None:
        self._root = None if root is None else root.absolute()
        self._folders = folders
        self._user = folders.base / "user" / "default"
        self._user.mkdir(parents=True, exist_ok=True)

    def routes(self, prefix: str) -> list[web.RouteDef]:
        return [
            web.get(f"{prefix}/users", self.users),
            web.get(f"{prefix}/settings", self.settings),
            web.get(f"{prefix}/settings/{{id}}", self.setting),
            web.post(f"{prefix}/settings", self.change_settings),
            web.post(f"{prefix}/settings/{{id}}", self.change_setting),
            web.get(f"{prefix}/userdata", self.list_files),
            web.get(f"{prefix}/userdata/{{file}}", self.read_file),
            web.post(f"{prefix}/userdata/{{file}}", self.write_file),
            web.delete(f"{prefix}/userdata/{{file}}", self.remove_file),
            web.post(f"{prefix}/userdata/{{file}}/move/{{dest}}", self.move_file),
            web.get(f"{prefix}/extensions", self.extensions),
            web.get(f"{prefix}/i18n", self.nothing),
            web.get(f"{prefix}/workflow_templates", self.nothing),
            web.get(f"{prefix}/experiment/models", self.model_folders),
        ]

    async def page(self, _request: web.Request) -> web.StreamResponse:
        """The editor, or a page that says that there is none."""
        if self._root is None:
            return web.Response(text=PAGE, content_type="text/html")
        return web.FileResponse(self._root / "index.html", headers={"Cache-Control": "no-cache"})

    async def file(self, request: web.Request) -> web.StreamResponse:
        """One of the editor's files. Every GET that is nothing else asks for one."""
        path = None if self._root is None else inside(self._root, request.match_info["path"])
        if path is None or not path.is_file():
            return web.Response(status=404, content_type="application/octet-stream")
        return web.FileResponse(path)

    async def users(self, _request: web.Request) -> web.Response:
        return web.json_response({"storage": "server", "migrated": True})

    async def settings(self, _request: web.Request) -> web.Response:
        return web.json_response(self._settings())

    async def setting(self, request: web.Request) -> web.Response:
        return web.json_response(self._settings().get(request.match_info["id"]))

    async def change_settings(self, request: web.Request) -> web.Response:
        self._save(self._settings() | await request.json())
        return web.Response()

    async def change_setting(self, request: web.Request) -> web.Response:
        self._save(self._settings() | {request.match_info["id"]: await request.json()})
        return web.Response()

    async def list_files(self, request: web.Request) -> web.Response:
        """The files of a folder: 400 without `dir`, 403 outside, 404 if it is not there."""
        query = request.query
        if not query.get("dir"):
            return web.Response(status=400, text="Directory not provided")
        folder = inside(self._user, query["dir"])
        if folder is None:
            return web.Response(status=403, text="Invalid directory")
        if not folder.is_dir():
            return web.Response(status=404, text="Directory not found")
        found = folder.rglob("*") if query.get("recurse") == "true" else folder.glob("*")
        listed: list[Any] = []
        for path in sorted(path for path in found if path.is_file()):
            name = path.relative_to(folder).as_posix()
            if query.get("full_info") == "true":
                listed.append(_info(path, folder))
            else:
                listed.append([name, *name.split("/")] if query.get("split") == "true" else name)
        return web.json_response(listed)

    async def read_file(self, request: web.Request) -> web.StreamResponse:
        return web.FileResponse(self._existing(request))

    async def write_file(self, request: web.Request) -> web.Response:
        path = self._target(request, "file")
        path.write_bytes(await request.read())
        return self._told(request, path)

    async def remove_file(self, request: web.Request) -> web.Response:
        self._existing(request).unlink()
        return web.Response(status=204)

    async def move_file(self, request: web.Request) -> web.Response:
        source, target = self._existing(request), self._target(request, "dest")
        source.replace(target)
        return self._told(request, target)

    async def extensions(self, _request: web.Request) -> web.Response:
        """The scripts that the editor loads at its start: those of its own folder."""
        if self._root is None:
            return web.json_response([])
        scripts = (self._root / "extensions").rglob("*.js")
        return web.json_response([f"/{script.relative_to(self._root).as_posix()}" for script in scripts])

    async def nothing(self, _request: web.Request) -> web.Response:
        """What only custom nodes bring."""
        return web.json_response({})

    async def model_folders(self, _request: web.Request) -> web.Response:
        """The kinds of models, in the shape of the route that is to replace /models."""
        kinds = (kind for kind in self._folders.model_kinds() if kind not in ("configs", "custom_nodes"))
        models = self._folders.base / "models"
        return web.json_response([{"name": kind, "folders": [str(models / kind)]} for kind in kinds])

    def _path(self, request: web.Request, part: str) -> Path:
        """Raises HTTPForbidden outside of the user's folder."""
        path = inside(self._user, request.match_info[part])
        if path is None:
            raise web.HTTPForbidden(text="")
        return path

    def _existing(self, request: web.Request) -> Path:
        path = self._path(request, "file")
        if not path.is_file():
            raise web.HTTPNotFound(text="")
        return path

    def _target(self, request: web.Request, part: str) -> Path:
        """Raises HTTPConflict for a file that is there and shall stay."""
        path = self._path(request, part)
        if request.query.get("overwrite") == "false" and path.exists():
            raise web.HTTPConflict(text="File already exists")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _told(self, request: web.Request, path: Path) -> web.Response:
        full = request.query.get("full_info", "").lower() == "true"
        return web.json_response(_info(path, self._user) if full else path.relative_to(self._user).as_posix())

    def _settings(self) -> dict[str, Any]:
        path = self._user / "comfy.settings.json"
        found: dict[str, Any] = json.loads(path.read_bytes()) if path.is_file() else {}
        return found

    def _save(self, settings: dict[str, Any]) -> None:
        (self._user / "comfy.settings.json").write_text(json.dumps(settings, indent=4))


def _info(path: Path, root: Path) -> dict[str, Any]:
    stat = path.stat()
    return {
        "path": path.relative_to(root).as_posix(),
        "size": stat.st_size,
        "modified": stat.st_mtime,
        "created": stat.st_ctime,
    }
