"""Who may call, and from which pages."""

from __future__ import annotations

import pytest

from tests.integration.agent import graphs
from tests.integration.agent.conversation import events
from tests.integration.agent.service import Agent, MakeAgent, take

KEYS = ["first-key", "zweiter-schlüssel"]

GUARDED = [
    ("POST", "/api/run"),
    ("GET", "/api/run/ws"),
    ("GET", "/api/status?id=x"),
    ("GET", "/api/tasks"),
    ("GET", "/api/tasks/x"),
    ("DELETE", "/api/tasks/x"),
    ("GET", "/api/tasks/x/events"),
    ("GET", "/api/tasks/x/outputs/0"),
    ("GET", "/api/queue"),
    ("GET", "/metrics"),
    ("GET", "/nowhere"),
    ("PUT", "/api/run"),
    ("GET", "/healthz/"),
]


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Api-Key": "first-key"},
        {"Authorization": "Bearer first-key"},
        {"authorization": "bearer first-key"},
        {"X-Api-Key": "zweiter-schlüssel"},
        {"X-Api-Key": "first-key", "Authorization": "Bearer the-platform's-own-token"},
        {"X-Api-Key": "wrong", "Authorization": "Bearer first-key"},
    ],
)
async def test_any_of_the_keys_opens_in_either_header(make_agent: MakeAgent, headers: dict[str, str]) -> None:
    agent = await make_agent(api_keys=KEYS)
    assert (await agent.run(graphs.painted(), headers=headers)).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Api-Key": "wrong"},
        {"X-Api-Key": ""},
        {"X-Api-Key": "first-key,zweiter-schlüssel"},
        {"X-Api-Key": "first-ke"},
        {"X-Api-Key": "FIRST-KEY"},
        {"Authorization": "first-key"},
        {"Authorization": "Basic first-key"},
        {"Authorization": "Bearer"},
        {"X-Api-Key": "ключ"},
    ],
)
async def test_no_key_or_a_wrong_one_is_refused_everywhere(
    make_agent: MakeAgent, headers: dict[str, str]
) -> None:
    agent = await make_agent(api_keys=KEYS)
    async with agent.engine.asked(0):
        for method, path in GUARDED:
            error = (await agent.call(method, path, headers=headers)).error(401, "Unauthorized")
            assert "X-Api-Key" in error["detail"]
    assert "first-key" not in str(error)


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_health_needs_no_key(make_agent: MakeAgent, path: str) -> None:
    agent = await make_agent(api_keys=KEYS)
    assert (await agent.get(path)).status == 200


PAGE = "https://app.example"


async def test_hooks_need_a_key_unless_the_platform_calls(make_agent: MakeAgent) -> None:
    """A proxy on the same machine calls from the loopback address for everybody."""
    agent = await make_agent(api_keys=KEYS)
    (await agent.get("/pre-stop")).error(403, "HookNotAllowed")
    (await agent.call("POST", "/initialize", headers={"X-Api-Key": "wrong"})).error(403, "HookNotAllowed")
    (await agent.call("POST", "/initialize", headers={"X-Api-Key": KEYS[0]})).ok()
    (await agent.run(graphs.painted(), headers={"X-Api-Key": KEYS[0]})).ok()


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://[bad", "x", ""]
)
async def test_page_of_another_origin_is_refused_before_it_costs_anything(agent: Agent, origin: str) -> None:
    async with agent.engine.asked(0):
        for method, path in (
            ("POST", "/api/run"),
            ("GET", "/api/run/ws"),
            ("GET", "/api/tasks"),
            ("OPTIONS", "/api/run"),
        ):
            answer = await agent.call(method, path, headers={"Origin": origin})
            answer.error(403, "OriginNotAllowed")
            assert "Access-Control-Allow-Origin" not in answer.headers


async def test_own_page_and_programs_are_let_in(agent: Agent) -> None:
    assert (await agent.run(graphs.painted(), headers={"Origin": agent.url})).status == 200
    assert (await agent.run(graphs.painted())).status == 200


