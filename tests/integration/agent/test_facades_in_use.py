"""Facades as applications use them: a convert step that was written for Cloudflare, and a page that talks to a front."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest_asyncio
import yaml
from obstore.store import S3Store

from tests.integration.agent import graphs, shelf
from tests.integration.agent.pictures import encode, look, picture, png, unb64
from tests.integration.agent.service import Agent, MakeAgent, eventually
from tests.integration.inputs.conftest import MediaServer
from tests.integration.inputs.conftest import answer as http_answer
from tests.object_store import KEY_ID, KEY_SECRET, Bucket
from tests.redis_server import RedisServer

KEY, ENGINE_KEY = "the-key-of-the-application", "the-engine-functions-own-key"
IMG2IMG = "@cf/runwayml/stable-diffusion-v1-5-img2img"


class Application:
    """A convert step as people write it against Workers AI. Nothing in it knows of the agent but its base URL."""

    def __init__(self, base_url: str, token: str, bucket: S3Store, http: aiohttp.ClientSession) -> None:
        self._url, self._token, self._bucket, self._http = base_url, token, bucket, http

    async def convert(self, photo_url: str, prompt: str, model: str = IMG2IMG) -> dict[str, Any]:
        """Make another picture of the one at this URL, and keep it."""
        async with self._http.get(photo_url) as response:
            if response.status != 200:
                return {"success": False, "error": f"the photo could not be fetched ({response.status})"}
            photo = await response.read()
        async with self._http.post(
            f"{self._url}/accounts/0123456789abcdef/ai/run/{model}",
            json={"prompt": prompt, "image": list(photo), "strength": 0.6, "guidance": 7.5, "num_steps": 4},
            headers={"Authorization": f"Bearer {self._token}"},
        ) as response:
            made = await response.read()
            if response.status != 200:
                return {"success": False, "error": json.loads(made)["errors"][0]["message"]}
        if look(made).convert("L").getextrema()[1] < 8:
            return {"success": False, "error": "the picture is black"}
        path = f"converted/{hashlib.sha256(made).hexdigest()[:16]}.png"
        await self._bucket.put_async(path, made)
        return {"success": True, "imagePath": path}


@pytest_asyncio.fixture(loop_scope="session")
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield session


async def test_a_convert_step_runs_with_another_base_url_and_nothing_else(
    make_agent: MakeAgent, media: MediaServer, bucket: Bucket, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    black = graphs.chain(graphs.empty(0), graphs.save())
    black["3"] = graphs.node("LoadImage", image="")
    (tmp_path / "black.json").write_text(json.dumps(black))
    described = {
        "title": "Black",
        "outputs": [2],
        "parameters": {"photo": shelf.parameter("image", "3.image")},
    }
    (tmp_path / "black.yaml").write_text(yaml.safe_dump(described))
    (tmp_path / "models.yaml").write_text(yaml.safe_dump({"@cf/black": {"edit": "black"}}))
    agent = await make_agent(
        api_keys=[KEY], workflows_dir=str(tmp_path), models=str(tmp_path / "models.yaml")
    )
    media.answers["/photo.jpg"] = http_answer("200 OK", encode(picture((200, 150, 100), (96, 64)), "JPEG"))
    media.answers["/text"] = http_answer("200 OK", b"this is no picture")
    base_url = f"{agent.url}/client/v4"
    store = S3Store(
        bucket.name,
        endpoint=bucket.server.url,
        region="us-east-1",
        access_key_id=KEY_ID,
        secret_access_key=KEY_SECRET,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )
    application = Application(base_url, KEY, store, http)

    done = await application.convert(media.url("/photo.jpg"), "a portrait in oil")
    assert done == {"success": True, "imagePath": done["imagePath"]}
    assert bucket.keys() == [done["imagePath"]]
    kept = look(bytes(await (await store.get_async(done["imagePath"])).bytes_async()))
    assert (kept.format, kept.width > kept.height) == ("PNG", True)
    assert "a portrait in oil" in kept.info["prompt"]

    for refused, said in (
        (application.convert(media.url("/gone"), "x"), "could not be fetched"),
        (application.convert(media.url("/text"), "x"), "AiError"),
        (application.convert(media.url("/photo.jpg"), "x", "@cf/black"), "black"),
        (application.convert(media.url("/photo.jpg"), "x", "@cf/unknown"), "AiError"),
        (Application(base_url, "wrong", store, http).convert(media.url("/photo.jpg"), "x"), "API key"),
    ):
        answer = await refused
        assert (answer["success"], said in answer["error"]) == (False, True), answer
    assert bucket.keys() == [done["imagePath"]]


async def page_fetches(http: aiohttp.ClientSession, front: Agent, path: str, body: Any) -> tuple[int, bytes]:
    """What a page of the front itself gets: it has no key, and its browser says where it comes from."""
    async with http.post(f"{front.url}{path}", json=body, headers={"Origin": front.url}) as response:
        return response.status, await response.read()


async def test_a_page_needs_no_key_since_the_front_has_its_own(
    make_agent: MakeAgent,
    redis_server: RedisServer,
    redis_prefix: str,
    http: aiohttp.ClientSession,
    tmp_path: Path,
) -> None:
    shared = {"redis_url": redis_server.url, "redis_prefix": redis_prefix, **shelf.settings(tmp_path)}
    engine = await make_agent(role="engine", api_keys=[ENGINE_KEY], **shared)
    front = await make_agent(
        role="front",
        engine_url=engine.url,
        engine_api_key=ENGINE_KEY,
        api_keys=[KEY],
        keyless_facades=["cloudflare", "openai"],
        early_answer_seconds=0.1,
        **shared,
    )
    small = {"prompt": "a cat", "num_steps": 2, "width": 64, "height": 64}
    run = "/client/v4/accounts/x/ai/run"

    status, body = await page_fetches(http, front, f"{run}/@cf/lykon/dreamshaper-8-lcm", small)
    assert (status, look(body).size) == (200, (64, 64))
    status, body = await page_fetches(http, front, f"{run}/@cf/meta/llama", {"prompt": "hello"})
    assert json.loads(body)["result"] == {"response": "You said: hello"}
    status, body = await page_fetches(http, front, f"{run}/fails-late", {"prompt": "x"})
    assert json.loads(body)["success"] is False
    queueing = f"{run}/@cf/lykon/dreamshaper-8-lcm?queueRequest=true"
    status, body = await page_fetches(http, front, queueing, small)
    batch = {"request_id": json.loads(body)["result"]["request_id"]}

    async def responses() -> Any:
        return json.loads((await page_fetches(http, front, queueing, batch))[1])["result"].get("responses")

    (told,) = await eventually(responses)
    assert look(unb64(told["result"]["image"])).size == (64, 64)

    async with openai.AsyncOpenAI(base_url=f"{front.url}/v1", api_key="none", max_retries=0) as client:
        answer = await client.images.edit(
            image=png((9, 9, 9), (64, 64)), prompt="a cat", model="gpt-image-1", quality="low"
        )
        assert answer.data is not None
        assert look(unb64(str(answer.data[0].b64_json))).format == "PNG"

    status, body = await page_fetches(http, front, "/api/run", graphs.painted())
    assert (status, json.loads(body)["message"]) == (401, "Unauthorized"), "graphs of their own need the key"
    status, body = await page_fetches(http, engine, f"{run}/@cf/lykon/dreamshaper-8-lcm", small)
    assert (status, json.loads(body)["errors"][0]["code"]) == (401, 10000), (
        "the engine is as closed as before"
    )
