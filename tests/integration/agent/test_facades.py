"""What all facades have in common: who may call, how errors look, which workflow serves which model, early answers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from agent.settings import SettingsError
from agent.settings_facades import FacadeName
from tests.integration.agent import shelf
from tests.integration.agent.pictures import look, unb64
from tests.integration.agent.service import Agent, Answer, MakeAgent, settings_of

KEY = "the-agents-key"
PAGE = "https://app.example"
CLOUDFLARE, OPENAI = "/client/v4/accounts/acc/ai/run", "/v1/images/generations"


@pytest_asyncio.fixture(loop_scope="session")
async def shelved(make_agent: MakeAgent, tmp_path: Path) -> Agent:
    """An agent with the models of tests/integration/agent/shelf.py, which begins its JSON answers at once."""
    return await make_agent(early_answer_seconds=0.05, **shelf.settings(tmp_path))


@pytest_asyncio.fixture(loop_scope="session")
async def patient(make_agent: MakeAgent, tmp_path: Path) -> Agent:
    """The same, but it waits for the result."""
    return await make_agent(early_answer_seconds=0, **shelf.settings(tmp_path))


async def draw(agent: Agent, model: str, **how: Any) -> Answer:
    return await agent.call("POST", f"{CLOUDFLARE}/{model}", json={"prompt": "a cat", **how})


def cloudflare_error(answer: Answer, status: int, code: int) -> str:
    """The message, after a look at what every error of this API has."""
    assert answer.status == status, answer.body
    body = answer.json
    assert body.keys() == {"result", "success", "errors", "messages"}
    assert (body["result"], body["success"], body["messages"]) == (None, False, [])
    (error,) = body["errors"]
    assert error["code"] == code, error
    return str(error["message"])


def openai_error(answer: Answer, status: int, code: str) -> dict[str, Any]:
    assert answer.status == status, answer.body
    assert answer.json.keys() == {"error"}
    error: dict[str, Any] = answer.json["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == code, error
    return error


async def test_a_key_is_needed_and_either_header_carries_it(make_agent: MakeAgent) -> None:
    agent = await make_agent(api_keys=[KEY])
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"X-Api-Key": KEY[:-1]}, {"Authorization": KEY}):
        answer = await agent.call("POST", f"{CLOUDFLARE}/x", json={}, headers=headers)
        cloudflare_error(answer, 401, 10000)
        openai_error(await agent.get("/v1/models", headers=headers), 401, "invalid_api_key")
    for headers in ({"Authorization": f"Bearer {KEY}"}, {"X-Api-Key": KEY}):
        assert (await agent.get("/v1/models", headers=headers)).ok()["object"] == "list"


async def test_pages_need_no_key_for_keyless_facades_and_for_nothing_else(make_agent: MakeAgent) -> None:
    agent = await make_agent(api_keys=[KEY], keyless_facades=["openai"], cors_origins=[PAGE])
    answer = await agent.get("/v1/models", headers={"Origin": PAGE})
    assert answer.ok()["object"] == "list"
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE
    openai_error(
        await agent.get("/v1/models", headers={"Origin": "https://x.example"}), 403, "OriginNotAllowed"
    )
    cloudflare_error(await draw(agent, "x"), 401, 10000)
    for path in ("/api/tasks", "/v1x/models", "/api/workflows"):
        (await agent.get(path)).error(401, "Unauthorized")


async def cats(agent: Agent, name: str, key: str = "", prompt: str = "a cat", header: str = "task-id") -> str:
    """Draw under a name; the id of the task that did it."""
    headers = {header: name, **({"X-Api-Key": key} if key else {})}
    body = {"prompt": prompt, "model": "gpt-image-1", "size": "64x64"}
    answer = await agent.call("POST", OPENAI, json=body, headers=headers)
    assert len(answer.ok()["data"]) == 1
    return str(answer.headers["task-id"])


@pytest.mark.parametrize("header", ["task-id", "Idempotency-Key"])
async def test_ids_that_callers_without_a_key_choose_are_in_a_space_of_their_own(
    make_agent: MakeAgent, tmp_path: Path, header: str
) -> None:
    agent = await make_agent(
        api_keys=[KEY], keyless_facades=["openai"], early_answer_seconds=0, **shelf.settings(tmp_path)
    )
    theirs = await cats(agent, "order-1", header=header)
    assert re.fullmatch("keyless-[0-9a-f]{40}", theirs)
    assert await cats(agent, "order-1", header=header) == theirs, "sent again, it did not run again"
    # Strangers are not in each other's way either.
    assert await cats(agent, "order-1", prompt="a dog", header=header) != theirs
    # A caller with a key finds the id free, whatever he wants to run under it,
    ours = await cats(agent, "order-1", KEY, prompt="a fox", header=header)
    assert (ours == "order-1") is (header == "task-id")
    keyed = {"X-Api-Key": KEY}
    record = (await agent.get(f"/api/tasks/{ours}", headers=keyed)).ok()
    # and nobody without one gets to what he has made, nor in its way, though he asks for the same by its name.
    for name in (ours, "order-1"):
        assert (await cats(agent, name, prompt="a fox", header=header)) not in (ours, theirs)
        assert (await cats(agent, name, prompt="a wolf", header=header)) != ours
    assert (await agent.get(f"/api/tasks/{ours}", headers=keyed)).ok() == record
    # Only who has a key sees any of them.
    (await agent.get(f"/api/tasks/{theirs}")).error(401, "Unauthorized")
    (await agent.call("DELETE", f"/api/tasks/{theirs}")).error(401, "Unauthorized")
    listed = (await agent.get("/api/tasks", headers=keyed)).ok()["tasks"]
    assert {theirs, ours} <= {task["id"] for task in listed}


async def test_several_pictures_of_a_caller_without_a_key_are_several_tasks(
    make_agent: MakeAgent, tmp_path: Path
) -> None:
    agent = await make_agent(
        api_keys=[KEY], keyless_facades=["openai"], early_answer_seconds=0, **shelf.settings(tmp_path)
    )
    body = {"prompt": "cats", "model": "gpt-image-1", "size": "64x64", "n": 2}
    answers = [await agent.call("POST", OPENAI, json=body, headers={"task-id": "x" * 126}) for _ in range(2)]
    assert [len(answer.ok()["data"]) for answer in answers] == [2, 2]
    assert answers[0].headers["task-id"] == answers[1].headers["task-id"]
    listed = (await agent.get("/api/tasks", headers={"X-Api-Key": KEY})).ok()["tasks"]
    assert sum(task["id"].startswith("keyless-") for task in listed) == 2


async def test_preflight_lets_the_headers_of_other_clients_through(make_agent: MakeAgent) -> None:
    agent = await make_agent(cors_origins=[PAGE])
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-stainless-lang"}
    answer = await agent.call("OPTIONS", OPENAI, headers={"Origin": PAGE, **asked})
    assert (answer.status, answer.headers["Access-Control-Allow-Headers"]) == (204, "x-stainless-lang")
    ours = await agent.call("OPTIONS", "/api/run", headers={"Origin": PAGE, **asked})
    assert "x-stainless-lang" not in ours.headers["Access-Control-Allow-Headers"]


async def test_facades_that_are_not_open_are_not_there(make_agent: MakeAgent) -> None:
    agent = await make_agent(facades=["openai"])
    (await draw(agent, "x")).error(404, "NotFound")
    assert (await agent.get("/v1/models")).status == 200
    closed = await make_agent(facades="none")
    (await closed.get("/v1/models")).error(404, "NotFound")


async def test_unknown_routes_and_methods_are_answered_in_the_form_of_their_api(agent: Agent) -> None:
    cloudflare_error(await agent.get("/client/v4/user"), 404, 7000)
    answer = await agent.get(f"{CLOUDFLARE}/x")
    cloudflare_error(answer, 405, 7001)
    assert answer.headers["Allow"] == "POST"
    openai_error(await agent.call("POST", "/v1/chat/completions", json={}), 404, "unknown_url")
    error = openai_error(await agent.call("POST", "/v1/images/variations"), 404, "unknown_url")
    assert "edits" in error["message"]
    (await agent.get("/v1-beta")).error(404, "NotFound")


@pytest.mark.parametrize(
    "model", ["nope", "..%2f..%2fetc%2fpasswd", "@cf%2Fnobody%2Fhas-this", "%00", "dall-e-3"]
)
async def test_models_that_the_table_has_not_are_refused(patient: Agent, model: str) -> None:
    assert "AGENT_MODELS" in cloudflare_error(await draw(patient, model), 400, 5007)
    found = await patient.call("POST", OPENAI, json={"prompt": "a cat", "model": "dall-e-3"})
    assert openai_error(found, 404, "model_not_found")["type"] == "invalid_request_error"


async def test_operators_table_adds_and_removes_models(patient: Agent) -> None:
    names = {model["id"] for model in (await patient.get("/v1/models")).ok()["data"]}
    assert {"slow", "@cf/stabilityai/stable-diffusion-xl-base-1.0"} <= names
    assert not {"dall-e-3", "wild-*"} & names
    assert (await draw(patient, "wild-cat")).headers["Content-Type"] == "image/png"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("nowhere", "there-is-none"),
        ("misspelt", "stepps"),
        ("no-file", "ckpt_name"),
        ("no-labels", "no labels"),
    ],
)
async def test_a_table_that_is_wrong_is_not_the_callers_fault(patient: Agent, model: str, said: str) -> None:
    answer = await draw(patient, model, num_steps=1)
    assert said in cloudflare_error(answer, 500, 3043)
    assert answer.status == 500


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a list", "AGENT_MODELS"),
        ("x: {workflow: [1]}", "x.workflow"),
        ("x: {wrkflow: y}", "x.wrkflow"),
        ("{", "not YAML"),
        (None, "No such file"),
    ],
)
async def test_a_table_that_cannot_be_read_is_said_at_the_start(
    tmp_path: Path, text: str | None, said: str
) -> None:
    table = tmp_path / "models.yaml"
    if text is not None:
        table.write_text(text)
    with pytest.raises(SettingsError, match=said):
        Agent(settings_of(models=str(table)))


async def test_json_answers_begin_early_and_end_with_the_result(shelved: Agent) -> None:
    async with shelved.http.post(f"{CLOUDFLARE}/slow", json={"prompt": "x"}) as response:
        assert response.headers["Transfer-Encoding"] == "chunked"
        assert await response.content.readexactly(1) == b" "
        rest = await response.read()
    assert rest.lstrip(b" ").startswith(b'{"result"')
    assert look(unb64(json.loads(rest)["result"]["image"])).format == "JPEG"


async def test_an_error_after_an_early_answer_is_told_in_its_body_and_counted(shelved: Agent) -> None:
    answer = await draw(shelved, "fails-late")
    assert (answer.status, answer.body[:1]) == (200, b" ")
    assert answer.json["success"] is False
    assert "raised on purpose" in answer.json["errors"][0]["message"]
    metrics = (await shelved.get("/metrics")).body.decode()
    assert 'comfyui_agent_http_errors_total{code="NodeFailed"} 1' in metrics


async def test_without_early_answers_an_error_has_its_status(patient: Agent) -> None:
    assert "raised on purpose" in cloudflare_error(await draw(patient, "fails-late"), 500, 3043)


async def test_a_caller_who_leaves_an_early_answer_takes_his_task_with_him(shelved: Agent) -> None:
    body, named = {"prompt": "y"}, {"task-id": "leaves"}
    async with shelved.http.post(f"{CLOUDFLARE}/long", json=body, headers=named) as response:
        assert await response.content.readexactly(1) == b" "
        response.close()
    record = await shelved.finished("leaves")
    assert record["state"] == "cancelled"


async def test_the_same_key_of_a_retry_runs_nothing_twice(agent: Agent) -> None:
    body = {"prompt": "once", "num_steps": 1, "width": 64, "height": 64}
    async with agent.engine.asked(1):
        answers = [
            await agent.call(
                "POST",
                f"{CLOUDFLARE}/@cf/lykon/dreamshaper-8-lcm",
                json=body,
                headers={"Idempotency-Key": "a key of any form, ünd länge"},
            )
            for _ in range(2)
        ]
    assert answers[0].body == answers[1].body
    assert answers[0].headers["task-id"] == answers[1].headers["task-id"]


GARBAGE = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'"x"',
    b"\xff\xfe",
    b'{"prompt": 5}',
    b'{"prompt": "\\ud800"}',
    b"NaN" * 99,
]


@pytest.mark.parametrize(
    "kind", ["application/json", "multipart/form-data", "multipart/form-data; boundary=x", "image/png", ""]
)
async def test_garbage_is_the_callers_fault(agent: Agent, kind: str) -> None:
    paths = [
        f"{CLOUDFLARE}/@cf/lykon/dreamshaper-8-lcm",
        OPENAI,
        "/v1/images/edits",
        f"{CLOUDFLARE}/@cf/lykon/dreamshaper-8-lcm?queueRequest=true",
    ]
    async with agent.engine.asked(0):
        for path in paths:
            for body in GARBAGE:
                answer = await agent.call("POST", path, data=body, headers={"Content-Type": kind})
                assert 400 <= answer.status < 500, (path, body, answer.body)


async def test_the_openapi_document_is_of_our_own_routes(agent: Agent) -> None:
    paths = (await agent.get("/openapi.json")).ok()["paths"]
    assert not [path for path in paths if path.startswith(("/v1/", "/client/"))]


async def test_a_keyless_facade_is_open_and_takes_no_graphs_of_its_callers() -> None:
    with pytest.raises(ValueError, match="does not open"):
        settings_of(facades=["openai"], keyless_facades=["cloudflare"])
    with pytest.raises(
        ValueError, match="runpod cannot be without a key; cloudflare, openai, automatic1111 can"
    ):
        settings_of(keyless_facades=["openai", "runpod"])


async def test_the_review_refuses_prompts_here_too(make_agent: MakeAgent, tmp_path: Path) -> None:
    terms = tmp_path / "terms.txt"
    terms.write_text("forbidden fruit\n")
    agent = await make_agent(safety_prompts="enforce", safety_terms=[str(terms)])
    model, prompt = "@cf/lykon/dreamshaper-8-lcm", "a bowl of forbidden fruit"
    async with agent.engine.asked(0):
        cloudflare_error(await draw(agent, model, prompt=prompt), 400, 3030)
        answer = await agent.call("POST", OPENAI, json={"prompt": prompt, "model": "gpt-image-1"})
        openai_error(answer, 400, "moderation_blocked")


async def test_every_facade_is_open_unless_it_is_closed() -> None:
    assert settings_of().facades == list(FacadeName)
    assert settings_of().keyless_facades == []
