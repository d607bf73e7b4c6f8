"""Where the servers that tests start listen, and when they are ready."""

from __future__ import annotations

import socket
import time
from urllib.error import URLError
from urllib.request import urlopen


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(url: str, seconds: float = 20) -> None:
    """Wait until the agent at `url` says that its engine is up."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urlopen(f"{url}/readyz", timeout=5):
                return
        except URLError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)  # from outside there is nothing to wait on
