"""Types the blocks of a page as a newcomer would, in what stands for his clone of the repository."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from tests.e2e.blocks import ROOT, Block
from tests.gateway.processes import is_running
from tests.ports import wait_until_ready

OWN_VARIABLES = ("AGENT_", "COMFYUI_", "REDIS_", "FC_")
STOP_SECONDS = 30

FOLDERS = ("agent", "benchmarks", "comfyui", "deploy", "docs", "tests", "workflows")


def make_clone(folder: Path, *folders: str) -> Path:
    """A clone after `make test`: files are copies, which a test may change; folders are links to ours.

    `.venv` has our programs, and the stamps that tell make that all is installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in folders:
        (folder / name).symlink_to(ROOT / name)
    for path in (path for path in ROOT.iterdir() if path.is_file()):
        shutil.copy2(path, folder)  # as old as it is: nothing is to be installed again
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for path in Path(sys.executable).parent.iterdir():
        (programs / path.name).symlink_to(path)
    ours = Path(sys.prefix)
    for name in ("lib", "pyvenv.cfg"):
        (programs.parent / name).symlink_to(ours / name)
    (programs.parent / "clients").mkdir()
    for name in ("bin/pip", ".run", ".dev", "clients/.installed"):
        (programs.parent / name).touch()
    return folder


def clean_environment() -> dict[str, str]:
    """Ours without what would set the agent up, and what a pytest below this one must not see. The worker's name stays: it says which ports are ours."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith((*OWN_VARIABLES, "PYTEST_", "MAKE")) or name == "PYTEST_XDIST_WORKER"
    }


class Shell:
    """One bash for all blocks of a page: what one of them exports is there in the next.

    `instead` maps words of the page to what stands for them here: addresses, which are taken on this machine, and
    what readers fill in. Nothing else of a block is changed.
    """

    def __init__(self, folder: Path, instead: Mapping[str, str] = {}, **environment: str) -> None:
        self.folder, self.instead = folder, dict(instead)
        self.environment = clean_environment() | environment
        self._exports = folder.with_name(f"{folder.name}-exports")

    def text(self, block: Block) -> str:
        if not self.instead:
            return block.take()
        words = "|".join(re.escape(word) for word in sorted(self.instead, key=len, reverse=True))
        return re.sub(words, lambda found: self.instead[found[0]], block.take())

    def run(self, block: Block, seconds: float = 90) -> str:
        """What the block prints. It must succeed."""
        argv = self._argv(block)
        ran = subprocess.run(
            argv,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert ran.returncode == 0, f"{block}\n{argv[-1]}\n{ran.stdout}\n{ran.stderr}"
        if block.language == "bash":
            exported = self._exports.read_text().rstrip("\0").split("\0")
            self.environment = dict(variable.split("=", 1) for variable in exported)
        return ran.stdout

    @contextlib.contextmanager
    def running(self, block: Block) -> Iterator[None]:
        """A block that goes on until somebody presses Ctrl-C."""
        with (self.folder / f"log-{block.line}").open("w+") as log:
            process = subprocess.Popen(
                self._argv(block),
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                yield
            except BaseException:
                log.seek(0)
                print(log.read())
                raise
            finally:
                started = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(STOP_SECONDS)
                deadline = time.monotonic() + STOP_SECONDS
                while left := [pid for pid in started if is_running(pid)]:
                    assert time.monotonic() < deadline, f"{block}: {left} go on"
                    time.sleep(0.02)  # they are not our children: there is nothing to wait on

    def _argv(self, block: Block) -> list[str]:
        text = self.text(block)
        if block.language == "python":
            return [sys.executable, "-W", "error", "-c", text]
        script = f"{text}\nenv -0 > '{self._exports}'"
        return ["bash", "-euo", "pipefail", "-c", script]


#: The agent's own start command; pages that begin in the middle do not show it.
SERVE = Block("tests", 0, "bash", "", ".venv/bin/comfyui-agent serve")


@contextlib.contextmanager
def serving(shell: Shell) -> Iterator[None]:
    """An agent at localhost:9000 of the page, and the command on the PATH, as after `pip install`."""
    shell.environment["PATH"] = f"{shell.folder}/.venv/bin:{os.environ['PATH']}"
    with shell.running(SERVE):
        wait_until_ready(shell.environment["COMFYUI_AGENT_URL"])
        yield
