"""AGENT_PROVISION: the port is open, the models come, then the engine starts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.integration.cli.conftest import SECONDS, Command, serving
from tests.integration.provision.conftest import CONTENT, FileServer, Site
from tests.ports import free_port

MODEL = "checkpoints/model.safetensors"


@pytest.fixture
def agent(site: Site, command: Command) -> Command:
    command.settings = {
        "AGENT_PROVISION": str(site.manifest),
        "COMFYUI_PORT": str(free_port()),
        "COMFYUI_ARGS": f"--base-directory {command.home / 'engine'}",
    }
    return command


def readiness(url: str) -> tuple[int, dict[str, Any]]:
    try:
        with urlopen(f"{url}/readyz", timeout=SECONDS) as answer:
            return answer.status, json.load(answer)
    except HTTPError as refused:
        with refused:
            return refused.code, json.load(refused)


async def until_ready(url: str, is_wanted: Callable[[int, str], bool]) -> None:
    async with asyncio.timeout(2 * SECONDS):
        while True:
            status, body = await asyncio.to_thread(readiness, url)
            if is_wanted(status, json.dumps(body)):
                return
            await asyncio.sleep(0.1)  # over HTTP there is nothing to wait on


async def in_service(command: Command, work: Callable[[str], Awaitable[None]]) -> None:
    service = serving(command, wait=False)
    url = await asyncio.to_thread(service.__enter__)
    try:
        await work(url)
    finally:
        await asyncio.to_thread(service.__exit__, None, None, None)


@pytest.mark.timeout(120)
async def test_port_is_open_while_the_models_come_and_the_engine_starts_after(
    site: Site, agent: Command, server: FileServer
):
    asked, holding = asyncio.Event(), asyncio.Event()

    async def hold(server: FileServer, request: Any, body: bytes) -> Any:
        asked.set()
        await holding.wait()
        return await server.serve(request, body)

    server.misbehaviours[f"/{MODEL}"] = [hold]
    site.write(site.offer(MODEL), root=str(site.models))

    async def work(url: str) -> None:
        async with asyncio.timeout(SECONDS):
            await asked.wait()
        assert (await asyncio.to_thread(readiness, url))[0] == 503
        holding.set()
        await until_ready(url, lambda status, _: status == 200)
        assert site.files() == {MODEL: CONTENT}

    await in_service(agent, work)
    assert not agent.processes()


@pytest.mark.timeout(120)
async def test_what_cannot_be_provisioned_is_told_as_the_reason(site: Site, agent: Command):
    site.write(site.offer(MODEL) | {"url": site.server.url("/nothing")}, root=str(site.models))

    async def work(url: str) -> None:
        await until_ready(url, lambda status, body: status == 503 and "404 Not Found" in body)

    await in_service(agent, work)


def test_it_contradicts_an_engine_that_others_run(command: Command, tmp_path: Path):
    command.settings = {"AGENT_PROVISION": "models.yaml", "COMFYUI_URL": "http://127.0.0.1:1"}
    done = command.run("serve")
    assert done.returncode == 2
    assert "AGENT_PROVISION" in done.stderr
