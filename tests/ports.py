"""Where the servers that tests start listen, and when they are ready."""

from __future__ import annotations

import itertools
import os
import random
import socket
import time
from urllib.error import URLError
from urllib.request import urlopen

#: Below the range from which systems take the ports of outgoing connections: nobody gets one of these by chance
#: between the moment in which it is found free and the one in which a server has it.
FIRST_PORT, LAST_PORT = 10_000, 29_999

#: So many tests may run beside each other, each with ports of its own (PYTEST_XDIST_WORKER is "gw0", "gw1", ...).
WORKERS = 10

_SHARE = (LAST_PORT - FIRST_PORT + 1) // WORKERS
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
_offsets = itertools.count(random.randrange(_SHARE))  # other runs of the tests begin elsewhere


def free_port() -> int:
    """A port that nobody listens on, and that this process has not given out lately."""
    while True:
        port = FIRST_PORT + _WORKER * _SHARE + next(_offsets) % _SHARE
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


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


def wait_until_open(port: int, seconds: float = 20) -> None:
    """Wait until somebody listens on this port of this machine."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 1):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
