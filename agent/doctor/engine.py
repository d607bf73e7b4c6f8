"""Checks of the engine, before or while it runs: its program, its Python, its port, its GPU."""

from __future__ import annotations

import asyncio
import shutil
import socket
import sys
import urllib.request
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from pydantic_core import from_json

from agent.build import plan_engine
from agent.doctor.finding import Finding, advice, ok, problem
from agent.settings import Role, Settings
from comfyui.client import Client
from comfyui.errors import ComfyUIError, EngineFailedError
from comfyui.launch import Launch

CONNECT_SECONDS = 5

#: How long a Python that lies on a cold network disk may take to start.
PYTHON_SECONDS = 60

#: What ComfyUI cannot start without, as it can be seen without importing it.
MODULES = ("torch", "aiohttp", "PIL", "numpy", "safetensors")

FIND_MODULES = (
    "from importlib.util import find_spec; "
    f"print('missing:', *[m for m in {MODULES!r} if find_spec(m) is None])"
)

#: Files that a driver makes: NVIDIA, AMD, WSL.
GPU_DEVICES = ("/dev/nvidia0", "/dev/kfd", "/dev/dxg")


async def check_engine(settings: Settings) -> list[Finding]:
    """Whether the engine can be launched, or answers where others run it."""
    if settings.role is Role.FRONT:
        return [await _check_function(settings)]
    try:
        # What is provisioned first is not started here.
        url, launch = plan_engine(settings.model_copy(update={"provision": None}))
    except EngineFailedError as exc:
        return [problem("engine", f"{exc}.", "Correct the setting: the service will not start.")]
    if launch is None:
        return [await _check_attached(url)]
    findings = [await _check_program(settings, launch), await _check_port(settings, url)]
    if settings.comfyui_root and not _has_gpu() and "--cpu" not in settings.comfyui_args:
        text = "This machine shows none, and ComfyUI ends at its start where it expects one."
        remedy = "Start the container with its GPU (docker run --gpus all), or set COMFYUI_ARGS=--cpu."
        findings.append(advice("gpu", text, remedy))
    return findings


def check_setpriv(settings: Settings) -> list[Finding]:
    """Whether the engine dies with its agent."""
    if settings.role is Role.FRONT or settings.comfyui_url or shutil.which("setpriv"):
        return []
    text = "There is no setpriv: an agent that is killed leaves its engine behind, with the GPU and the port."
    return [advice("setpriv", text, "Install util-linux.")]


async def check_own_port(settings: Settings) -> list[Finding]:
    """Whether the service could listen."""
    if settings.port == 0 or await _is_free(settings.host, settings.port):
        return [ok("port", f"{settings.port} is free.")]
    if await _is_agent(settings.port):
        return [ok("port", f"An agent answers on {settings.port} already.")]
    text = f"{settings.port} is in use, and not by an agent."
    return [
        problem("port", text, f"`ss -ltnp 'sport = :{settings.port}'` names the program; or set AGENT_PORT.")
    ]


async def _check_attached(url: str) -> Finding:
    client = Client(url)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await client.system_stats()
    except (ComfyUIError, TimeoutError):
        text = f"Nobody answers at COMFYUI_URL ({_host(url)}) as ComfyUI does."
        return problem("engine", text, "Start ComfyUI there, with --listen if it is another machine.")
    finally:
        await client.close()
    return ok("engine", f"ComfyUI {client.version} answers at {_host(url)}.")


async def _check_program(settings: Settings, launch: Launch) -> Finding:
    program = launch.argv[0]
    if shutil.which(program, path=launch.env.get("PATH")) is None:
        name = "COMFYUI_PYTHON" if settings.comfyui_python else "the command"
        return problem("engine", f"{program} ({name}) cannot be run.", "Install it, or correct the setting.")
    if settings.comfyui_root is None:
        if settings.comfyui_command is None:
            text = "No ComfyUI is named: the simulator draws stand-ins for pictures."
            return advice(
                "engine", text, "Set COMFYUI_ROOT to a ComfyUI checkout, unless that is what you want."
            )
        return ok("engine", f"COMFYUI_COMMAND starts {program}.")
    missing = await _missing_modules(program, launch)
    if missing is None:
        return problem("engine", f"{program} runs no Python code.", "Set COMFYUI_PYTHON to ComfyUI's Python.")
    if missing:
        text = f"{program} has no {', '.join(missing)}: ComfyUI cannot start."
        remedy = (
            f"Set COMFYUI_PYTHON, or: {program} -m pip install -r {settings.comfyui_root}/requirements.txt"
        )
        return problem("engine", text, remedy)
    return ok("engine", f"ComfyUI in {settings.comfyui_root} can be started with {program}.")


async def _missing_modules(python: str, launch: Launch) -> list[str] | None:
    """Those that this Python lacks; None where it does not answer."""
    process = await asyncio.create_subprocess_exec(
        python,
        "-c",
        FIND_MODULES,
        cwd=launch.cwd,
        env=launch.env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(PYTHON_SECONDS):
            out, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return None
    words = out.decode(errors="replace").split()
    return words[1:] if process.returncode == 0 and words[:1] == ["missing:"] else None


async def _check_port(settings: Settings, url: str) -> Finding:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 0
    if await _is_free(host, port):
        return ok("engine port", f"{port} is free.")
    if await _is_agent(settings.port):
        return ok("engine port", f"{port} is in use, and an agent runs: it is its engine's.")
    text = f"{port} is in use: the engine could not be started."
    return problem(
        "engine port", text, f"`ss -ltnp 'sport = :{port}'` names the program; or set COMFYUI_PORT."
    )


async def _check_function(settings: Settings) -> Finding:
    """Whether the engine function's address takes connections. It is asked nothing: that would start an instance."""
    parts = urlsplit(settings.engine_url or "")
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if await _connects(host, port):
        return ok("engine function", f"{host}:{port} takes connections.")
    text = f"{host}:{port} takes no connection."
    return problem(
        "engine function", text, "Correct AGENT_ENGINE_URL, or see to the network between the two."
    )


async def _connects(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True


async def _is_free(host: str, port: int) -> bool:
    return await asyncio.to_thread(_can_bind, host, port)


def _can_bind(host: str, port: int) -> bool:
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return True
    except OSError:
        return False


async def _is_agent(port: int) -> bool:
    """Whether the program on this port of this machine answers as an agent."""
    return await asyncio.to_thread(_asks_health, port)


def _asks_health(port: int) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/healthz", timeout=CONNECT_SECONDS) as answer:
            return bool(from_json(answer.read(10_000)).get("status") == "ok")
    except (OSError, ValueError, AttributeError, HTTPException):
        return False


def _has_gpu() -> bool:
    return sys.platform != "linux" or any(Path(device).exists() for device in GPU_DEVICES)


def _host(url: str) -> str:
    """Where it is, without what may be a password."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
