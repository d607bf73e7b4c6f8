"""`python -m agent.healthcheck` ends with 0 while the agent on this machine is healthy: for the image's HEALTHCHECK.

Nothing but the standard library: it is started every few seconds.
"""

from __future__ import annotations

import os
import urllib.request

SECONDS = 2


def check() -> None:
    """Ask the agent. Raises OSError when it is unhealthy or does not answer."""
    port = os.environ.get("AGENT_PORT") or os.environ.get("FC_CUSTOM_LISTEN_PORT") or "9000"
    # A proxy of the environment has nothing to do with a call to ourselves.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    opener.open(f"http://127.0.0.1:{port}/healthz", timeout=SECONDS).close()


if __name__ == "__main__":
    check()
