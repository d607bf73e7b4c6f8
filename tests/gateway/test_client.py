"""The client against functions on the platform."""

from __future__ import annotations

import pytest

from agent.client import AgentRequestError, AsyncAgentClient, TaskFailed
from tests.gateway.caller import PATIENCE_SECONDS, count_prompts
from tests.gateway.conftest import Deploy
from tests.integration.agent import graphs
from tests.integration.agent.graphs import BLUE, GREEN, RED, painted, rgb
from tests.integration.agent.pictures import color_of


def client_of(url: str) -> AsyncAgentClient:
    return AsyncAgentClient(url, timeout=PATIENCE_SECONDS)


async def test_first_submit_does_its_work_and_the_next_goes_into_the_platforms_queue(
    deploy_gpu: Deploy,
) -> None:
    gpu, _ = await deploy_gpu()
    async with client_of(gpu.url) as client:
        first = await client.submit(painted(RED), "first")
        assert (await client.task(first))["state"] == "succeeded"
        assert gpu.queue.tasks == {}
        second = await client.submit(painted(GREEN), "second")
        assert len(gpu.queue.tasks) == 1
        assert (await client.wait(second))["state"] == "succeeded"
        (output,) = await client.fetch_outputs(second)
        assert color_of(output.data) == rgb(GREEN)
    assert await count_prompts(gpu) == 2


async def test_task_in_the_platforms_queue_is_awaited_before_any_instance_knows_it(
    deploy_gpu: Deploy,
) -> None:
    gpu, _ = await deploy_gpu()
    async with AsyncAgentClient(gpu.url, timeout=PATIENCE_SECONDS, platform_queue=True) as client:
        task_id = await client.submit(painted(BLUE))
        assert (await client.wait(task_id))["state"] == "succeeded"
        refused = await client.submit(painted() | {"3": graphs.node("NoSuchNode")})
        with pytest.raises(TaskFailed) as caught:
            await client.wait(refused)
        assert caught.value.code == "UnknownNodeClass"


async def test_front_checks_what_is_submitted_and_runs_it(deploy_gpu: Deploy, deploy_front: Deploy) -> None:
    gpu, _ = await deploy_gpu()
    front, _ = await deploy_front(gpu)
    async with client_of(front.url) as client:
        with pytest.raises(AgentRequestError) as caught:
            await client.submit({"1": {"class_type": ""}})
        assert caught.value.code == "InvalidWorkflow"
        record = await client.wait(await client.submit(painted(RED)))
        assert color_of(await client.fetch_output(record["id"], 0)) == rgb(RED)
        assert color_of((await client.run(painted(GREEN))).outputs[0].data) == rgb(GREEN)
