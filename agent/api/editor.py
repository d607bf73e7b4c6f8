"""ComfyUI's own clients on our port, where AGENT_PASS_THROUGH is `all`.

Scripts and comfy-cli use /prompt, /ws (editor_socket.py), /queue, /history, /api/jobs (editor_jobs.py), /interrupt and
/view at the root; ComfyUI's editor is served under /comfyui/, from where it asks for everything else. What runs goes
through the tasks, so keys, limits, policies and metrics hold for it; the rest is read from ComfyUI, or written to its
settings and saved workflows.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from pydantic_core import to_json

from agent.api import editor_jobs, pages, passing
from agent.api.editor_socket import CLIENT_ID, open_socket
from agent.api.keys import API_KEYS, DESK, LABELLER, PASSAGE
from agent.api.parse import check_task_id, parse_run_request, read_body, read_object
from agent.api.render import ErrorResponse, json_response
from agent.api.tasks import send_output
from agent.editor.viewing import Rendering, rendering_of
from agent.errors import AgentError, InvalidOptions, InvalidQuery, NotFound
from comfyui.routes import HARMLESS

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: Where ComfyUI's editor is served. It asks for everything below its own address.
BASE = "/comfyui"

#: Carries the API key of a browser, which can put it into no header of a page or a WebSocket.
COOKIE = "comfyui_agent_key"

#: What the editor reads beside HARMLESS; none of it acts. Routes of custom nodes are not among them: some do.
READ = (
    "/extensions",
    "/experiment/models",
    "/experiment/models/{folder}",
    "/global_subgraphs",
    "/i18n",
    "/settings",
    "/settings/{id}",
    "/userdata",
    "/userdata/{file}",
    "/users",
    "/v2/userdata",
    "/view_metadata/{folder}",
    "/workflow_templates",
)

#: What it writes: its settings, and the workflows that people save in it.
WRITTEN = (
    ("POST", "/settings"),
    ("POST", "/settings/{id}"),
    ("POST", "/userdata/{file}"),
    ("POST", "/userdata/{file}/move/{dest}"),
    ("DELETE", "/userdata/{file}"),
)

#: Files of the editor and of extensions' pages. Other names under /comfyui/ are routes, and could do anything; so are
#: all below /internal.
ENDINGS = "css|gif|html|ico|jpe?g|js|json|map|md|mjs|mp3|mp4|png|svg|ttf|txt|wasm|webm|webp|woff2?"
STATIC = rf"(?!(?:api/)?internal/)[^?#\\\x00-\x1f]{{1,500}}\.(?:{ENDINGS})"

#: Files of the editor that it asks for at the root, whatever its own address is: icons of its tab, and logos.
ICON = r"(?:[A-Za-z0-9_-]{1,60}/){0,3}[A-Za-z0-9_-]{1,60}\.(?:ico|png|svg)"


def key_of(request: web.Request) -> str:
    """The API key that a browser sends to the editor: in its cookie, or once in the address."""
    if not request.path.startswith(f"{BASE}/"):
        return ""
    return request.cookies.get(COOKIE, "") or (request.query.get("key", "") if _is_index(request) else "")


async def show_editor(request: web.Request) -> web.StreamResponse:
    """ComfyUI's editor. With `?key=` the key is kept in a cookie, for the page's own requests."""
    given = request.query.get("key")
    if given is None:
        return await request.app[PASSAGE].pass_on(request, path="/", is_ours=True)
    response = web.Response(status=303, headers={"Location": f"{BASE}/", "Cache-Control": "no-store"})
    if any(hmac.compare_digest(key, given.encode(errors="surrogateescape")) for key in request.app[API_KEYS]):
        is_safe = request.headers.get("X-Forwarded-Proto", request.scheme) == "https"
        response.set_cookie(COOKIE, given, path=BASE, httponly=True, samesite="Strict", secure=is_safe)
    return response


async def queue_prompt(request: web.Request) -> web.Response:
    """POST /prompt: run a graph as a task. The prompt's id is the task's."""
    try:
        body = await read_body(request)
        wanted = await parse_run_request(request.app, body, ignores_unknown=True)
        client_id = wanted.beside.get("client_id") or wanted.extra_data.get("client_id") or ""
        prompt_id = wanted.beside.get("prompt_id")
        if not isinstance(client_id, str) or (client_id and not CLIENT_ID.fullmatch(client_id)):
            raise InvalidOptions(
                "client_id is a short text of letters, digits and - _ . :", option="client_id"
            )
        if prompt_id is not None and not isinstance(prompt_id, str):
            raise InvalidOptions("prompt_id is a text.", option="prompt_id")
        prompt = await request.app[DESK].queue(
            wanted, client_id, check_task_id(prompt_id) if prompt_id else None, size=len(body)
        )
    except AgentError as error:
        return _refusal(error)
    accepted = {"prompt_id": prompt.id, "number": prompt.number, "node_errors": {}}
    return json_response(accepted, headers={"task-id": prompt.id})


async def show_remaining(request: web.Request) -> web.Response:
    """GET /prompt."""
    return json_response({"exec_info": {"queue_remaining": request.app[DESK].remaining}})


async def show_queue(request: web.Request) -> web.Response:
    """GET /queue: the prompts of ComfyUI's clients; other tasks show in /api/queue."""
    return json_response(request.app[DESK].listed())