async def test_configured_page_may_ask_and_read_answers_errors_and_streams(make_agent: MakeAgent) -> None:
    agent = await make_agent(cors_origins=[PAGE])
    origin = {"Origin": PAGE}
    answers = [
        await agent.run(graphs.painted(), "from-page", headers=origin),
        await agent.run(b"{", headers=origin),
        await agent.get("/nowhere", headers=origin),
        await agent.get("/api/tasks/from-page/events", headers=origin),
        await agent.get("/api/tasks/from-page/outputs/0", headers=origin),
    ]
    assert [answer.status for answer in answers] == [200, 400, 404, 200, 200]
    for answer in answers:
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE
        assert "Origin" in answer.headers["Vary"]
        assert "task-id" in answer.headers["Access-Control-Expose-Headers"]
        assert "Access-Control-Allow-Credentials" not in answer.headers
    (await agent.run(graphs.painted(), headers={"Origin": PAGE + ".evil"})).error(403, "OriginNotAllowed")
    assert (await take(events(agent, "from-page")))[-1]["state"] == "succeeded"


async def test_preflight_is_answered_without_a_key_and_runs_nothing(make_agent: MakeAgent) -> None:
    agent = await make_agent(cors_origins=[PAGE], api_keys=KEYS)
    asks = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
    async with agent.engine.asked(0):
        answer = await agent.call("OPTIONS", "/api/run", headers=asks)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    allowed = answer.headers["Access-Control-Allow-Headers"].lower().split(", ")
    assert {"content-type", "x-api-key", "authorization", "task-id", "x-fc-invocation-type"} <= set(allowed)
    refused = await agent.run(graphs.painted(), headers={"Origin": PAGE})
    refused.error(401, "Unauthorized")
    assert refused.headers["Access-Control-Allow-Origin"] == PAGE


async def test_star_lets_every_page_in(make_agent: MakeAgent) -> None:
    agent = await make_agent(cors_origins=["*"])
    answer = await agent.run(graphs.painted(), headers={"Origin": "https://any.example"})
    assert answer.status == 200
    assert answer.headers["Access-Control-Allow-Origin"] in ("*", "https://any.example")


@pytest.mark.parametrize(("invocation", "has_date"), [("standalone", True), ("gateway", False)])
async def test_answers_do_not_name_the_web_server(
    make_agent: MakeAgent, invocation: str, has_date: bool
) -> None:
    """Nor, on Function Compute, the date: neither is a function's to set there."""
    agent = await make_agent(invocation=invocation, pass_through=["/object_info"])
    ran = await agent.run(graphs.painted(), "quiet")
    paths = ("/healthz", "/", "/nowhere", "/api/tasks/quiet", "/api/tasks/quiet/events", "/object_info")
    answers = [await agent.get(path) for path in (*paths, "/api/run", "/api/tasks/quiet/outputs/0")]
    async with agent.http.ws_connect("/api/run/ws") as socket:
        opened = socket._response.headers  # the library shows them nowhere else
    for found in (ran.headers, opened, *(answer.headers for answer in answers)):
        assert "Server" not in found
        assert ("Date" in found) is has_date


@pytest.mark.parametrize(
    ("invocation", "host", "shown"),
    [
        ("gateway", "agent-abc.cn-hangzhou.fcapp.run", False),
        ("gateway", "images.example.com", True),
        ("standalone", "agent-abc.cn-hangzhou.fcapp.run", True),
    ],
)
async def test_platform_that_shows_answers_to_pages_itself_is_not_joined_in(
    make_agent: MakeAgent, invocation: str, host: str, shown: bool
) -> None:
    agent = await make_agent(cors_origins=[PAGE], invocation=invocation)
    answer = await agent.call("GET", "/healthz", headers={"Origin": PAGE, "Host": host})
    assert answer.status == 200
    assert ("Access-Control-Allow-Origin" in answer.headers) is shown
    refused = await agent.call("GET", "/healthz", headers={"Origin": "https://evil.example", "Host": host})
    refused.error(403, "OriginNotAllowed")
