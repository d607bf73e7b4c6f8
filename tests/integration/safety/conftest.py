"""Agents that review what they make, all on one simulator whose folders they know, and a classifier to ask."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from tests.integration.agent.service import Agent, engine_of, settings_of
from tests.ports import free_port

MakeAgent = Callable[..., Awaitable[Agent]]

#: What a hook answers of a picture that may not be shown, and of one that may.
UNSAFE = {"labels": [{"category": "violence", "score": 0.97}, {"category": "gore", "score": 0.4}]}
SAFE: dict[str, Any] = {"labels": []}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One event loop for this folder, so that its tests can share the engine."""
    for item in items:
        if Path(__file__).parent in item.path.parents and inspect.iscoroutinefunction(
            getattr(item, "function", None)
        ):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


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
    async with Agent(settings_of(**engine_of(base, "--model", "tiny.safetensors"))) as agent:
        await agent.ready()
        yield Engine({"comfyui_url": agent.engine.url, "comfyui_base_directory": str(base)}, base, agent)


@pytest_asyncio.fixture(loop_scope="session")
async def make_agent(engine: Engine) -> AsyncIterator[MakeAgent]:
    """Start agents with settings of their own on the shared engine, or without one."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(**settings: Any) -> Agent:
            where = {"comfyui_port": free_port()} if settings.get("role") == "front" else engine.settings
            made = await stack.enter_async_context(Agent(settings_of(**{**where, **settings})))
            await made.ready()
            return made

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
    app = web.Application()
    app.router.add_post("/classify", made.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/classify?key=hook-secret"
    yield made
    await runner.cleanup()


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