async def change_queue(request: web.Request) -> web.Response:
    """POST /queue: `delete` these waiting prompts, or `clear` all of them."""
    asked = await read_object(request, or_nothing=True)
    if asked.get("clear"):
        await request.app[DESK].cancel(running=False, prompt_ids=None)
    if ids := _ids(asked):
        await request.app[DESK].cancel(running=False, prompt_ids=ids)
    return web.Response()


async def show_history(request: web.Request) -> web.Response:
    """GET /history, with `max_items` and `offset`."""
    most, offset = _number(request, "max_items"), _number(request, "offset")
    history = request.app[DESK].history(most=most, offset=-1 if offset is None else offset)
    return json_response(history)


async def show_one(request: web.Request) -> web.Response:
    """GET /history/ID: empty until the prompt is over."""
    return json_response(request.app[DESK].history(request.match_info["prompt_id"]))


async def change_history(request: web.Request) -> web.Response:
    """POST /history: `delete` these, or `clear` it. The tasks and their results stay."""
    asked = await read_object(request, or_nothing=True)
    if asked.get("clear"):
        request.app[DESK].forget(None)
    if ids := _ids(asked):
        request.app[DESK].forget(ids)
    return web.Response()


async def interrupt(request: web.Request) -> web.Response:
    """POST /interrupt: cancel the running prompts of ComfyUI's clients, or the one that `prompt_id` names."""
    asked = await read_object(request, or_nothing=True)
    only = asked.get("prompt_id")
    await request.app[DESK].cancel(running=True, prompt_ids={str(only)} if only else None)
    return web.Response()


async def view(request: web.Request) -> web.StreamResponse:
    """GET /view: a prompt's file as it was delivered, or a preview of that; the engine's other files as they are.

    Raises NotLabelled for a preview that cannot carry the file's labels, PictureTooLarge for one of too many pixels,
    InvalidQuery where none can be made.
    """
    query = request.query
    place = (query.get("filename", ""), query.get("subfolder", ""), query.get("type", "output"))
    found = await request.app[DESK].file(place)
    if found is None:
        return await passing.read(request, _path(request))
    output, data = found
    rendering = rendering_of(query)
    # What lies in the object store is shown from there, as it is.
    if rendering is not None and isinstance(data, bytes) and output.media_type.startswith("image/"):
        data = await _render(request, data, rendering)
        output = output.model_copy(update={"media_type": rendering.media_type, "bytes": len(data)})
    return send_output(request, output, data)


async def _render(request: web.Request, data: bytes, rendering: Rendering) -> bytes:
    try:
        return await request.app[LABELLER].convert(data, rendering.render)
    except AgentError:
        raise
    except Exception as exc:  # Pillow raises whatever it meets in a picture that it does not know
        raise InvalidQuery(
            "The file cannot be read as a picture: ask for it without `preview` and `channel`."
        ) from exc


def _ids(asked: dict[str, Any]) -> set[str]:
    named = asked.get("delete")
    return {str(one) for one in named} if isinstance(named, list) else set()


