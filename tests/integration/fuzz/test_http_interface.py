"""Schemathesis, from the service's own OpenAPI document, against a real agent with the simulator behind it.

The budget is bounded: `FUZZ_EXAMPLES` raises the number of examples an operation (default 15).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.ports import free_port, wait_until_ready

FOREIGN = ("AGENT_", "COMFYUI_", "REDIS_URL", "FC_")


@pytest.fixture
def agent_url(tmp_path: Path) -> Iterator[str]:
    port, log = free_port(), tmp_path / "agent.log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    environment |= {"AGENT_PORT": str(port), "COMFYUI_PORT": str(free_port()), "AGENT_HOST": "127.0.0.1"}
    with (
        log.open("wb") as out,
        subprocess.Popen(
            [sys.executable, "-m", "agent.cli", "serve"],
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            wait_until_ready(f"http://127.0.0.1:{port}")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=15)


@pytest.mark.timeout(150)
def test_no_request_made_from_the_openapi_document_breaks_the_service(agent_url: str, tmp_path: Path) -> None:
    command = [
        *(str(Path(sys.executable).parent / "st"), "run", f"{agent_url}/openapi.json"),
        *("--max-examples", os.environ.get("FUZZ_EXAMPLES", "15"), "--seed", "7", "--no-color"),
        # A workflow that fits the schema may still name a class that no engine has: a 400 is right then.
        *("--exclude-checks", "positive_data_acceptance"),
        # It would put the instance out of service, as it should.
        *("--exclude-path", "/pre-stop"),
        *("--suppress-health-check", "all", "--phases", "examples,coverage,fuzzing"),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=140, check=False)
    assert done.returncode == 0, done.stdout[-6000:]
    with urlopen(f"{agent_url}/readyz", timeout=10) as answer:
        assert answer.status == 200
    assert b"request.crashed" not in (tmp_path / "agent.log").read_bytes()
