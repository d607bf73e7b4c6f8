"""Other vendors' clients, as programs of the environment that `make test` installs for them."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

CLIENTS = Path(sys.prefix) / "clients"
SECONDS = 120  # none of them takes longer, however busy the machine is


@dataclass(frozen=True, slots=True)
class Ran:
    """What a program has left behind."""

    code: int
    out: str
    err: str


def python_client(program: str) -> str:
    """Where this program is."""
    found = CLIENTS / "bin" / program
    if not found.exists():
        pytest.skip(f"{found} is not there: `make test` installs it")
    return str(found)


def node_package(name: str) -> Path:
    """The folder of a package for JavaScript."""
    found = CLIENTS / "node_modules" / name
    if not found.exists():
        pytest.skip(f"{found} is not there: `make test` installs it where there is npm")
    return found


def node(package: str) -> str:
    """The interpreter for programs that use this package."""
    node_package(package)
    return shutil.which("node") or pytest.skip("there is no node")


def front_end() -> Path:
    """The folder of ComfyUI's editor."""
    for found in CLIENTS.glob("lib/python3*/site-packages/comfyui_frontend_package/static"):
        return found
    pytest.skip(f"comfyui-frontend-package is not in {CLIENTS}: `make test` installs it")


async def run(*argv: str, home: Path, stdin: str = "") -> Ran:
    """Run a program as somebody who has nothing else on his machine, `home` being his folder."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        env={"PATH": os.environ["PATH"], "HOME": str(home), "CLIENTS": str(CLIENTS), "NO_COLOR": "1"},
        cwd=home,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(SECONDS):
            out, err = await process.communicate(stdin.encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), err.decode())
