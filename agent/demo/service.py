"""`comfyui-agent serve` as a child process of the demo, with the embedded simulator behind it."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import agent
from agent.client import AgentClient
from comfyui.launch import dying_with_us

READY_SECONDS = 30
STOP_SECONDS = 5
KEPT_LINES = 15

#: These would change what the demo shows; so would a proxy or a platform that the child believes to be in.
FOREIGN_SETTINGS = ("AGENT_", "COMFYUI_", "FC_")


class ServiceFailed(Exception):
    """The child did not become ready, or died."""


class Service:
    """One running child. `log` holds the last lines that it wrote."""

    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        self.process, self.url = process, url
        self.log: deque[str] = deque(maxlen=KEPT_LINES)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_ready(self) -> None:
        """Return when the engine can take work. Raises ServiceFailed."""
        deadline = time.monotonic() + READY_SECONDS
        with AgentClient(self.url, timeout=5) as client:
            while not client.ready():
                self.check_alive()
                if time.monotonic() > deadline:
                    raise ServiceFailed(f"The agent was not ready after {READY_SECONDS} s.")
                time.sleep(0.05)  # there is nothing to be told by before it listens

    def check_alive(self) -> None:
        """Raises ServiceFailed if the child has ended."""
        if self.process.poll() is not None:
            self._reader.join(2)
            raise ServiceFailed(f"The agent stopped by itself, with exit code {self.process.returncode}.")

    def stop(self) -> None:
        """End the child, and with it the engine; by force if it does not go by itself or if this is interrupted."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.log.append(f"it did not stop within {STOP_SECONDS} s and was killed")
        finally:
            self.process.kill()
            self.process.wait(STOP_SECONDS)
        self._reader.join(2)

    def _read(self) -> None:
        # Always, or the child would stand still once the pipe is full.
        assert self.process.stdout is not None  # noqa: S101 - it was opened with a pipe
        with self.process.stdout as lines:
            for line in lines:
                self.log.append(readable(line.decode(errors="replace").rstrip()))


@contextmanager
def running_service(environ: Mapping[str, str], pace: float) -> Iterator[Service]:
    """A child that listens on a free port of loopback. It is gone when the block is left, however that happens."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="comfyui-agent-demo-"))
        port, engine_port = free_ports(2)
        command = (sys.executable, "-m", "agent.cli", "serve", "--host", "127.0.0.1", "--port", str(port))
        process = subprocess.Popen(  # noqa: S603 - our own command
            # Also a demo that is killed leaves nothing behind.
            dying_with_us(command),
            env=child_settings(environ, Path(folder), engine_port, pace),
            cwd=folder,  # not the user's: a folder "agent" there would be taken for this package
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the demo, which then stops the child in order
        )
        service = Service(process, f"http://127.0.0.1:{port}")
        stack.callback(service.stop)
        yield service


def child_settings(environ: Mapping[str, str], folder: Path, engine_port: int, pace: float) -> dict[str, str]:
    """The child's environment: none of the user's settings, a simulator slow enough to be watched."""
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith(FOREIGN_SETTINGS) and name != "REDIS_URL"
    }
    speed = f"--node-seconds {0.3 * pace:g} --step-seconds {0.1 * pace:g}"
    return {
        **kept,
        "PYTHONPATH": str(Path(agent.__file__).parents[1]),
        "AGENT_FETCH_ALLOW": "127.0.0.1",  # the demo's own picture server
        "AGENT_INVOCATION": "standalone",
        "AGENT_LOG_FORMAT": "json",
        "AGENT_SHUTDOWN_SECONDS": "1",
        "COMFYUI_PORT": str(engine_port),
        "COMFYUI_ARGS": f"--base-directory {shlex.quote(str(folder / 'engine'))} {speed}",
    }


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody has; held together while they are looked up, so that all differ."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in held]


def readable(line: str) -> str:
    """A JSON log line as a person reads it; anything else as it is."""
    try:
        entry = json.loads(line)
        level, event = entry.pop("level"), entry.pop("event")
    except (ValueError, KeyError, TypeError, AttributeError):
        return line
    entry.pop("timestamp", None)
    return " ".join([f"{level}: {event}", *(f"{name}={value}" for name, value in entry.items())])
