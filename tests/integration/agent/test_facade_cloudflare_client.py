"""Cloudflare's Workers AI, as its official client asks for it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from cloudflare import APIStatusError, AsyncCloudflare, AuthenticationError, BadRequestError

from tests.integration.agent import shelf
from tests.integration.agent.pictures import encode, look, picture, png, unb64
from tests.integration.agent.service import PATIENCE_SECONDS, Agent, MakeAgent

KEY, ACCOUNT = "the-agents-key", "0123456789abcdef"
SMALL = {"num_steps": 2, "width": 64, "height": 64}


@pytest_asyncio.fixture(loop_scope="session")
async def guarded(make_agent: MakeAgent, tmp_path: Path) -> Agent:
    return await make_agent(api_keys=[KEY], early_answer_seconds=0, **shelf.settings(tmp_path))


def client_of(agent: Agent, token: str = KEY) -> AsyncCloudflare:
    base_url = f"{agent.url}/client/v4"
    return AsyncCloudflare(api_token=token, base_url=base_url, timeout=PATIENCE_SECONDS, max_retries=0)


@pytest_asyncio.fixture(loop_scope="session")
async def client(guarded: Agent) -> AsyncIterator[AsyncCloudflare]:
    async with client_of(guarded) as made:
        yield made


async def test_pictures(client: AsyncCloudflare) -> None:
    model = "@cf/black-forest-labs/flux-1-schnell"
    how = {"steps": 1, "width": 64, "height": 64}
    result = await client.ai.run(model, account_id=ACCOUNT, prompt="a cat", extra_body=how)
    assert look(unb64(result["image"])).format == "JPEG"
    raw = client.ai.with_raw_response
    drawn = await raw.run("@cf/lykon/dreamshaper-8-lcm", account_id=ACCOUNT, prompt="a cat", **SMALL)
    assert (drawn.headers["content-type"], look(drawn.http_response.content).size) == ("image/png", (64, 64))
    photo = list(encode(picture((9, 9, 9), (64, 48)), "JPEG"))
    changed = await raw.run(
        "@cf/runwayml/stable-diffusion-v1-5-img2img",
        account_id=ACCOUNT,
        prompt="a lion",
        image=photo,
        strength=0.5,
    )
    graph = json.loads(look(changed.http_response.content).info["prompt"])
    assert (graph["6"]["inputs"]["text"], graph["3"]["inputs"]["denoise"]) == ("a lion", 0.5)


async def test_texts(client: AsyncCloudflare) -> None:
    said = await client.ai.run("@cf/meta/llama", account_id=ACCOUNT, prompt="hello")
    assert said == {"response": "You said: hello"}
    translated = await client.ai.run("@cf/meta/m2m100", account_id=ACCOUNT, text="hello", target_lang="fr")
    assert translated == {"translated_text": "en>fr: hello"}
    labels = await client.ai.run("@cf/microsoft/resnet-50", account_id=ACCOUNT, image=list(png()))
    assert [(found.label, found.score) for found in labels] == [("CAT", 0.75), ("DOG", 0.25)]


async def test_errors(guarded: Agent, client: AsyncCloudflare) -> None:
    async def code_of(kind: type[APIStatusError], asked: AsyncCloudflare, model: str) -> int | None:
        with pytest.raises(kind) as caught:
            await asked.ai.run(model, account_id=ACCOUNT, prompt="x")
        return caught.value.errors[0].code

    assert await code_of(BadRequestError, client, "@cf/nobody/has-this") == 5007
    assert await code_of(BadRequestError, client, "@cf/runwayml/stable-diffusion-v1-5-img2img") == 5006
    async with client_of(guarded, "wrong") as stranger:
        assert await code_of(AuthenticationError, stranger, "@cf/meta/llama") == 10000
