"""Agents that review what they make, all on one simulator whose folders they know, and a classifier to ask."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from tests.integration.agent.service import Agent, MakeAgent, agents, simulated
from tests.ports import free_port
from tests.serving import serving

#: What a hook answers of a picture that may not be shown, and of one that may.
UNSAFE = {"labels": [{"category": "violence", "score": 0.97}, {"category": "gore", "score": 0.4}]}
SAFE: dict[str, Any] = {"labels": []}


@dataclass
class Engine:
    """The simulator that all share, and where it keeps its files."""

    settings: dict[str, Any]
    base: Path
    agent: Agent = field(repr=False)

    def files(self, folder: str = "output") -> dict[str, bytes]:
        """Those that hold something."""
        found = {path.name: path.read_bytes() for path in (self.base / folder).glob("*.*")}
        return {name: data for name, data in found.items() if data}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
    base = tmp_path_factory.mktemp("simulator")
    async with simulated(base) as agent:
        yield Engine({"comfyui_url": agent.engine.url, "comfyui_base_directory": str(base)}, base, agent)


@pytest_asyncio.fixture(loop_scope="session")
async def make_agent(engine: Engine) -> AsyncIterator[MakeAgent]:
    """Start agents with settings of their own on the shared engine, or without one."""
    async with agents() as start:

        async def make(**settings: Any) -> Agent:
            where = {"comfyui_port": free_port()} if settings.get("role") == "front" else engine.settings
            return await start(**{**where, **settings})

        yield make


@dataclass
class Hook:
    """An HTTP classifier. `answers` are given one after the other, the last one for ever; while `gate` is closed it
    says nothing."""

    answers: list[Any] = field(default_factory=lambda: [SAFE])
    status: int = 200
    asked: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(await request.read())
        self.headers.append(dict(request.headers))
        await self.gate.wait()
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        body = found if isinstance(found, bytes) else json.dumps(found).encode()
        return web.Response(status=self.status, body=body, content_type="application/json")


@pytest_asyncio.fixture(loop_scope="session")
async def hook() -> AsyncIterator[Hook]:
    made = Hook()
    made.gate.set()
    async with serving(web.post("/classify", made.answer)) as url:
        made.url = f"{url}/classify?key=hook-secret"
        yield made


def reviewed(hook: Hook, **settings: Any) -> dict[str, Any]:
    """Settings with which this hook looks at each picture, and what it finds is enforced."""
    return {
        "safety_images": "enforce",
        "safety_image_classifiers": ["http"],
        "safety_image_url": hook.url,
        "safety_classifier_seconds": 20,
        **settings,
    }


def verdicts(record: dict[str, Any], attempt: int = -1) -> list[tuple[str, str, str]]:
    """Step, category and action of each verdict of an attempt."""
    return [(v["step"], v["category"], v["action"]) for v in record["attempts"][attempt]["verdicts"]]
