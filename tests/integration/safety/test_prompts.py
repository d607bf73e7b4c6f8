"""What comes of prompts that may not be run: refused before the engine hears of them, and told of in the record."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from agent.doctor.finding import Level
from agent.doctor.safety import check_prompts
from agent.safety.prompts.comprehend import MOST_BYTES, Comprehend, split
from agent.safety.prompts.rules import TermRules
from agent.settings import SettingsError
from tests.integration.agent import graphs
from tests.integration.agent.conversation import conversation
from tests.integration.agent.pictures import look
from tests.integration.agent.service import Agent, settings_of
from tests.integration.safety.conftest import SAFE, Engine, Hook, MakeAgent, verdicts
from tests.ports import free_port
from tests.redis_server import RedisServer
from tests.serving import serving


@pytest.fixture(scope="module")
def terms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("terms")
    (folder / "weapons.txt").write_text("pistol\n手枪\n", encoding="utf-8")
    return folder


def wanting(positive: str, negative: str = "blurry") -> graphs.Graph:
    graph = graphs.sampled()
    graph["2"]["inputs"]["text"], graph["3"]["inputs"]["text"] = positive, negative
    graph["2"]["_meta"] = {"title": "What to draw"}
    return graph


def enforced(terms: Path, **settings: Any) -> dict[str, Any]:
    return {"safety_prompts": "enforce", "safety_terms": [str(terms)], **settings}


async def test_banned_prompt_is_refused_before_the_engine_hears_of_it(
    make_agent: MakeAgent, engine: Engine, terms: Path
) -> None:
    agent = await make_agent(**enforced(terms))
    async with engine.agent.engine.asked(0):
        for positive in ("a pistol", "a p.i.s.t.o.l", "p1st0l", "一把手\u200b枪", "word " * 3000 + "pistol"):
            error = (await agent.run(wanting(positive))).error(403, "PromptRefused")
            assert (error["node_id"], error["node_title"], error["input"]) == ("2", "What to draw", "text")
            assert (error["category"], error["transient"]) == ("weapons", False)
            assert "term" not in error
            assert "pistol" not in json.dumps(error)
        assert (await agent.submit(wanting("a pistol"))).status == 403
        envelope = {"prompt": wanting("a pistol"), "safety": {"prompts": "enforce"}}
        assert (await agent.run(envelope)).status == 403


async def test_refused_task_has_a_record_that_tells_what_was_found(
    make_agent: MakeAgent, terms: Path
) -> None:
    agent = await make_agent(**enforced(terms, safety_show_terms=True))
    error = (await agent.run(wanting("a pistol"), "refused-task")).error(403, "PromptRefused")
    assert error["term"] == "pistol"
    record = await agent.task("refused-task")
    assert record["state"] == "failed"
    assert record["error"]["code"] == "PromptRefused"
    assert verdicts(record) == [("prompt-rules", "weapons", "reject")]
    verdict = record["attempts"][0]["verdicts"][0]
    assert (verdict["node_id"], verdict["score"]) == ("2", 1.0)
    assert verdict["ms"] >= 0


async def test_banned_word_in_the_negative_prompt_is_fine(make_agent: MakeAgent, terms: Path) -> None:
    agent = await make_agent(**enforced(terms))
    record = await agent.succeeded(await agent.begin(wanting("a cat", "pistol, 手枪")))
    assert verdicts(record) == [("prompt-rules", "none", "pass")]
    assert record["warnings"] == []
    assert "prompt_review" in record["timings"]


async def test_warning_lets_the_task_run_and_stays_in_its_record(make_agent: MakeAgent, terms: Path) -> None:
    agent = await make_agent(**enforced(terms, safety_prompts="warn"))
    record = await agent.succeeded(await agent.begin(wanting("a pistol")))
    assert verdicts(record) == [("prompt-rules", "weapons", "warn")]
    (warning,) = record["warnings"]
    assert (warning["code"], warning["node_id"], warning["category"]) == ("PromptFlagged", "2", "weapons")
    (await agent.run({"prompt": wanting("a pistol"), "safety": {"prompts": "enforce"}})).error(
        403, "PromptRefused"
    )
    less = {"prompt": wanting("a cat"), "safety": {"prompts": "off"}}
    (await agent.run(less)).error(400, "InvalidOptions")


async def test_request_may_ask_for_the_lists_where_the_server_does_not(
    make_agent: MakeAgent, engine: Engine, terms: Path
) -> None:
    agent = await make_agent(**enforced(terms, safety_prompts="off"))
    (await agent.run(wanting("a pistol"))).ok()
    asked = {"prompt": wanting("a pistol"), "safety": {"prompts": "enforce"}}
    (await agent.run(asked)).error(403, "PromptRefused")
    error = (await engine.agent.run(asked)).error(400, "InvalidOptions")
    assert error["option"] == "safety.prompts"


async def test_prompt_that_is_too_long_to_be_reviewed_is_refused_at_once(
    make_agent: MakeAgent, engine: Engine, terms: Path
) -> None:
    agent = await make_agent(**enforced(terms))
    async with engine.agent.engine.asked(0):
        error = (await agent.run(wanting("fog " * 200_000), "long")).error(413, "PromptTooLong")
        assert (error["node_id"], error["node_title"], error["input"]) == ("2", "What to draw", "text")
        assert (error["limit"], error["transient"]) == (200_000, False)
        assert len(json.dumps(error)) < 1000
    (await agent.run(wanting("fog"), "long")).ok()
    warned = await make_agent(**enforced(terms, safety_prompts="warn", safety_prompt_characters=100))
    record = await warned.succeeded(await warned.begin(wanting("fog " * 100)))
    assert [w["code"] for w in record["warnings"]] == ["PromptTooLong"]


async def test_lists_are_gone_through_once_a_task(
    make_agent: MakeAgent, terms: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = await make_agent(**enforced(terms))
    seen: list[str] = []
    find = TermRules.find

    def noted(self: TermRules, text: str) -> Any:
        seen.append(text)
        return find(self, text)

    monkeypatch.setattr(TermRules, "find", noted)
    for number in (1, 2):
        graph = wanting(f"a cat in fog {number}")
        record = await agent.succeeded(await agent.begin(graph))
        assert verdicts(record) == [("prompt-rules", "none", "pass")]
    # What an engine tells of its nodes is known from the first task on: which of its inputs are texts may be another.
    assert seen.count("a cat in fog 1") == 1
    assert seen.count("a cat in fog 2") == 1


async def test_named_workflow_is_reviewed_as_any_other(make_agent: MakeAgent, terms: Path) -> None:
    agent = await make_agent(**enforced(terms))
    body = json.dumps({"parameters": {"prompt": "a pistol"}}).encode()
    answer = await agent.call("POST", "/api/workflows/text-to-image/run", data=body)
    answer.error(403, "PromptRefused")


async def test_every_door_refuses(make_agent: MakeAgent, engine: Engine, terms: Path) -> None:
    agent = await make_agent(pass_through=["all"], **enforced(terms))
    async with engine.agent.engine.asked(0):
        async with conversation(agent) as socket:
            await socket.say(wanting("a pistol"))
            last = await socket.hear_out()
            assert (last["type"], last["data"]["message"]) == ("error", "PromptRefused")
        as_comfyui = json.dumps({"prompt": wanting("a pistol")}).encode()
        refused = await agent.call("POST", "/prompt", data=as_comfyui)
        assert (refused.status, refused.json["error"]["type"]) == (403, "PromptRefused")
        assert list(refused.json["node_errors"]) == ["2"]
        as_openai = json.dumps({"prompt": "a pistol", "model": "gpt-image-1", "size": "512x512"}).encode()
        refused = await agent.call("POST", "/v1/images/generations", data=as_openai)
        assert (refused.status, refused.json["error"]["code"]) == (400, "moderation_blocked")


async def test_platform_need_not_deliver_a_refused_task_again(make_agent: MakeAgent, terms: Path) -> None:
    agent = await make_agent(invocation="gateway", **enforced(terms))
    answer = await agent.run(wanting("a pistol"), "delivered")
    answer.error(403, "PromptRefused")
    assert answer.headers["x-fc-status"] == "200"
    assert verdicts(await agent.task("delivered")) == [("prompt-rules", "weapons", "reject")]


async def test_negative_terms_are_added_and_told_of(make_agent: MakeAgent) -> None:
    agent = await make_agent(safety_negative="watermark, Blurry, text")
    task_id = await agent.begin(wanting("a cat", "blurry"))
    record = await agent.succeeded(task_id)
    (verdict,) = record["attempts"][0]["verdicts"]
    assert (verdict["step"], verdict["action"], verdict["node_id"]) == ("negative-prompt", "pass", "3")
    assert verdict["detail"].endswith(": watermark, text.")
    picture = look((await agent.output(task_id, 0)).body)
    ran = json.loads(str(picture.info["prompt"]))
    assert ran["3"]["inputs"]["text"] == "blurry, watermark, text"
    assert ran["2"]["inputs"]["text"] == "a cat"


async def test_text_of_a_positive_too_is_left_alone_and_warned_of(make_agent: MakeAgent) -> None:
    graph = wanting("a cat")
    graph["5"]["inputs"]["negative"] = ["2", 0]
    agent = await make_agent(safety_negative="watermark")
    record = await agent.succeeded(await agent.begin(graph))
    assert verdicts(record) == [("negative-prompt", "none", "warn")]
    assert [(w["code"], w["node_id"]) for w in record["warnings"]] == [("NegativeNotAdded", "2")]


async def test_choices_that_the_engine_tells_of_are_no_texts(make_agent: MakeAgent, tmp_path: Path) -> None:
    (tmp_path / "odd.txt").write_text("euler\n")
    agent = await make_agent(safety_prompts="enforce", safety_terms=[str(tmp_path)])
    (await agent.run(wanting("a cat"))).ok()
    (await agent.run(wanting("another cat"))).ok()  # now with /object_info
    (await agent.run(wanting("an euler cat"))).error(403, "PromptRefused")


def test_agent_without_a_review_of_prompts_loads_nothing_for_it() -> None:
    loaded = "import sys, agent.app, agent.serve; print(*sorted(sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", loaded], check=True, capture_output=True, text=True
    ).stdout.split()
    assert {"ahocorasick", "boto3", "botocore"}.isdisjoint(found)
    assert not [m for m in found if m.startswith("agent.safety.prompts.") and not m.endswith("settings")]


async def test_doctor_reads_the_lists(tmp_path: Path, terms: Path) -> None:
    (good,) = check_prompts(settings_of(**enforced(terms)))
    assert (good.level, good.text) == (Level.OK, "Prompts can be reviewed: 2 terms.")
    (bad,) = check_prompts(settings_of(**enforced(tmp_path / "missing.txt")))
    assert (bad.level, "missing.txt" in bad.text) == (Level.PROBLEM, True)
    (idle,) = check_prompts(settings_of(**enforced(terms, safety_prompts="off")))
    assert idle.level is Level.ADVICE


async def test_front_refuses_without_calling_the_engine_function(
    make_agent: MakeAgent, terms: Path, redis_server: RedisServer, redis_prefix: str
) -> None:
    front = await make_agent(
        role="front",
        engine_url=f"http://127.0.0.1:{free_port()}",  # nobody is there
        redis_url=redis_server.url,
        redis_prefix=redis_prefix,
        **enforced(terms),
    )
    (await front.run(wanting("a pistol"))).error(403, "PromptRefused")
    (await front.run(wanting("a pistol"), "front-refused")).error(403, "PromptRefused")
    (await front.submit(wanting("a pistol"), "front-refused-async")).error(403, "PromptRefused")
    for task_id in ("front-refused", "front-refused-async"):
        assert verdicts(await front.task(task_id)) == [("prompt-rules", "weapons", "reject")]


async def test_front_asks_the_classifier_before_it_calls_the_engine_function(
    make_agent: MakeAgent, hook: Hook, redis_server: RedisServer, redis_prefix: str
) -> None:
    hook.answers = [{"labels": [{"category": "violence", "score": 0.9}]}]
    front = await make_agent(
        role="front",
        engine_url=f"http://127.0.0.1:{free_port()}",
        redis_url=redis_server.url,
        redis_prefix=redis_prefix,
        **asked(hook),
    )
    (await front.run(wanting("a fight"), "front-classified")).error(403, "PromptRefused")
    assert verdicts(await front.task("front-classified")) == [("prompt-hook", "violence", "reject")]


async def test_list_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    settings = settings_of(comfyui_port=free_port(), **enforced(tmp_path / "missing.txt"))
    with pytest.raises(SettingsError, match=r"missing\.txt"):
        async with Agent(settings):
            pass
    with pytest.raises(ValueError, match="AGENT_SAFETY_TERMS"):
        settings_of(safety_prompts="enforce")


def asked(hook: Hook, **settings: Any) -> dict[str, Any]:
    return {
        "safety_prompts": "enforce",
        "safety_prompt_classifiers": ["http"],
        "safety_prompt_url": hook.url,
        "safety_prompt_authorization": "Bearer hook-token",
        "safety_classifier_seconds": 20,
        **settings,
    }


async def test_hook_is_asked_of_positive_texts_alone(
    make_agent: MakeAgent, engine: Engine, hook: Hook
) -> None:
    agent = await make_agent(**asked(hook))
    record = await agent.succeeded(await agent.begin(wanting("a cat", "a dog")))
    assert verdicts(record) == [("prompt-hook", "none", "pass")]
    assert [json.loads(body) for body in hook.asked] == [{"text": "a cat"}]
    assert hook.headers[0]["Authorization"] == "Bearer hook-token"
    hook.answers = [{"labels": [{"category": "violence", "score": 0.81}, {"category": "calm", "score": 0.1}]}]
    async with engine.agent.engine.asked(0):
        error = (await agent.run(wanting("a fight"), "hooked")).error(403, "PromptRefused")
    assert (error["category"], error["step"], error["node_id"]) == ("violence", "prompt-hook", "2")
    record = await agent.task("hooked")
    assert verdicts(record) == [("prompt-hook", "violence", "reject")]
    assert record["attempts"][0]["verdicts"][0]["score"] == 0.81
    hook.answers = [SAFE]


async def test_classifier_that_is_down_refuses_for_now_or_warns(
    make_agent: MakeAgent, engine: Engine, hook: Hook
) -> None:
    hook.status = 404
    closed = await make_agent(**asked(hook))
    async with engine.agent.engine.asked(0):
        error = (await closed.run(wanting("a cat"), "closed")).error(503, "ClassifierUnavailable")
    assert error["transient"]
    assert "hook-secret" not in json.dumps(error)
    assert verdicts(await closed.task("closed")) == [("prompt-hook", "unavailable", "reject")]
    opened = await make_agent(**asked(hook, safety_classifier_down="open"))
    record = await opened.succeeded(await opened.begin(wanting("a cat")))
    assert verdicts(record) == [("prompt-hook", "unavailable", "warn")]
    assert [warning["code"] for warning in record["warnings"]] == ["PromptNotClassified"]


@dataclass
class ComprehendServer:
    """Speaks the wire format of Amazon Comprehend: JSON 1.1, the operation in a header."""

    questions: list[dict[str, Any]] = field(default_factory=list)
    #: Status and code for each of the next questions.
    errors: list[tuple[int, str]] = field(default_factory=list)
    score: float = 0.9
    url: str = ""

    async def answer(self, request: web.Request) -> web.Response:
        assert request.headers["X-Amz-Target"] == "Comprehend_20171127.DetectToxicContent"
        assert request.headers["Content-Type"] == "application/x-amz-json-1.1"
        assert request.headers["Authorization"].startswith("AWS4-HMAC-SHA256 Credential=test-key/")
        question = await request.json()
        self.questions.append(question)
        if self.errors:
            status, code = self.errors.pop(0)
            body: dict[str, Any] = {"__type": code, "message": "no"}
            return self._json(body, status)
        found = [
            {
                "Labels": [
                    {"Name": "VIOLENCE_OR_THREAT", "Score": self.score if "fight" in one["Text"] else 0.01},
                    {"Name": "INSULT", "Score": 0.02},
                ],
                "Toxicity": 0.1,
            }
            for one in question["TextSegments"]
        ]
        return self._json({"ResultList": found}, 200)

    def _json(self, body: dict[str, Any], status: int) -> web.Response:
        return web.Response(
            body=json.dumps(body).encode(), status=status, content_type="application/x-amz-json-1.1"
        )


@pytest_asyncio.fixture(loop_scope="session")
async def comprehend(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ComprehendServer]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret")
    made = ComprehendServer()
    async with serving(web.post("/", made.answer)) as made.url:
        yield made


def by_comprehend(server: ComprehendServer, **settings: Any) -> dict[str, Any]:
    return {
        "safety_prompts": "enforce",
        "safety_prompt_classifiers": ["comprehend"],
        "safety_comprehend_region": "us-east-1",
        "safety_comprehend_endpoint": server.url,
        "safety_classifier_seconds": 20,
        **settings,
    }


async def test_comprehend_is_asked_in_its_own_format(
    make_agent: MakeAgent, engine: Engine, comprehend: ComprehendServer
) -> None:
    agent = await make_agent(**by_comprehend(comprehend))
    record = await agent.succeeded(await agent.begin(wanting("a cat")))
    assert verdicts(record) == [("comprehend", "none", "pass")]
    assert comprehend.questions == [{"LanguageCode": "en", "TextSegments": [{"Text": "a cat"}]}]
    async with engine.agent.engine.asked(0):
        error = (await agent.run(wanting("a fight"))).error(403, "PromptRefused")
    assert (error["category"], error["step"]) == ("VIOLENCE_OR_THREAT", "comprehend")
    comprehend.score = 0.7
    (await agent.run(wanting("a fight again"))).ok()


async def test_comprehend_is_not_asked_of_what_it_does_not_read(
    make_agent: MakeAgent, comprehend: ComprehendServer
) -> None:
    agent = await make_agent(**by_comprehend(comprehend))
    record = await agent.succeeded(await agent.begin(wanting("一只猫坐在窗边")))
    (verdict,) = record["attempts"][0]["verdicts"]
    assert verdict["detail"] == "1 of 1 texts are in a language that it does not read."
    assert comprehend.questions == []


async def test_comprehend_that_throttles_is_asked_again_and_one_that_refuses_is_down(
    make_agent: MakeAgent, comprehend: ComprehendServer
) -> None:
    agent = await make_agent(**by_comprehend(comprehend))
    comprehend.errors = [(400, "ThrottlingException"), (500, "InternalServerException")]
    (await agent.run(wanting("a cat"))).ok()
    assert len(comprehend.questions) == 3
    comprehend.questions.clear()
    comprehend.errors = [(400, "AccessDeniedException")]
    error = (await agent.run(wanting("a cat"))).error(503, "ClassifierUnavailable")
    assert "AccessDeniedException" in error["detail"]
    assert len(comprehend.questions) == 1


async def test_long_text_is_sent_in_pieces_that_the_service_takes(comprehend: ComprehendServer) -> None:
    made = Comprehend({"*": 0.8}, region="us-east-1", endpoint=comprehend.url, seconds=20)
    text = "a wide field of wheat, " * 600 + "a fight" + " é" * 3000 + "x" * 5000
    labels = await made.classify(text)
    await made.close()
    assert labels is not None
    assert max(label.score for label in labels if label.category == "VIOLENCE_OR_THREAT") == 0.9
    pieces = [piece["Text"] for question in comprehend.questions for piece in question["TextSegments"]]
    assert all(len(piece.encode()) <= 1024 for piece in pieces)
    assert all(len(question["TextSegments"]) <= 10 for question in comprehend.questions)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert list(split("")) == []
    assert all(len(piece.encode()) <= MOST_BYTES for piece in split("字" * 5000))
