"""The HTTP hook and its callers: whatever ends a question early, nothing of it stays behind."""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress

import pytest
from aiohttp import web
from pydantic import SecretStr

from agent.errors import ClassifierUnavailable
from agent.safety.classifiers.classifier import ClassifierDown
from agent.safety.classifiers.hook import Hook
from agent.safety.prompts.findings import Checked
from agent.safety.prompts.review import PARALLEL, PromptReview
from agent.safety.prompts.texts import Text
from agent.safety.settings import Mode
from comfyui.workflow import Workflow
from tests.integration.agent import graphs
from tests.integration.agent.service import eventually, settings_of
from tests.serving import serving

#: Turns of the event loop: more than a question takes.
TURNS = 60


async def test_no_question_outlives_the_review_of_a_classifier_that_is_down() -> None:
    """One answer says that it is down, while others are waited for and more texts are to follow."""
    seen: list[str] = []
    waiting: set[str] = set()
    all_asked = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        text = (await request.json())["text"]
        seen.append(text)
        if len(seen) == PARALLEL:
            all_asked.set()
        if text == "text 0":
            await all_asked.wait()
            return web.Response(status=404)
        waiting.add(text)
        try:
            await asyncio.Event().wait()
        finally:
            waiting.discard(text)
        raise AssertionError

    async with serving(web.post("/", answer)) as url:
        review = PromptReview(
            settings_of(
                safety_prompts="enforce",
                safety_prompt_classifiers=["http"],
                safety_prompt_url=url,
                safety_classifier_seconds=600,
            )
        )
        texts = [Text(str(n), "text", f"text {n}", frozenset()) for n in range(3 * PARALLEL)]
        found = await review.classify(
            Workflow.parse(graphs.painted()), Checked(mode=Mode.ENFORCE, texts=texts)
        )
        assert isinstance(found.error, ClassifierUnavailable)

        async def is_quiet() -> bool:
            return not waiting

        await eventually(is_quiet)
        assert len(seen) <= PARALLEL + 1, "one more may have taken the place of the first"
        await review.close()


@pytest.mark.parametrize("path", ["/quick", "/early", "/slow", "/broken"])
@pytest.mark.parametrize("body", [b"short", bytes(900_000)], ids=["short", "long"])
async def test_question_that_is_cancelled_at_any_moment_leaves_no_connection(path: str, body: bytes) -> None:
    """Unclosed connections are warnings, and warnings fail tests."""

    async def quick(request: web.Request) -> web.Response:
        await request.read()
        return web.json_response({"labels": []})

    async def early(_: web.Request) -> web.Response:
        return web.Response(status=503)  # before the picture has arrived

    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(TURNS // 4):
            await response.write(b" ")
            await asyncio.sleep(0)
        await response.write(b'{"labels": []}')
        return response

    async def broken(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    routes = (web.post(f"/{one.__name__}", one) for one in (quick, early, slow, broken))
    async with serving(*routes) as url:
        hook = Hook(SecretStr(url + path))
        for turns in range(TURNS):
            asked = asyncio.create_task(hook.ask(body, "image/jpeg"))
            for _ in range(turns):
                await asyncio.sleep(0)
            asked.cancel()
            with suppress(asyncio.CancelledError, ClassifierDown):
                await asked
        await hook.close()
        gc.collect()
