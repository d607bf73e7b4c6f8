"""An agent that really listens, its caller, and a look at the engine behind it from the side."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest
from aiohttp import web

from agent.api.keys import ENGINE
from agent.serve import web_runner
from agent.settings import Settings
from tests.integration.agent import graphs
from tests.integration.agent.graphs import Graph
from tests.integration.agent.pictures import unb64
from tests.ports import free_port

STEP_SECONDS = 0.01  # how often a condition behind HTTP is looked at
PATIENCE_SECONDS = 30  # no answer of a loopback service takes longer


def settings_of(**values: Any) -> Settings:
    """Settings of these values alone: nothing of the environment that the tests run in."""
    with pytest.MonkeyPatch.context() as patch:
        for name in tuple(os.environ):
            if name.startswith(("AGENT_", "COMFYUI_", "FC_", "REDIS_")):
                patch.delenv(name)
        return Settings(**{"invocation": "standalone", "shutdown_seconds": 1, **values})


def simulator_args(base: Path, *switches: str) -> str:
    return shlex.join(["--lab-nodes", "--step-seconds", "0.01", "--base-directory", str(base), *switches])


@dataclass
class Answer:
    """What came back for one request."""

    status: int
    headers: Any
    body: bytes = field(repr=False)

    @property
    def json(self) -> Any:
        assert self.headers["Content-Type"].startswith("application/json"), self
        return json.loads(self.body)

    def ok(self) -> Any:
        """The JSON of a 200."""
        assert self.status == 200, self.body[:1000]
        return self.json

    def results(self, node: str) -> list[bytes]:
        return [unb64(text) for text in self.ok()[node]["results"]]

    def error(self, status: int, code: str) -> dict[str, Any]:
        """The `error` object, after a look at what every error has."""
        assert self.status == status, (self.status, self.body[:1000])
        return check_error(self.json, code)


def check_error(body: dict[str, Any], code: str) -> dict[str, Any]:
    """Every error body: one word, a sentence, and nothing beside them but the task."""
    assert body["message"] == code, body
    assert body["message"].isalnum()
    assert body.keys() <= {"message", "error", "task_id"}
    error: dict[str, Any] = body["error"]
    assert " " in error["detail"], "not a sentence"
    assert len(error["detail"]) < 2000, "it repeats the request"
    return error


class EngineView:
    """Talks to the engine past the agent, as the editor would."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(total=PATIENCE_SECONDS))

    async def get(self, path: str, **query: str) -> Any:
        async with self.http.get(path, params=query) as response:
            assert response.status == 200, (path, response.status)
            return await response.json()

    async def view(self, filename: str, subfolder: str = "", folder: str = "output") -> bytes:
        query = {"filename": filename, "subfolder": subfolder, "type": folder}
        async with self.http.get("/view", params=query) as response:
            assert response.status == 200, (query, response.status)
            return await response.read()

    async def has_input(self, filename: str) -> bool:
        async with self.http.get("/view", params={"filename": filename, "type": "input"}) as response:
            return response.status == 200

    async def upload(self, name: str, data: bytes, subfolder: str = "") -> None:
        form = aiohttp.FormData(quote_fields=False)
        form.add_field("image", data, filename=name)
        form.add_field("subfolder", subfolder)
        form.add_field("overwrite", "true")
        async with self.http.post("/upload/image", data=form) as response:
            assert (await response.json())["name"] == name

    async def running(self) -> list[str]:
        return [item[1] for item in (await self.get("/queue"))["queue_running"]]

    async def pending(self) -> list[str]:
        return [item[1] for item in (await self.get("/queue"))["queue_pending"]]

    async def is_idle(self) -> bool:
        return not (await self.running() or await self.pending())

    async def fault(self, *specs: str) -> None:
        """Make the simulator misbehave; nothing: make it behave again."""
        async with self.http.post("/simulator/faults", json={"faults": list(specs)}) as response:
            assert response.status == 200, await response.text()

    async def number(self) -> int:
        """How often /prompt was asked so far, which ComfyUI tells only to those who ask it."""
        graph = graphs.chain(graphs.empty(size=(1, 1)), graphs.preview())
        body = {"prompt": graph, "client_id": uuid.uuid4().hex}
        async with self.http.post("/prompt", json=body) as response:
            number: int = (await response.json())["number"]
            return number

    @contextlib.asynccontextmanager
    async def asked(self, times: int) -> AsyncIterator[None]:
        """Within, /prompt is asked so many times."""
        before = await self.number()
        yield
        assert await self.number() - before - 1 == times


