"""Who calls a trigger from outside, and the functions that tests deploy."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Self

import aiohttp

from comfyui.launch import dying_with_us
from tests.gateway.cloud import Deployed
from tests.gateway.function import Function, agent_command
from tests.gateway.processes import own_port
from tests.integration.agent.service import Agent, Answer, EngineView, eventually, simulator_args

PATIENCE_SECONDS = 60  # an instance may have to start first, on a machine that runs other tests beside

#: Short enough to wait for, long enough for a loaded machine: an agent extends its leases every third of it.
LEASE_SECONDS = 3.0


class Caller(Agent):
    """The client of an agent, for one behind a trigger: it sees nothing but HTTP."""

    def __init__(self, deployed: Deployed) -> None:
        self.url = deployed.url

    async def __aenter__(self) -> Self:
        self.http = aiohttp.ClientSession(self.url, timeout=aiohttp.ClientTimeout(total=PATIENCE_SECONDS))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.close()

    async def invoke(self, body: Any, task_id: str, **headers: str) -> Answer:
        """Asynchronously, under one name for the platform and the agent."""
        return await self.submit(body, task_id, **{"X-Fc-Async-Task-Id": task_id, **headers})

    async def hand_in(self, body: Any, task_id: str) -> Answer:
        """Asynchronously, to a front: its own gateway would keep the platform's header to itself."""
        return await self.run(body, task_id, headers={"Prefer": "respond-async"})

    async def until_running(self, task_id: str, seconds: float) -> dict[str, Any]:
        """The record as soon as an engine executes the task, which may not have arrived anywhere yet."""

        async def look() -> Any:
            answer = await self.get(f"/api/tasks/{task_id}")
            is_running = answer.status == 200 and answer.json["state"] == "running"
            return is_running and answer.json["current_node"] and answer.json

        found: dict[str, Any] = await eventually(look, seconds)
        return found


async def count_prompts(function: Deployed) -> int:
    """How many prompts the engines of a function that live have been given. Ask once: asking is a prompt too."""
    total = 0
    for instance in function.fleet.alive:
        engine = EngineView(f"http://127.0.0.1:{instance.environment['COMFYUI_PORT']}")
        with instance.awake():
            total += await engine.number()
        await engine.http.close()
    return total


def echo(**changes: Any) -> Function:
    """A container that says what it got."""
    path = Path(__file__).with_name("echo.py")
    values = {"name": "echo", "command": dying_with_us((sys.executable, str(path))), "max_instances": 1}
    return Function(**{**values, **changes})


def gpu_function(redis_url: str, prefix: str, *switches: str, **changes: Any) -> Function:
    """The agent in role `all` beside the simulator, on the shared Redis. `environment` is added to it."""
    environment = {
        "AGENT_HOST": "127.0.0.1",  # in a container it is 0.0.0.0; tests stay on this machine
        "AGENT_LOG_FORMAT": "json",
        "AGENT_LEASE_SECONDS": str(LEASE_SECONDS),
        "AGENT_ENGINE_SILENCE_SECONDS": "0.5",
        "AGENT_SHUTDOWN_SECONDS": "1",
        "REDIS_URL": redis_url,
        "AGENT_REDIS_PREFIX": prefix,
        **changes.pop("environment", {}),
    }

    def own(folder: Path) -> dict[str, str]:
        return {
            "COMFYUI_PORT": str(own_port()),
            "COMFYUI_ARGS": simulator_args(folder / "engine", *switches),
        }

    values: dict[str, Any] = {
        "name": "gpu",
        "command": agent_command(),
        "own": own,
        "instance_concurrency": 4,
    }
    return Function(environment=environment, **{**values, **changes})


def front_function(redis_url: str, prefix: str, gpu: Deployed, **changes: Any) -> Function:
    """The agent in role `front`: no engine of its own, many requests an instance."""
    environment = {
        "AGENT_ROLE": "front",
        "AGENT_ENGINE_URL": gpu.url,
        "AGENT_HOST": "127.0.0.1",
        "AGENT_LOG_FORMAT": "json",
        "AGENT_LEASE_SECONDS": str(LEASE_SECONDS),
        "REDIS_URL": redis_url,
        "AGENT_REDIS_PREFIX": prefix,
        **changes.pop("environment", {}),
    }
    values: dict[str, Any] = {"name": "front", "command": agent_command(), "instance_concurrency": 100}
    return Function(environment=environment, **{**values, **changes})
