"""A page of somebody's application that has no key of its own: OpenAI's client for JavaScript runs in it, and calls the
front, which alone knows the key of the engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Browser, Page

from tests.clients.programs import node_package
from tests.e2e.browser.conftest import PATIENCE_MS
from tests.e2e.browser.service import Service
from tests.ports import free_port
from tests.redis_server import RedisServer

ENGINE_KEY, CALLERS_KEY = "the-engines-key", "the-callers-key"

#: What the application does with the client, given the front's address.
APPLICATION = """
async base => {
    const { default: OpenAI, toFile } = await import("/openai/index.mjs")
    const client = new OpenAI({
        baseURL: `${base}/v1`, apiKey: "none", dangerouslyAllowBrowser: true, maxRetries: 0,
    })
    const asked = { model: "gpt-image-1", prompt: "a red fox", size: "256x256", quality: "low" }
    const decode = async data => {
        const picture = await createImageBitmap(await (await fetch(`data:;base64,${data}`)).blob())
        return [picture.width, picture.height]
    }
    const told = {}
    const drawn = await client.images.generate({ ...asked, n: 2 })
    told.drawn = await Promise.all(drawn.data.map(picture => decode(picture.b64_json)))
    const bytes = Uint8Array.from(atob(drawn.data[0].b64_json), letter => letter.charCodeAt(0))
    const photo = await toFile(bytes, "photo.png", { type: "image/png" })
    const edited = await client.images.edit({ ...asked, image: photo, prompt: "a lion" })
    told.edited = await decode(edited.data[0].b64_json)
    told.events = []
    for await (const event of await client.images.generate({ ...asked, stream: true, partial_images: 1 }))
        told.events.push(event.type)
    told.models = []
    for await (const model of client.models.list()) told.models.push(model.id)
    told.refused = await client.images.generate({ ...asked, size: "9x9" }).catch(error => [
        error.constructor.name, error.status, error.code,
    ])
    told.elsewhere = await fetch(`${base}/api/tasks`).then(answer => answer.status)
    return told
}
"""


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser) -> AsyncIterator[Page]:
    """A tab that shows the application's page, which comes from a server of its own, as its scripts do."""
    app = web.Application()
    app.router.add_get("/", _show)
    app.router.add_static("/openai", node_package("openai"))
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    page = await browser.new_page()
    page.set_default_timeout(PATIENCE_MS)
    await page.goto(f"http://127.0.0.1:{port}/")
    yield page
    await page.close()
    await runner.cleanup()


async def _show(_: web.Request) -> web.Response:
    return web.Response(text="<!doctype html><title>An application</title>", content_type="text/html")


@pytest.fixture
def front(page: Page, tmp_path: Path, redis_server: RedisServer, redis_prefix: str) -> Iterator[Service]:
    """A front that lets the page use OpenAI's API without a key, before an engine that wants one."""
    shared = {"REDIS_URL": redis_server.url, "AGENT_REDIS_PREFIX": redis_prefix}
    with ExitStack() as stack:

        def start(name: str, **settings: str) -> Service:
            (tmp_path / name).mkdir()
            fast = ("--preview-method", "auto", "--step-seconds", "0.02")
            return stack.enter_context(Service(tmp_path / name, *fast, **shared, **settings))

        engine = start("engine", AGENT_API_KEYS=ENGINE_KEY)
        yield start(
            "front",
            AGENT_ROLE="front",
            AGENT_ENGINE_URL=engine.url,
            AGENT_ENGINE_API_KEY=ENGINE_KEY,
            AGENT_API_KEYS=CALLERS_KEY,
            AGENT_KEYLESS_FACADES="openai",
            AGENT_CORS_ORIGINS=page.url.rstrip("/"),
        )


async def test_official_client_needs_no_key_in_a_page(page: Page, front: Service) -> None:
    answers: list[str] = []
    page.on("response", lambda response: answers.append(f"{response.url} {response.headers}"))
    told: dict[str, Any] = await page.evaluate(APPLICATION, front.url)
    assert told["drawn"] == [[256, 256]] * 2
    assert told["edited"] == [256, 256]
    assert told["events"][-1] == "image_generation.completed"
    assert "gpt-image-1" in told["models"]
    assert told["refused"][:2] == ["BadRequestError", 400]
    assert told["elsewhere"] == 401, "only what was opened is open"
    assert not any(key in answer for key in (ENGINE_KEY, CALLERS_KEY) for answer in answers)
