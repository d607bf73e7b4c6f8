"""ComfyUI's own editor in a browser: with the API key in its address, and on the port of `comfyui-agent forward`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
import requests
from playwright.async_api import Browser, Page, Route, expect

from agent.client import AgentClient
from agent.commands.forwarder import Forwarder
from tests.clients.programs import front_end
from tests.e2e.browser.conftest import PATIENCE_MS
from tests.e2e.browser.service import Service
from tests.integration.agent import graphs
from tests.integration.agent.service import eventually
from tests.ports import free_port

KEY = "sesame"

LOAD = "graph => window.app.loadApiJson(graph, 'from the test')"

#: What the pictures of a node are shown as: null while it shows none.
PICTURES = "id => window.app.graph.getNodeById(id)?.imgs?.map(image => [image.src, image.naturalWidth])"


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """An agent that lets ComfyUI's clients in, with a key, and an engine that has the editor."""
    folder = tmp_path_factory.mktemp("editor")
    switches = ("--front-end-root", str(front_end()), "--preview-method", "auto", "--step-seconds", "0.02")
    with Service(folder, *switches, AGENT_PASS_THROUGH="all", AGENT_API_KEYS=KEY) as service:
        # Without the dialog that greets newcomers, at a moment that nobody can tell; with the list of jobs.
        settings = {"Comfy.TutorialCompleted": True, "Comfy.InstalledVersion": "1.58.1"}
        settings["Comfy.Queue.History.Expanded"] = True
        answer = requests.post(
            f"{service.url}/comfyui/settings", json=settings, headers={"X-Api-Key": KEY}, timeout=20
        )
        answer.raise_for_status()
        yield service


@pytest_asyncio.fixture(loop_scope="session", params=["key in the address", "forward"])
async def address(request: pytest.FixtureRequest, opened: Service) -> AsyncIterator[str]:
    """Where a person opens the editor."""
    if request.param == "forward":
        async with Forwarder(opened.url, KEY) as forwarder:
            await forwarder.listen(port := free_port())
            yield f"http://127.0.0.1:{port}/"
    else:
        yield f"{opened.url}/comfyui/?key={KEY}"


@pytest_asyncio.fixture(loop_scope="session")
async def editor(browser: Browser, address: str) -> AsyncIterator[Page]:
    """The editor, once it has started. It may ask nobody but the agent: it would like to ask its makers for news."""
    own = urlsplit(address).netloc

    async def let_through(route: Route) -> None:
        if urlsplit(route.request.url).netloc == own:
            await route.continue_()
        else:
            await route.abort()

    context = await browser.new_context(locale="en-US")
    context.set_default_timeout(PATIENCE_MS)
    page = await context.new_page()
    await page.route("http*://**", let_through)
    await page.goto(address)
    await page.wait_for_function("window.app?.vueAppReady && window.app.graph")
    yield page
    await context.close()


async def test_editor_runs_a_workflow_and_shows_its_picture_and_its_job(
    editor: Page, opened: Service
) -> None:
    assert KEY not in editor.url
    await editor.evaluate(LOAD, graphs.painted(graphs.fresh_color(), size=(48, 48)))
    await editor.get_by_role("button", name="Run", exact=True).click()
    shown = await editor.wait_for_function(PICTURES, arg="2")
    ((source, width),) = await shown.json_value()
    assert urlsplit(source).netloc == urlsplit(editor.url).netloc
    assert width == 48
    await expect(editor.get_by_role("region", name="Jobs").get_by_role("img").first).to_be_visible()
    with AgentClient(opened.url, KEY) as agent:
        task = agent.task(await editor.evaluate("window.app.api.getHistory().then(jobs => jobs[0].id)"))
    assert task["state"] == "succeeded"


async def test_editor_stops_what_runs(editor: Page, opened: Service) -> None:
    await editor.evaluate(LOAD, graphs.stepping(steps=1000, seconds=0.1))
    await editor.get_by_role("button", name="Run", exact=True).click()

    async def running() -> list[str]:
        return await editor.evaluate(
            "window.app.api.getQueue().then(queue => queue.Running.map(job => job.id))"
        )

    (prompt_id,) = await eventually(running)
    await editor.get_by_role("button", name="Cancel current run").click()

    async def is_over() -> bool:
        ended = await editor.evaluate("window.app.api.getHistory().then(jobs => jobs.map(job => job.id))")
        return prompt_id in ended

    await eventually(is_over)
    with AgentClient(opened.url, KEY) as agent:
        assert agent.task(prompt_id)["state"] == "cancelled"