def _number(request: web.Request, name: str) -> int | None:
    given = request.query.get(name)
    if given is None:
        return None
    if not re.fullmatch(r"-?[0-9]{1,9}", given):
        raise InvalidQuery(f"{name} is a whole number.", parameter=name)
    return int(given)


def _refusal(error: AgentError) -> web.Response:
    """ComfyUI's form of a refusal, which holds the agent's as well."""
    body = error.to_body()
    told = {"type": error.code, "message": error.detail, "details": "", "extra_info": {}}
    found = error.facts.get("comfyui")
    body["error"] |= {**told, **found} if isinstance(found, dict) else told
    body["node_errors"] = error.facts.get("node_errors") or _blamed(error)
    response = ErrorResponse(body=to_json(body), status=error.status, content_type="application/json")
    response.code = error.code
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response


def _blamed(error: AgentError) -> dict[str, Any]:
    """The node that our own error names, as ComfyUI names it: the editor marks it red."""
    node_id = error.facts.get("node_id")
    if node_id is None:
        return {}
    found = {"type": error.code, "message": error.detail, "details": "", "extra_info": {}}
    named = {"errors": [found], "dependent_outputs": [], "class_type": error.facts.get("node_class", "")}
    return {str(node_id): named}


def _is_index(request: web.Request) -> bool:
    return request.path in (f"{BASE}/", f"{BASE}/index.html")


def _path(request: web.Request) -> str:
    """What ComfyUI is asked for: the same without the place where it is served here."""
    if any(part in (".", "..") for part in request.path.split("/")):
        raise NotFound  # on the way it would come to be another route
    return str(request.rel_url).removeprefix(BASE)


async def _read(request: web.Request) -> web.StreamResponse:
    return await request.app[PASSAGE].pass_on(request, path=_path(request))


async def _read_file(request: web.Request) -> web.StreamResponse:
    return await request.app[PASSAGE].pass_on(request, path=_path(request), is_ours=True)


async def _write(request: web.Request) -> web.StreamResponse:
    return await request.app[PASSAGE].pass_on(request, await read_body(request), path=_path(request))


async def _upload(request: web.Request) -> web.StreamResponse:
    return await request.app[PASSAGE].pass_on(
        request, await passing.read_upload(request), path=_path(request)
    )


async def _enter(_: web.Request) -> web.Response:
    return web.Response(status=308, headers={"Location": f"{BASE}/"})


async def _find_icon(request: web.Request) -> web.Response:
    """Where an icon is. Nothing else is said without a key: the browser sends its cookie there, and not here."""
    location = f"{BASE}{pages.ICONS_PATH}{request.match_info['icon']}"
    return web.Response(status=307, headers={"Location": location})


#: What is answered here; at the root for scripts, and below the editor's address for itself.
OURS: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/ws", open_socket),
    ("POST", "/prompt", queue_prompt),
    ("GET", "/prompt", show_remaining),
    ("GET", "/queue", show_queue),
    ("POST", "/queue", change_queue),
    ("GET", "/history", show_history),
    ("GET", "/history/{prompt_id}", show_one),
    ("POST", "/history", change_history),
    ("POST", "/interrupt", interrupt),
    ("GET", "/view", view),
)


def routes() -> list[web.RouteDef]:
    """Every route of ComfyUI's own clients."""
    found = [web.route(method, path, handler) for method, path, handler in OURS]
    found += editor_jobs.routes("/api") + editor_jobs.routes(f"{BASE}/api")
    found += passing.routes([name for name in HARMLESS if name != "/view"])
    for base in (f"{BASE}/api", BASE):
        found += [web.route(method, f"{base}{path}", handler) for method, path, handler in OURS]
        for path, method in HARMLESS.items():
            if path != "/view":
                found.append(web.route(method, f"{base}{path}", _upload if method == "POST" else _read))
        found += [web.get(f"{base}{path}", _read) for path in READ]
        found += [web.route(method, f"{base}{path}", _write) for method, path in WRITTEN]
    found += [
        web.get(BASE, _enter),
        web.get(f"{BASE}/", show_editor),
        web.get(f"{BASE}/index.html", show_editor),
        web.get(f"{pages.ICONS_PATH}{{icon:{ICON}}}", _find_icon),
    ]
    return [*found, web.get(f"{BASE}/{{file:{STATIC}}}", _read_file)]
