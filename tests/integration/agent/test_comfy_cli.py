"""ComfyUI's own command line, comfy-cli, on the agent's port, and on the port of `comfyui-agent forward`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from agent.commands.forwarder import Forwarder
from tests.clients import programs
from tests.integration.agent import graphs
from tests.integration.agent.graphs import Graph
from tests.integration.agent.pictures import color_of
from tests.integration.agent.service import Agent, MakeAgent, eventually
from tests.ports import free_port

KEY = "the-agents-key"


class Comfy:
    """`comfy` of somebody whose ComfyUI is at this port."""

    def __init__(self, port: int, home: Path) -> None:
        self.port, self.home = port, home
        self._program = programs.python_client("comfy")

    async def run(self, graph: Graph, *options: str) -> Any:
        path = self.home / "workflow.json"
        path.write_text(json.dumps(graph))
        return await self(
            "run", "--workflow", str(path), "--host", "127.0.0.1", "--port", str(self.port), *options
        )

    async def jobs(self, what: str, prompt_id: str) -> Any:
        return await self("jobs", what, prompt_id, "--host", "127.0.0.1", "--port", str(self.port))

    async def __call__(self, *arguments: str) -> Any:
        """What it prints for programs; `ok` says whether all is well."""
        ran = await programs.run(
            self._program, "--skip-prompt", "--no-enable-telemetry", *arguments, home=self.home
        )
        told = json.loads(ran.out.splitlines()[-1])
        assert (ran.code == 0) == told["ok"], ran
        return told


@pytest.mark.real
async def test_it_runs_a_workflow_and_finds_its_picture(make_agent: MakeAgent, tmp_path: Path) -> None:
    agent = await make_agent(pass_through=["all"])
    comfy = Comfy(agent.port, tmp_path)
    color = graphs.fresh_color()
    told = (await comfy.run(graphs.painted(color), "--wait"))["data"]
    assert (told["status"], told["executed_node_ids"]) == ("completed", ["1", "2"])
    (address,) = told["outputs"]
    assert color_of((await agent.get(URL(address).path_qs)).body) == graphs.rgb(color)
    assert (await agent.task(told["prompt_id"]))["state"] == "succeeded"
    known = (await comfy.jobs("status", told["prompt_id"]))["data"]
    assert (known["status"], known["outputs"]) == ("completed", [address])


@pytest.mark.real
async def test_it_shows_what_went_wrong(make_agent: MakeAgent, tmp_path: Path) -> None:
    agent = await make_agent(pass_through=["all"])
    comfy = Comfy(agent.port, tmp_path)
    failed = await comfy.run(graphs.raising("no such luck"), "--wait")
    assert failed["error"]["code"] == "execution_error"
    assert "no such luck" in json.dumps(failed["error"])
    refused = await comfy.run(graphs.loaded("nowhere.png"))
    assert refused["error"]["code"] == "prompt_rejected"
    (node,) = refused["error"]["details"]["node_errors"]
    assert node["node_id"] == "1"


async def test_with_keys_it_works_through_forward_alone(make_agent: MakeAgent, tmp_path: Path) -> None:
    agent = await make_agent(pass_through=["all"], api_keys=[KEY])
    headers = {"X-Api-Key": KEY}
    long = graphs.stepping(steps=1000, seconds=0.1)
    shut_out = await Comfy(agent.port, tmp_path).run(long)
    assert shut_out["error"]["code"] == "server_not_running"
    async with Forwarder(agent.url, KEY) as forwarder:
        await forwarder.listen(port := free_port())
        comfy = Comfy(port, tmp_path)
        prompt_id = (await comfy.run(long, "--no-watch"))["data"]["prompt_id"]

        async def is_running() -> bool:
            queue = (await agent.get("/api/queue", headers=headers)).ok()
            return queue["running"] == [prompt_id]

        await eventually(is_running)
        metrics = (await agent.get("/metrics", headers=headers)).body.decode()
        assert re.search(r"^comfyui_agent_[a-z_]*{state=.running.} 1", metrics, re.MULTILINE), metrics
        assert (await comfy.jobs("cancel", prompt_id))["ok"]
        assert await state_of(agent, prompt_id, headers) == "cancelled"
        assert (await comfy.run(graphs.painted(), "--wait"))["data"]["status"] == "completed"


async def state_of(agent: Agent, task_id: str, headers: dict[str, str]) -> str:
    """The state in which the task ends."""
    found = ""

    async def is_over() -> bool:
        nonlocal found
        found = (await agent.get(f"/api/tasks/{task_id}", headers=headers)).ok()["state"]
        return found not in ("queued", "running")

    await eventually(is_over)
    return found