class Agent:
    """The whole service of these settings on a free port, and a client for it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._runner: web.AppRunner = web_runner(settings)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = aiohttp.ClientSession(self.url, timeout=aiohttp.ClientTimeout(total=PATIENCE_SECONDS))
        self.engine = EngineView(
            self.settings.comfyui_url or f"http://127.0.0.1:{self.settings.comfyui_port}"
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.close()
        await self.engine.http.close()
        pid = self.engine_pid
        async with asyncio.timeout(20):
            await self._runner.cleanup()

        async def is_gone() -> bool:  # killed in the middle of a stop, it is reaped a moment later
            return pid is None or not Path(f"/proc/{pid}").exists()

        await eventually(is_gone)

    @property
    def parts(self) -> web.Application:
        """What the service consists of, under the keys of agent/api/keys.py."""
        return self._runner.app

    @property
    def engine_pid(self) -> int | None:
        engine = self._runner.app.get(ENGINE)  # a front has none
        return engine.pid if engine else None

    async def call(self, method: str, path: str, **how: Any) -> Answer:
        async with self.http.request(method, path, allow_redirects=False, **how) as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, path: str, **how: Any) -> Answer:
        return await self.call("GET", path, **how)

    async def run(
        self, body: Any, task_id: str | None = None, *, headers: dict[str, str] | None = None
    ) -> Answer:
        """POST /api/run; bytes are sent as they are."""
        named = {"task-id": task_id} if task_id is not None else {}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.call("POST", "/api/run", data=data, headers={**named, **(headers or {})})

    async def submit(self, body: Any, task_id: str | None = None, **headers: str) -> Answer:
        return await self.run(body, task_id, headers={"X-Fc-Invocation-Type": "Async", **headers})

    async def begin(self, body: Graph, task_id: str | None = None) -> str:
        """Submit in the background; the task's id."""
        answer = await self.submit(body, task_id)
        assert answer.status == 202, answer.body
        return str(answer.headers["task-id"])

    async def task(self, task_id: str) -> dict[str, Any]:
        record: dict[str, Any] = (await self.get(f"/api/tasks/{task_id}")).ok()
        return record

    async def status(self, task_id: str) -> Answer:
        return await self.get("/api/status", params={"id": task_id})

    async def output(self, task_id: str, index: int | str) -> Answer:
        return await self.get(f"/api/tasks/{task_id}/outputs/{index}")

    async def cancel(self, task_id: str) -> Answer:
        return await self.call("DELETE", f"/api/tasks/{task_id}")

    async def until(
        self, task_id: str, condition: Callable[[dict[str, Any]], bool], seconds: float = PATIENCE_SECONDS
    ) -> dict[str, Any]:
        """The task's record as soon as the condition holds for it."""
        deadline = time.monotonic() + seconds
        while not condition(record := await self.task(task_id)):
            assert time.monotonic() < deadline, record
            await asyncio.sleep(STEP_SECONDS)  # nothing but polling is being tested here
        return record

    async def finished(self, task_id: str) -> dict[str, Any]:
        return await self.until(task_id, lambda r: r["state"] in ("succeeded", "failed", "cancelled"))

    async def succeeded(self, task_id: str) -> dict[str, Any]:
        record = await self.finished(task_id)
        assert record["state"] == "succeeded", record
        return record

    async def running(self, task_id: str) -> dict[str, Any]:
        """The record as soon as the engine executes it."""
        return await self.until(task_id, lambda r: r["state"] == "running" and r["current_node"] is not None)

    async def running_later(self, task_id: str) -> dict[str, Any]:
        """As `running`, for a task whose request may not have arrived yet."""

        async def is_known() -> bool:
            return (await self.get(f"/api/tasks/{task_id}")).status == 200

        await eventually(is_known)
        return await self.running(task_id)

    async def ready(self, seconds: float = PATIENCE_SECONDS) -> None:
        await eventually(self._is_ready, seconds)

    async def _is_ready(self) -> bool:
        return (await self.get("/readyz")).status == 200


async def eventually(condition: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> Any:
    """Wait until the awaited condition is true; its value."""
    deadline = time.monotonic() + seconds
    while not (value := await condition()):
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(STEP_SECONDS)  # other processes give no signal
    return value


async def take(events: AsyncIterator[Any], seconds: float = PATIENCE_SECONDS) -> list[Any]:
    """All of a stream that ends by itself in time."""
    async with asyncio.timeout(seconds):
        return [event async for event in events]


#: Starts one agent; see the fixtures `make_agent`.
MakeAgent = Callable[..., Awaitable[Agent]]


@contextlib.asynccontextmanager
async def agents(**shared: Any) -> AsyncIterator[MakeAgent]:
    """`await make(**settings)` starts an agent with these settings beside the shared ones. All end here."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(*, wait: bool = True, **settings: Any) -> Agent:
            made = await stack.enter_async_context(Agent(settings_of(**{**shared, **settings})))
            if wait:
                await made.ready()
            return made

        yield make


@contextlib.asynccontextmanager
async def simulated(base: Path, **settings: Any) -> AsyncIterator[Agent]:
    """An agent with a simulator of its own, which is ready, has a checkpoint and keeps its files in `base`."""
    async with Agent(settings_of(**settings, **engine_of(base, "--model", "tiny.safetensors"))) as agent:
        await agent.ready()
        yield agent


def engine_of(base: Path, *switches: str) -> dict[str, Any]:
    """Settings for an agent with a simulator of its own."""
    return {"comfyui_port": free_port(), "comfyui_args": simulator_args(base, *switches)}
