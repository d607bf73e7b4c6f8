"""The front and the engine of s.yaml and compose.yaml, run with the settings and commands that stand there.

Only addresses are other ones: Redis and the engine are on loopback, and the engine is the simulator.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from agent.client import AgentClient
from tests.integration.cli.conftest import SECONDS, Command, answers, until
from tests.ports import free_port
from tests.redis_server import RedisServer
from tests.unit.deploy.files import ROOT, functions, load

#: What Function Compute sets in every container with a role.
PLATFORM = {
    "FC_INSTANCE_ID": "c-1",
    "FC_REGION": "cn-hangzhou",
    "ALIBABA_CLOUD_ACCESS_KEY_ID": "STS.key",
    "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "secret",
    "ALIBABA_CLOUD_SECURITY_TOKEN": "token",
}


def commands() -> dict[str, list[str]]:
    """What each image starts, by its stage in the Dockerfile."""
    stages = re.findall(r" AS (\w+)\n(.*?)(?=\nFROM |\Z)", (ROOT / "Dockerfile").read_text(), re.DOTALL)
    found = {name: re.search(r"^CMD (\[.*\])$", text, re.MULTILINE) for name, text in stages}
    return {name: json.loads(match[1]) for name, match in found.items() if match}


def on_the_platform(name: str) -> tuple[list[str], dict[str, str]]:
    function = functions()[name]
    variables = function["environmentVariables"] | {"AGENT_OBJECT_STORE": "oss://bucket/prefix"}
    return commands()[name], PLATFORM | {"FC_FUNCTION_NAME": function["functionName"]} | variables


def on_the_laptop(name: str) -> tuple[list[str], dict[str, str]]:
    service: dict[str, Any] = load("compose.yaml")["services"][name]
    return service.get("command") or commands()[service["build"]["target"]], dict(service["environment"])


@contextlib.contextmanager
def running(home: Path, argv: list[str], settings: dict[str, str]) -> Iterator[str]:
    """The URL of a container's process, once it listens."""
    home.mkdir()
    port = free_port()
    of_engine = {"COMFYUI_PORT": str(free_port()), "COMFYUI_ARGS": f"--base-directory {home}/engine"}
    command = Command(home, {**of_engine, **settings, "FC_CUSTOM_LISTEN_PORT": str(port)})
    with (home / "log").open("wb") as log:
        process = command.start(*argv, stdout=log, stderr=log)
    try:
        until(lambda: answers(port) or process.poll() is not None, "it listens")
        assert process.poll() is None, (home / "log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            assert process.wait(SECONDS) == 0, (home / "log").read_text()
        finally:
            command.end_all()


@pytest.mark.timeout(150)
@pytest.mark.parametrize("setting", [on_the_platform, on_the_laptop])
def test_caller_of_the_front_gets_the_engines_picture(
    tmp_path: Path, redis_server: RedisServer, redis_prefix: str, setting: Any
) -> None:
    workflow = json.loads((ROOT / "workflows/text-to-image.json").read_text())
    shared = {"REDIS_URL": redis_server.url, "AGENT_REDIS_PREFIX": redis_prefix}
    engine_argv, engine_settings = setting("engine")
    front_argv, front_settings = setting("front")
    with running(tmp_path / "engine", engine_argv, engine_settings | shared) as engine:
        if setting is on_the_platform:
            initialize(engine)
        front_settings |= shared | {"AGENT_ENGINE_URL": engine}
        with running(tmp_path / "front", front_argv, front_settings) as front:
            key = front_settings.get("AGENT_API_KEYS")
            with AgentClient(front, api_key=key, timeout=4 * SECONDS) as client:
                if setting is on_the_laptop:  # without a gateway in between only this one answers 202
                    client.wait(client.submit(workflow, "t-1"), timeout=4 * SECONDS)
                (picture,) = client.run(workflow, "t-1", timeout=4 * SECONDS).images()
                assert picture.size == (512, 512)
                assert client.task("t-1")["state"] == "succeeded"


def initialize(url: str) -> None:
    """The platform's first request to an instance."""
    request = Request(
        f"{url}/initialize", method="POST", data=b"", headers={"x-fc-control-path": "/initialize"}
    )
    with urlopen(request, timeout=4 * SECONDS) as answer:
        assert answer.status == 200
