"""RunPod's endpoints as callers of worker-comfyui use them."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
import pytest_asyncio

from tests.integration.agent import graphs
from tests.integration.agent.pictures import color_of, png, unb64
from tests.integration.agent.service import Agent, Answer, MakeAgent, eventually

BASES = ("", "/v2/an-endpoint")


@pytest_asyncio.fixture(loop_scope="session")
async def worker(make_agent: MakeAgent) -> Agent:
    return await make_agent(early_answer_seconds=0)


async def post(agent: Agent, path: str, body: Any = None, **headers: str) -> Answer:
    data = json.dumps(body).encode() if body is not None else b""
    return await agent.call("POST", path, data=data, headers=headers)


def job(graph: Any, **beside: Any) -> dict[str, Any]:
    return {"input": {"workflow": graph, **beside}}


def refused(answer: Answer, status: int, code: str) -> str:
    assert answer.status == status, answer.body
    assert answer.json.keys() == {"error", "code"}
    assert answer.json["code"] == code
    return str(answer.json["error"])


async def over(agent: Agent, base: str, job_id: str) -> Any:
    found: dict[str, Any] = {}

    async def is_over() -> bool:
        found.update((await agent.get(f"{base}/status/{job_id}")).ok())
        return found["status"] not in ("IN_QUEUE", "IN_PROGRESS")

    await eventually(is_over)
    return found


@pytest.mark.parametrize("base", BASES)
async def test_runsync_answers_the_pictures(worker: Agent, base: str) -> None:
    color = graphs.fresh_color()
    told = (await post(worker, f"{base}/runsync", job(graphs.painted(color)))).ok()
    assert told["status"] == "COMPLETED"
    assert told["delayTime"] >= 0
    assert told["executionTime"] >= 0
    (image,) = told["output"]["images"]
    assert image["type"] == "base64"
    assert image["filename"].endswith(".png")
    assert color_of(unb64(image["data"])) == graphs.rgb(color)
    assert (await worker.task(told["id"]))["state"] == "succeeded"


@pytest.mark.parametrize("base", BASES)
async def test_run_is_polled_and_any_instance_can_tell(worker: Agent, base: str) -> None:
    color = graphs.fresh_color()
    graph = graphs.stepping(steps=30, color=color)
    graph["3"]["class_type"] = "SaveImage"
    graph["3"]["inputs"]["filename_prefix"] = "job"
    accepted = (await post(worker, f"{base}/run", job(graph))).ok()
    assert accepted.keys() == {"id", "status"}
    assert accepted["status"] in ("IN_QUEUE", "IN_PROGRESS")
    found = await over(worker, base, accepted["id"])
    assert (found["status"], len(found["output"]["images"])) == ("COMPLETED", 1)
    assert color_of(unb64(found["output"]["images"][0]["data"])) == graphs.rgb(color)


async def test_pictures_stand_in_for_their_names(worker: Agent) -> None:
    plain = base64.b64encode(png((9, 8, 7))).decode()
    for image in (plain, f"data:image/png;base64,{plain}"):
        images = [{"name": "input.png", "image": image}]
        told = (await post(worker, "/runsync", job(graphs.loaded("input.png"), images=images))).ok()
        assert color_of(unb64(told["output"]["images"][0]["data"])) == (9, 8, 7)
    assert not await worker.engine.has_input("input.png"), "nothing is left for the next job under its name"
    detail = refused(
        await post(worker, "/runsync", job(graphs.painted(), images=[{"name": "x.png", "image": plain}])),
        422,
        "InvalidParameter",
    )
    assert "x.png" in detail


async def test_job_that_takes_longer_than_the_wait_goes_on(worker: Agent) -> None:
    told = (await post(worker, "/runsync?wait=1000", job(graphs.stepping(steps=300)))).ok()
    assert told["status"] in ("IN_PROGRESS", "IN_QUEUE")
    cancelled = (await post(worker, f"/cancel/{told['id']}")).ok()
    assert cancelled == {"id": told["id"], "status": "CANCELLED"}
    assert (await over(worker, "", told["id"]))["status"] == "CANCELLED"
    refused(await post(worker, "/runsync?wait=long", job(graphs.painted())), 400, "InvalidQuery")


@pytest.mark.parametrize("base", BASES)
async def test_job_is_waited_for_by_its_id(worker: Agent, base: str) -> None:
    job_id = (await post(worker, f"{base}/run", job(graphs.stepping(steps=150)))).ok()["id"]
    waiting = (await worker.get(f"{base}/status-sync/{job_id}?wait=1000")).ok()
    assert waiting["status"] in ("IN_QUEUE", "IN_PROGRESS")
    streamed = (await worker.get(f"{base}/stream/{job_id}")).ok()
    assert streamed["stream"] == []
    assert streamed["status"] in ("IN_QUEUE", "IN_PROGRESS", "COMPLETED")
    assert (await worker.get(f"{base}/status-sync/{job_id}")).ok()["status"] == "COMPLETED"
    assert (await worker.get(f"{base}/stream/{job_id}")).ok() == {
        "id": job_id,
        "status": "COMPLETED",
        "stream": [],
    }
    refused(await worker.get(f"{base}/status-sync/{job_id}?wait=long"), 400, "InvalidQuery")


async def test_job_that_fails_says_why(worker: Agent) -> None:
    told = (await post(worker, "/runsync", job(graphs.raising("no such luck")))).ok()
    assert told["status"] == "FAILED"
    assert "no such luck" in told["error"]
    assert "output" not in told


async def test_temporary_pictures_are_left_out(worker: Agent) -> None:
    graph = graphs.chain(graphs.empty(), graphs.preview())
    told = (await post(worker, "/runsync", job(graph))).ok()
    assert told["output"] == {"status": "success_no_images", "images": []}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ([], 422, "InvalidParameter"),
        ({"input": {}}, 422, "InvalidParameter"),
        ({"input": {"workflow": {}, "images": "x"}}, 422, "InvalidParameter"),
        ({"input": {"workflow": {}, "images": [{"name": "x"}]}}, 422, "InvalidParameter"),
        ({"input": {"workflow": {"1": {}}}}, 400, "InvalidWorkflow"),
        ({"input": {"workflow": {}, "prompt": "x"}}, 422, "InvalidParameter"),
        ({"input": {"workflow": graphs.painted(), "comfy_org_api_key": {}}}, 422, "InvalidParameter"),
        ({"input": {"workflow": {}}, "webhook": "https://example.com"}, 400, "InvalidOptions"),
    ],
)
async def test_wrong_job_is_refused(worker: Agent, body: Any, status: int, code: str) -> None:
    for path in ("/run", "/v2/any/runsync"):
        refused(await post(worker, path, body), status, code)


async def test_what_has_no_meaning_here_is_let_be_or_refused_by_name(worker: Agent) -> None:
    body = job(graphs.painted()) | {"policy": {"executionTimeout": 1000}, "s3Config": {}, "webhook": None}
    assert (await post(worker, "/runsync", body)).ok()["status"] == "COMPLETED"
    for path in ("/retry/x", "/purge-queue", "/v2/e/retry/x"):
        refused(await post(worker, path), 404, "NotFound")
    for path in ("/status", "/status-sync", "/stream"):
        refused(await worker.get(f"{path}/unknown"), 404, "TaskNotFound")
    refused(await worker.get("/v2/e/nothing"), 404, "NotFound")


async def test_health_counts_this_instances_jobs(worker: Agent) -> None:
    before = (await worker.get("/health")).ok()["jobs"]
    (await post(worker, "/runsync", job(graphs.painted()))).ok()
    (await post(worker, "/runsync", job(graphs.raising()))).ok()
    health = (await worker.get("/v2/e/health")).ok()
    assert health["jobs"]["completed"] == before["completed"] + 1
    assert health["jobs"]["failed"] == before["failed"] + 1
    assert health["jobs"]["inProgress"] == health["jobs"]["inQueue"] == 0
    assert health["workers"]["ready"] == 1


async def test_health_says_that_the_engine_is_not_up(make_agent: MakeAgent) -> None:
    agent = await make_agent(comfyui_command="sleep 600", wait=False)
    workers = (await agent.get("/health")).ok()["workers"]
    assert (workers["ready"], workers["idle"], workers["initializing"]) == (0, 0, 1)


async def test_key_is_needed(make_agent: MakeAgent) -> None:
    agent = await make_agent(api_keys=["k3y"])
    for path in ("/run", "/v2/e/runsync"):
        refused(await post(agent, path, job(graphs.painted())), 401, "Unauthorized")
        assert (await post(agent, path, job(graphs.painted()), Authorization="Bearer k3y")).status == 200


async def test_behind_a_gateway_runsync_runs_within_its_request(make_agent: MakeAgent) -> None:
    agent = await make_agent(invocation="gateway", early_answer_seconds=0)
    color = graphs.fresh_color()
    told = (await post(agent, "/runsync", job(graphs.painted(color)))).ok()
    assert color_of(unb64(told["output"]["images"][0]["data"])) == graphs.rgb(color)
    assert (await post(agent, "/runsync", job(graphs.raising()))).ok()["status"] == "FAILED"
    assert "front" in refused(await post(agent, "/run", job(graphs.painted())), 400, "InvalidRequest")


async def test_long_job_begins_its_answer_early(make_agent: MakeAgent) -> None:
    agent = await make_agent(early_answer_seconds=0.05)
    answer = await post(agent, "/runsync", job(graphs.stepping(steps=40)))
    assert answer.status == 200
    assert answer.body.startswith(b" ")
    assert answer.ok()["status"] == "COMPLETED"


async def test_one_id_is_one_job(worker: Agent) -> None:
    graph = graphs.painted(graphs.fresh_color())
    answers = await asyncio.gather(
        *(post(worker, "/runsync", job(graph), **{"task-id": "same-job"}) for _ in range(3))
    )
    assert {answer.ok()["id"] for answer in answers} == {"same-job"}
    assert len((await worker.task("same-job"))["attempts"]) == 1
