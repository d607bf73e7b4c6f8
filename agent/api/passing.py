"""ComfyUI's own routes, where the operator opens them.

Uploads are read, judged, and written anew, so that ComfyUI finds in them what was judged here, however else it may read
a form. The agent's own input files lie in the same folder. They are called by their SHA-256, and what tasks get for a
picture is whatever the file of that name holds. So nobody may overwrite a file that could be one of them; without
`overwrite`, ComfyUI itself never changes a file that is there.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from aiohttp import MultipartWriter, web
from multidict import MultiDict
from pydantic_core import from_json

from agent.api.form import File, is_form, read_form
from agent.api.keys import PASSAGE, SAFETY, SETTINGS
from agent.errors import BodyTooLarge, InvalidRequest
from comfyui.routes import HARMLESS

#: What ComfyUI's upload routes read beside the file.
TEXTS = ("overwrite", "subfolder", "type", "original_ref")

#: Shows any of the engine's files by its name.
VIEW = "/view"

#: Puts a mask on one of them, and makes an input of it.
MASK = "/upload/mask"

#: Somewhere in the path of each file of ours, also where ComfyUI has added " (1)" to its name.
OURS = re.compile(r"[0-9a-f]{64}", re.IGNORECASE)

#: Names with these ComfyUI could store, but not show again. What is not UTF-8 arrives as surrogates.
UNSHOWN = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


async def read_upload(request: web.Request) -> MultipartWriter:
    """The form to send to ComfyUI in place of the caller's. Fields of other names are left out, as are second ones.

    Raises InvalidRequest, BodyTooLarge, BodyTooSlow.
    """
    if (request.content_length or 0) > request.app[SETTINGS].max_body_bytes:
        raise BodyTooLarge(limit=request.app[SETTINGS].max_body_bytes)
    if not is_form(request):
        raise InvalidRequest(
            "An upload is a form: send multipart/form-data with the file in the field `image`."
        )
    fields = dict(reversed(await read_form(request)))  # of equal names ComfyUI takes the first
    image = fields.get("image")
    if not isinstance(image, File) or not image.filename:
        raise InvalidRequest("The form has no file with a name in its field `image`.")
    texts = {name: value for name in TEXTS if isinstance(value := fields.get(name), str)}
    if UNSHOWN.search(image.filename) or UNSHOWN.search(texts.get("subfolder", "")):
        raise InvalidRequest(
            "The name of the file, or of its subfolder, has control characters, or is not UTF-8."
        )
    if request.path.endswith(MASK):
        _check_original(request, texts.get("original_ref"))
    if texts.get("type", "input") not in ("input", "temp"):
        raise InvalidRequest('An upload is an input file: leave `type` out, or make it "input" or "temp".')
    overwrites = texts.get("overwrite") in ("true", "1")
    if not overwrites:
        texts.pop("overwrite", None)
    if OURS.search(texts.get("subfolder", "")) or (overwrites and OURS.search(image.filename)):
        raise InvalidRequest(
            "Files whose name has 64 hexadecimal digits in a row are the agent's own, and are not overwritten. "
            "Choose another name, or leave `overwrite` out and use the name that is answered."
        )
    form = MultipartWriter("form-data")
    # Escaped like this, which ComfyUI's web server undoes, no name can break out of its header.
    name = f"filename*=utf-8''{quote(image.filename, safe='')}"
    form.append(image.data, {"Content-Disposition": f'form-data; name="image"; {name}'})
    for field, text in texts.items():
        form.append(text, {"Content-Disposition": f'form-data; name="{field}"'})
    return form


def _check_original(request: web.Request, text: str | None) -> None:
    """A mask is put on a file of the engine's, and the result is an input that anybody may look at. Raises FileHidden,
    InvalidRequest."""
    if text is None:
        return
    try:
        original = from_json(text)
    except ValueError:
        raise InvalidRequest("The form's field `original_ref` is not JSON.") from None
    if not isinstance(original, dict):
        raise InvalidRequest("The form's field `original_ref` is no JSON object.")
    named = {name: str(original[name]) for name in ("filename", "subfolder", "type") if original.get(name)}
    request.app[SAFETY].hidden.check(MultiDict(named))


async def read(request: web.Request, path: str | None = None) -> web.StreamResponse:
    """Pass a question on; `path` is what ComfyUI is asked for, where that is not what we were asked for.

    Raises FileHidden.
    """
    if request.path.endswith(VIEW):
        request.app[SAFETY].hidden.check(request.query)
    return await request.app[PASSAGE].pass_on(request, path=path)


async def _upload(request: web.Request) -> web.StreamResponse:
    return await request.app[PASSAGE].pass_on(request, await read_upload(request))


def routes(names: list[str]) -> list[web.RouteDef]:
    """The routes of these names."""
    return [web.route(HARMLESS[n], n, _upload if HARMLESS[n] == "POST" else read) for n in names]
