"""Files over HTTP: GET /view, POST /upload/image, POST /upload/mask."""

from __future__ import annotations

import asyncio
import io
import json
import mimetypes
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web
from PIL import Image

from comfyui.simulator.folders import KINDS, Folders, split_annotation

if TYPE_CHECKING:
    from collections.abc import Callable

    from comfyui.simulator.faults import Faults

ACTIVE_TYPES = {"text/html", "text/html-sandboxed", "application/xhtml+xml", "text/javascript", "text/css"}
DEFAULT_QUALITY = 90


class Files:
    """The handlers; every refusal is a bare status with an empty body."""

    def __init__(self, folders: Folders, faults: Faults) -> None:
        self._folders, self._faults = folders, faults

    async def view(self, request: web.Request) -> web.StreamResponse:
        """A file of the output, input or temp folder, or a picture made from it."""
        if slow := self._faults.take("slow-view"):
            await asyncio.sleep(slow.seconds)
        path = self._find(request.query)
        if isinstance(path, int):
            return web.Response(status=path)
        headers = {"Content-Disposition": f'filename="{path.name}"'}
        channel = request.query.get("channel", "")
        if "preview" in request.query:
            preview = partial(_preview, channel=channel)
            return await _picture(preview, path, request.query["preview"], headers)
        if channel in {"rgb", "a"}:
            return await _picture(_channel, path, channel, headers)
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        headers["Content-Type"] = "application/octet-stream" if kind in ACTIVE_TYPES else kind
        return web.FileResponse(path, headers=headers)

    def _find(self, query: Any) -> Path | int:
        """The file asked for, or the status of the refusal."""
        if "filename" not in query:
            return 404
        annotated, filename = split_annotation(query["filename"])
        kind = annotated or query.get("type", "output")
        if not filename or filename.startswith("/") or ".." in filename or kind not in KINDS:
            return 400
        root = self._folders.of_kind(kind)
        folder = inside(root, query.get("subfolder", ""))
        if folder is None:
            return 403
        path = folder / os.path.basename(filename)  # noqa: PTH119 - "x/" has an empty name
        return path if path.is_file() else 404

    async def upload_image(self, request: web.Request) -> web.Response:
        form = await request.post()
        return await asyncio.to_thread(self._store, form, lambda content, path: path.write_bytes(content))

    async def upload_mask(self, request: web.Request) -> web.Response:
        """The colours of the original with the alpha of the upload. Writes nothing if the original is not there."""
        form = await request.post()

        def merge(content: bytes, path: Path) -> None:
            reference = json.loads(str(form["original_ref"]))
            original = self._find({"type": "output"} | reference)
            if isinstance(original, int):
                return
            with Image.open(original) as picture, Image.open(io.BytesIO(content)) as drawn:
                merged = picture.convert("RGBA")
                merged.putalpha(drawn.convert("RGBA").getchannel("A"))
            merged.save(path, compress_level=4)

        return await asyncio.to_thread(self._store, form, merge)

    def _store(self, form: Any, write: Callable[[bytes, Path], object]) -> web.Response:
        """Raises KeyError, hence 500, for an unknown type; so does a field that is no file."""
        image = form.get("image")
        if image is None or not image.file or not image.filename:
            return web.Response(status=400)
        kind = form.get("type") or "input"
        root = {name: self._folders.of_kind(name) for name in KINDS}[kind]
        subfolder = form.get("subfolder", "")
        folder = inside(root, os.path.normpath(subfolder) if subfolder else "")
        name = image.filename.lstrip("/")
        path = None if folder is None else inside(folder, name)
        if folder is None or path is None:
            return web.Response(status=400)
        folder.mkdir(parents=True, exist_ok=True)
        content = image.file.read()
        if form.get("overwrite") not in {"true", "1"}:
            name, path, is_known = _free_name(folder, name, content)
            if is_known:
                return web.json_response({"name": name, "subfolder": subfolder, "type": kind})
        write(content, path)
        return web.json_response({"name": name, "subfolder": subfolder, "type": kind})


def inside(root: Path, relative: str) -> Path | None:
    """The path below `root`, or None if it leaves it."""
    path = Path(os.path.normpath(root / relative))
    return path if path.is_relative_to(root) else None


def _free_name(folder: Path, name: str, content: bytes) -> tuple[str, Path, bool]:
    """The first of `x.png`, `x (1).png`, ... that is free or already holds these bytes."""
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - the name may hold folders
    number = 0
    candidate = name
    while (folder / candidate).exists():
        if (folder / candidate).read_bytes() == content:
            return candidate, folder / candidate, True
        number += 1
        candidate = f"{stem} ({number}){suffix}"
    return candidate, folder / candidate, False


async def _picture(
    make: Callable[[Path, str], tuple[bytes, str]], path: Path, how: str, headers: dict[str, str]
) -> web.Response:
    content, kind = await asyncio.to_thread(make, path, how)
    return web.Response(body=content, content_type=kind, headers=headers)


def _preview(path: Path, how: str, *, channel: str) -> tuple[bytes, str]:
    """`FORMAT;QUALITY`; an unknown format gives webp, and so does a channel with an a."""
    form, _, quality = how.partition(";")
    form = form if form in {"webp", "jpeg"} and "a" not in channel else "webp"
    with Image.open(path) as picture:
        flat = picture.convert("RGB") if form == "jpeg" or channel == "rgb" else picture
        buffer = io.BytesIO()
        flat.save(buffer, format=form, quality=int(quality) if quality.isdigit() else DEFAULT_QUALITY)
    return buffer.getvalue(), f"image/{form}"


def _channel(path: Path, channel: str) -> tuple[bytes, str]:
    with Image.open(path) as picture:
        if channel == "rgb":
            chosen = picture.convert("RGB")
        else:
            alpha = (
                picture.getchannel("A") if "A" in picture.getbands() else Image.new("L", picture.size, 255)
            )
            chosen = Image.new("RGBA", picture.size)
            chosen.putalpha(alpha)
    buffer = io.BytesIO()
    chosen.save(buffer, format="PNG")
    return buffer.getvalue(), "image/png"
