"""ComfyUI's /api/jobs for the prompts of its own clients: what its editor shows as queue and results."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_asyncio

from tests.integration.agent import graphs
from tests.integration.agent.editor import Client, connected
from tests.integration.agent.service import Agent, MakeAgent, eventually

BASES = ("/api/jobs", "/comfyui/api/jobs")


@pytest_asyncio.fixture(loop_scope="session")
async def open_agent(make_agent: MakeAgent) -> Agent:
    return await make_agent(pass_through=["all"])


async def run(client: Client, graph: Any, **beside: Any) -> str:
    """The id of a prompt that is over."""
    prompt_id: str = (await client.queue_prompt(graph, **beside)).ok()["prompt_id"]
    await client.hear_out(prompt_id)
    return prompt_id


async def jobs(agent: Agent, **query: str) -> dict[str, Any]:
    found: dict[str, Any] = (await agent.get("/api/jobs", params=query)).ok()
    return found


@pytest.mark.parametrize("base", BASES)
async def test_finished_job_shows_its_picture_and_its_workflow(open_agent: Agent, base: str) -> None:
    extra = {"extra_pnginfo": {"workflow": {"id": "a-workflow", "nodes": []}}}
    graph = graphs.painted()
    async with connected(open_agent) as client:
        prompt_id = await run(client, graph, extra_data=extra)
    told = (await open_agent.get(base)).ok()
    assert told["pagination"] == {"offset": 0, "limit": None, "total": 1, "has_more": False}
    (job,) = told["jobs"]
    assert (job["id"], job["status"], job["workflow_id"]) == (prompt_id, "completed", "a-workflow")
    assert job["create_time"] <= job["execution_start_time"] <= job["execution_end_time"]
    assert (job["outputs_count"], job["previewable_outputs_count"]) == (1, 1)
    preview = job["preview_output"]
    assert (preview["nodeId"], preview["mediaType"], preview["type"]) == ("2", "images", "output")
    place = {name: preview[name] for name in ("filename", "subfolder", "type")}
    assert (await open_agent.get("/view", params=place)).status == 200
    whole = (await open_agent.get(f"{base}/{prompt_id}")).ok()
    assert {name: whole[name] for name in job} == job
    assert whole["outputs"]["2"]["images"] == [place]
    assert whole["execution_status"]["status_str"] == "success"
    assert whole["workflow"]["prompt"] == graph
    assert whole["workflow"]["extra_data"]["extra_pnginfo"] == extra["extra_pnginfo"]


async def test_credentials_of_one_client_are_shown_to_none(open_agent: Agent) -> None:
    secrets = {"api_key_comfy_org": "the-clients-secret", "auth_token_comfy_org": "the-clients-secret"}
    async with connected(open_agent) as client:
        beside = {"extra_data": {**secrets, "mine": 1}}
        long = (await client.queue_prompt(graphs.stepping(steps=1000, seconds=0.1), **beside)).ok()[
            "prompt_id"
        ]
        shown = [await open_agent.get("/queue"), await open_agent.get(f"/api/jobs/{long}")]
        await open_agent.call("POST", f"/api/jobs/{long}/cancel")
        await client.hear_out(long)
    paths = ("/queue", "/history", f"/history/{long}", "/api/jobs", f"/api/jobs/{long}")
    shown += [await open_agent.get(path) for path in paths]
    assert all(answer.status == 200 for answer in shown)
    assert not any(b"the-clients-secret" in answer.body for answer in shown)
    assert shown[-1].json["workflow"]["extra_data"]["mine"] == 1


async def test_failed_job_says_at_which_node(open_agent: Agent) -> None:
    async with connected(open_agent) as client:
        prompt_id = await run(client, graphs.raising("no such luck"))
    (job,) = (await jobs(open_agent, status="failed"))["jobs"]
    error = job["execution_error"]
    assert (job["id"], error["node_id"], error["node_type"]) == (prompt_id, "2", "LabRaise")
    assert "no such luck" in error["exception_message"]
    assert isinstance(error["traceback"], list)
    assert error["timestamp"] == job["execution_end_time"], "whenever it is asked"
    assert "preview_output" not in job
    assert (await jobs(open_agent, status="completed,cancelled"))["jobs"] == []


async def test_jobs_that_run_and_wait_are_listed_and_cancelled(open_agent: Agent) -> None:
    long = graphs.stepping(steps=1000, seconds=0.1)
    async with connected(open_agent) as client:
        ids = [(await client.queue_prompt(long)).ok()["prompt_id"]]
        ids += [(await client.queue_prompt(graphs.painted())).ok()["prompt_id"] for _ in range(2)]

        async def is_running() -> bool:
            return [job["id"] for job in (await jobs(open_agent, status="in_progress"))["jobs"]] == ids[:1]

        await eventually(is_running)
        waiting = (await jobs(open_agent, status="pending", sort_order="asc"))["jobs"]
        assert [job["id"] for job in waiting] == ids[1:]
        assert (await open_agent.get(f"/api/jobs/{ids[1]}")).ok()["status"] == "pending"
        unknown = [f"unknown-{number}" for number in range(20_000)]  # too many to be parsed on the event loop
        answer = await open_agent.call("POST", "/api/jobs/cancel", json={"job_ids": [*unknown, *ids[1:]]})
        assert answer.ok() == {"cancelled": True}
        assert (await open_agent.call("POST", f"/api/jobs/{ids[0]}/cancel")).ok() == {"cancelled": True}

        async def is_over() -> bool:
            return (await jobs(open_agent, status="cancelled"))["pagination"]["total"] == 3

        await eventually(is_over)
    assert (await open_agent.call("POST", f"/api/jobs/{ids[0]}/cancel")).ok() == {"cancelled": False}
    assert (await open_agent.task(ids[0]))["state"] == "cancelled"


async def test_pages_and_orders(open_agent: Agent) -> None:
    async with connected(open_agent) as client:
        ids = [await run(client, graphs.painted()) for _ in range(3)]
    newest = await jobs(open_agent, limit="2")
    assert [job["id"] for job in newest["jobs"]] == [ids[2], ids[1]]
    assert newest["pagination"] == {"offset": 0, "limit": 2, "total": 3, "has_more": True}
    rest = await jobs(open_agent, limit="2", offset="2")
    assert [job["id"] for job in rest["jobs"]] == [ids[0]]
    assert not rest["pagination"]["has_more"]
    assert (await jobs(open_agent, offset="-1"))["pagination"]["offset"] == 0
    lengths = (await jobs(open_agent, sort_by="execution_duration", sort_order="asc"))["jobs"]
    assert {job["id"] for job in lengths} == set(ids)
    times = [job["execution_end_time"] - job["execution_start_time"] for job in lengths]
    assert times == sorted(times)


async def test_text_stands_for_a_job_without_pictures(open_agent: Agent) -> None:
    graph = {"1": {"class_type": "PreviewAny", "inputs": {"source": "a" * 2000}}}
    async with connected(open_agent) as client:
        await run(client, graph)
    (job,) = (await jobs(open_agent))["jobs"]
    assert job["outputs_count"] == 0
    assert job["preview_output"] == {
        "content": "a" * 1024,
        "truncated": True,
        "nodeId": "1",
        "mediaType": "text",
    }


async def test_wrong_questions_are_refused(open_agent: Agent) -> None:
    for query in (
        "status=done",
        "sort_by=name",
        "sort_order=up",
        "limit=0",
        "limit=-1",
        "limit=x",
        "offset=x",
    ):
        (await open_agent.get(f"/api/jobs?{query}")).error(400, "InvalidQuery")
    (await open_agent.get("/api/jobs/unknown")).error(404, "TaskNotFound")
    for body in (b"[]", b'{"job_ids": "x"}', b'{"job_ids": [1]}', b"no"):
        answer = await open_agent.call("POST", "/api/jobs/cancel", data=body)
        assert answer.status in (400, 422), body


async def test_tasks_of_others_are_not_among_them(open_agent: Agent) -> None:
    (await open_agent.run(graphs.painted())).ok()
    assert (await jobs(open_agent))["jobs"] == []


async def test_it_is_closed_unless_all_is_open(make_agent: MakeAgent) -> None:
    agent = await make_agent(pass_through=["/view"])
    assert (await agent.get("/api/jobs")).status == 404
