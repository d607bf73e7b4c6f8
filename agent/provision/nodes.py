"""Custom nodes, installed by the operator's own comfy-cli.

comfy-cli is GPL software with a large environment of its own, so it is called as a program and never imported. What it
is asked was read in version 1.23.0:

    comfy --skip-prompt --workspace COMFYUI node install NAME@VERSION --exit-on-fail

It hands that over to ComfyUI-Manager in the environment that VIRTUAL_ENV names, which must be ComfyUI's, ends with
another code than 0 when that fails, and its telemetry is off with DO_NOT_TRACK. So it was seen with that version and a
stand-in of the Manager. The Comfy registry was out of reach: no node was ever really installed this way.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from agent.provision.errors import ProvisionError
from agent.provision.lock import Lock
from agent.provision.store import write_whole

INSTALL_SECONDS = 1800

#: Hidden files in custom_nodes: ComfyUI loads only folders and *.py from there.
STATE_FILE = ".provision.json"
LOCK_FILE = ".provision.lock"


class NodeStore:
    """The custom nodes of one ComfyUI. What was installed is noted beside them, with the folders that came with it."""

    def __init__(self, comfyui: Path, secrets: Collection[str] = ()) -> None:
        """`secrets` are the variables that a node's install script has no business with."""
        self._comfyui = comfyui
        self._folder = comfyui / "custom_nodes"
        self._secrets = secrets

    def missing(self, wanted: Iterable[str]) -> list[str]:
        """Those that are not noted with this version, or whose folders are gone."""
        known = self._read()
        return [node for node in wanted if not self._is_present(node, known)]

    async def install(self, node: str) -> bool:
        """Install `NAME@VERSION`; says whether that was still necessary. Raises ProvisionError and OSError."""
        program = shutil.which("comfy")
        if program is None:
            raise ProvisionError(
                "comfy-cli is needed and `comfy` is not on the PATH: install it into an environment of its own "
                "(pipx install comfy-cli)"
            )
        if not self._folder.is_dir():
            raise ProvisionError(f"{self._folder} does not exist: name ComfyUI's folder with --comfyui")
        async with Lock(self._folder / LOCK_FILE):
            if not self.missing([node]):
                return False  # another process was quicker
            before = self._folders()
            await self._run(program, node)
            name, _, version = node.partition("@")
            known = self._read()
            came = sorted(self._folders() - before)
            known[name] = {
                "version": version,
                "folders": came or known.get(name, {}).get("folders", []),
            }
            write_whole(self._folder / STATE_FILE, json.dumps(known, indent=1).encode())
        return True

    async def _run(self, program: str, node: str) -> None:
        argv = [
            program,
            "--skip-prompt",
            "--workspace",
            str(self._comfyui),
            "node",
            "install",
            node,
            "--exit-on-fail",
        ]
        process = await asyncio.create_subprocess_exec(
            *argv,
            env=self._environment(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,  # stdout is for our own lines
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(INSTALL_SECONDS):
                code = await process.wait()
        except TimeoutError:
            raise ProvisionError(f"comfy-cli took longer than {INSTALL_SECONDS} seconds") from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if code:
            raise ProvisionError(f"comfy-cli ended with code {code}: what it says stands above")

    def _environment(self, ours: Mapping[str, str]) -> dict[str, str]:
        environment = {name: value for name, value in ours.items() if name not in self._secrets}
        engine = self._comfyui / ".venv"
        if engine.is_dir():
            environment["VIRTUAL_ENV"] = str(engine)
        return environment | {"DO_NOT_TRACK": "1"}

    def _is_present(self, node: str, known: dict[str, dict[str, object]]) -> bool:
        name, _, version = node.partition("@")
        note = known.get(name)
        if note is None or note.get("version") != version:
            return False
        folders = note.get("folders")
        return isinstance(folders, list) and all((self._folder / str(folder)).is_dir() for folder in folders)

    def _read(self) -> dict[str, dict[str, object]]:
        with suppress(OSError, ValueError):
            known = json.loads((self._folder / STATE_FILE).read_bytes())
            return {name: note for name, note in known.items() if isinstance(note, dict)}
        return {}

    def _folders(self) -> set[str]:
        return {entry.name for entry in os.scandir(self._folder) if entry.is_dir()}
