"""`comfyui-agent serve` as a process of its own, for a browser to look at."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Self

from tests.ports import free_port, wait_until_ready

OWN_VARIABLES = ("AGENT_", "COMFYUI_", "REDIS_", "FC_")
STOP_SECONDS = 30

#: Makes the simulator slow enough to be watched.
SWITCHES = ("--preview-method", "auto", "--step-seconds", "0.2")


class Service:
    """Settings are environment variables."""

    def __init__(self, folder: Path, *switches: str, **environment: str) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._log = folder / "agent.log"
        engine = ["--base-directory", str(folder / "engine"), "--lab-nodes", *switches]
        clean = {name: value for name, value in os.environ.items() if not name.startswith(OWN_VARIABLES)}
        self._environment = {
            **clean,
            "AGENT_PORT": str(port),
            "COMFYUI_PORT": str(free_port()),
            "COMFYUI_ARGS": " ".join(engine),
            **environment,
        }

    def __enter__(self) -> Self:
        argv = [str(Path(sys.executable).parent / "comfyui-agent"), "serve"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                argv, env=self._environment, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            wait_until_ready(self.url)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(STOP_SECONDS)
