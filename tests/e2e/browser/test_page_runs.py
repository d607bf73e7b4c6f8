"""The page at /, and runs that take a while: progress, cancel, reload, broken connections, keys, history."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from urllib.request import urlopen

from playwright.async_api import Browser, Page, Route, expect

from tests.e2e.browser.conftest import errors_of
from tests.e2e.browser.proxy import Proxy
from tests.e2e.browser.service import SWITCHES, Service
from tests.e2e.browser.studio import Studio
from tests.object_store import Bucket
from tests.redis_server import RedisServer

#: Steps of a sampler that nobody waits for.
LONG = "150"


async def begin(studio: Studio, steps: str, count: int = 1) -> None:
    await studio.open("text-to-image")
    await studio.field("Steps").fill(steps)
    await studio.make(count)


async def test_progress_moves_and_a_run_is_cancelled(page: Page) -> None:
    studio = Studio(page)
    await begin(studio, LONG, 2)
    await studio.expect_progress()
    await expect(page.get_by_text(re.compile(r"Sampler · \d+/150"))).to_be_visible()
    await expect(page.get_by_text(re.compile("Waiting")).first).to_be_visible()
    for index in (1, 0):
        await studio.tiles.nth(index).get_by_role("button", name="Cancel").click()
        await expect(studio.tiles.nth(index)).to_contain_text("Cancelled")


async def test_a_run_at_work_is_never_shown_as_done(page: Page) -> None:
    """All nodes are over, the files are not stored yet."""
    studio = Studio(page)

    async def hold(route: Route) -> None:
        last = (await (await route.fetch()).text()).split("data: ")[-1].split("\n\n")[0]
        record = {**json.loads(last), "state": "running", "progress": 1}
        await route.fulfill(content_type="text/event-stream", body=f"data: {json.dumps(record)}\n\n")

    await page.route("**/api/tasks/*/events", hold)
    await begin(studio, "1")
    await expect(studio.tiles.locator(".percent")).to_have_text("99%")
    await page.unroute("**/api/tasks/*/events")
    await studio.expect_pictures(1)


async def test_a_run_is_found_again_after_a_reload(page: Page) -> None:
    studio = Studio(page)
    await begin(studio, LONG)
    await studio.expect_progress()
    await page.reload()
    await studio.expect_progress()
    await expect(studio.field("Steps")).to_have_value(LONG)
    await page.get_by_role("button", name="Cancel").click()
    await expect(studio.tiles).to_contain_text("Cancelled")


async def test_a_dropped_connection_loses_nothing(browser: Browser, service: Service) -> None:
    async with Proxy(service.url) as proxy:
        context = await browser.new_context(base_url=proxy.url, locale="en-US")
        page = await context.new_page()
        studio = Studio(page)
        await begin(studio, "5")
        task_id = await page.locator(".tile").get_attribute("data-run")
        await expect(page.locator('.tile[data-state="running"]')).to_be_visible()
        await proxy.cut()
        record = await asyncio.to_thread(end_of, service, str(task_id))
        assert record["state"] == "succeeded"
        await expect(studio.pictures).to_have_count(0)
        proxy.restore()
        await studio.expect_pictures(1)
        await context.close()


def end_of(service: Service, task_id: str) -> dict[str, object]:
    """The final record, from the agent itself: the last of its events."""
    with urlopen(f"{service.url}/api/tasks/{task_id}/events", timeout=60) as events:
        lines = [line for line in events.read().decode().splitlines() if line.startswith("data: ")]
    record: dict[str, object] = json.loads(lines[-1].removeprefix("data: "))
    return record


async def test_a_request_whose_answer_is_lost_is_sent_again(page: Page) -> None:
    ids: list[str | None] = []

    async def lose_the_first(route: Route) -> None:
        ids.append(await route.request.header_value("task-id"))
        if len(ids) > 1:
            await route.fallback()
            return
        await route.fetch()
        await route.abort()

    studio = Studio(page)
    await page.route("**/run", lose_the_first)
    await begin(studio, "1")
    await studio.expect_pictures(1)
    assert len(ids) == 2
    assert len(set(ids)) == 1


async def test_history_is_kept_repeated_and_cleared(page: Page) -> None:
    studio = Studio(page)
    await studio.open("text-to-image")
    await studio.field("Prompt").fill("a lighthouse at dusk")
    await studio.field("Steps").fill("1")
    await studio.make(1)
    before = await studio.expect_pictures(1)
    await page.get_by_role("link", name="Your pictures").click()
    await page.reload()
    assert await studio.expect_pictures(1) == before
    await page.get_by_role("button", name="Again with these settings").first.click()
    await expect(studio.field("Prompt")).to_have_value("a lighthouse at dusk")
    await page.get_by_role("button", name="Clear history").click()
    await page.locator("#sure").get_by_role("button", name="Clear history").click()
    await expect(page.get_by_text("Nothing here yet")).to_be_visible()
    await page.reload()
    await expect(page.get_by_text("Nothing here yet")).to_be_visible()


async def test_what_the_server_has_forgotten_is_shown_as_gone(page: Page) -> None:
    studio = Studio(page)
    await begin(studio, "1")
    await studio.expect_pictures(1)
    gone = {"message": "TaskNotFound", "error": {"detail": "No task has this id.", "transient": False}}
    await page.route("**/outputs/*", lambda route: route.fulfill(status=404, json=gone))
    await page.reload()
    await expect(studio.tiles).to_contain_text("No longer on the server")


async def test_a_busy_platform_is_waited_for(page: Page) -> None:
    """Function Compute answers 429 to everything while all its slots are taken."""
    refusals = iter(range(2))
    studio = Studio(page)

    async def refuse_twice(route: Route) -> None:
        if next(refusals, None) is None:
            await route.fallback()
        else:
            await route.fulfill(status=429, body="busy")

    await page.route("**/events", refuse_twice)
    await begin(studio, "1")
    await studio.expect_pictures(1)


async def test_a_key_is_asked_for_once_and_kept_in_the_tab(browser: Browser, tmp_path: Path) -> None:
    with Service(tmp_path, AGENT_API_KEYS="correct-horse") as service:
        context = await browser.new_context(base_url=service.url, locale="en-US")
        page = await context.new_page()
        studio = Studio(page)
        await page.goto("/#/text-to-image")
        await page.get_by_role("textbox", name="API key").fill("wrong")
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("The server does not accept this key.")).to_be_visible()
        await page.get_by_role("textbox", name="API key").fill("correct-horse")
        await page.get_by_role("button", name="Continue").click()
        await studio.field("Steps").fill("1")
        await studio.make(2)
        await studio.expect_pictures(2)
        kept = await page.evaluate("() => [JSON.stringify(localStorage), JSON.stringify(sessionStorage)]")
        assert ["correct-horse" in each for each in kept] == [False, True]
        await context.close()


async def test_behind_a_gateway_the_answer_comes_with_the_result(browser: Browser, tmp_path: Path) -> None:
    """To leave before it cancels the run: the page sends it again."""
    with Service(tmp_path, *SWITCHES, AGENT_INVOCATION="gateway") as service:
        async with Proxy(service.url) as proxy:
            await leave_and_come_back(browser, proxy)


async def leave_and_come_back(browser: Browser, proxy: Proxy) -> None:
    context = await browser.new_context(base_url=proxy.url, locale="en-US")
    page = await context.new_page()
    studio = Studio(page)
    await begin(studio, LONG)
    await studio.expect_progress()
    await page.reload()
    await studio.expect_progress()
    await proxy.cut()
    await expect(studio.tiles).to_contain_text("The server cannot be reached")
    proxy.restore()
    await studio.expect_progress()
    await page.get_by_role("button", name="Cancel").click()
    await expect(studio.tiles).to_contain_text("Cancelled")
    await studio.field("Steps").fill("1")
    await page.locator(".run").click()
    await studio.expect_pictures(1)
    await context.close()


async def test_a_page_without_randomness_functions_of_secure_contexts_works(page: Page) -> None:
    """http://192.168.1.2:9000 is no secure context, and has no crypto.randomUUID."""
    await page.add_init_script("delete Crypto.prototype.randomUUID")
    studio = Studio(page)
    await begin(studio, "1")
    await studio.expect_pictures(1)


async def test_previews_of_a_run_at_work_are_shown(page: Page) -> None:
    studio = Studio(page)
    await begin(studio, LONG)
    preview = page.locator("img.preview")
    await expect(preview).to_be_visible()
    first = await preview.get_attribute("src")
    await expect(preview).not_to_have_attribute("src", str(first))
    await page.get_by_role("button", name="Cancel").click()
    await expect(studio.tiles).to_contain_text("Cancelled")


async def test_pictures_in_an_object_store_are_shown_from_there(
    browser: Browser, bucket: Bucket, tmp_path: Path
) -> None:
    settings = {f"AGENT_{name.upper()}": str(value) for name, value in bucket.settings().items()}
    with Service(tmp_path, AGENT_OUTPUTS="url", **settings) as service:
        context = await browser.new_context(base_url=service.url, locale="en-US")
        page = await context.new_page()
        errors = errors_of(page)
        studio = Studio(page)
        await begin(studio, "1", 2)
        await expect(studio.pictures).to_have_count(2)
        await expect(studio.pictures.first).to_have_attribute("src", re.compile(f"^{bucket.server.url}/"))
        await expect(studio.pictures.first).to_have_js_property("naturalWidth", 512)
        await page.get_by_role("button", name="Open picture").first.click()
        await expect(page.locator("#viewer")).to_contain_text(re.compile("512 . 512"))
        assert errors == []
        await context.close()


async def test_the_page_works_behind_a_path(page: Page, service: Service) -> None:
    """A gateway may put the agent under a path of its own."""

    async def strip(route: Route) -> None:
        answer = await route.fetch(url=route.request.url.replace("/tools/comfy/", "/"))
        await route.fulfill(response=answer)

    await page.route("**/tools/comfy/**", strip)
    outside: list[str] = []
    page.on(
        "request", lambda request: outside.append(request.url) if "/tools/comfy/" not in request.url else None
    )
    studio = Studio(page)
    await page.goto(f"{service.url}/tools/comfy/#/text-to-image")
    await studio.field("Steps").fill("1")
    await studio.make(1)
    await studio.expect_pictures(1)
    assert [url for url in outside if not url.startswith(("blob:", "data:"))] == []


async def test_the_page_works_through_a_front(
    browser: Browser, redis_server: RedisServer, redis_prefix: str, tmp_path: Path
) -> None:
    shared = {"REDIS_URL": redis_server.url, "AGENT_REDIS_PREFIX": redis_prefix}
    folders = [tmp_path / name for name in ("engine", "front")]
    for folder in folders:
        folder.mkdir()
    with (
        Service(folders[0], *SWITCHES, **shared) as engine,
        Service(folders[1], AGENT_ROLE="front", AGENT_ENGINE_URL=engine.url, **shared) as front,
    ):
        context = await browser.new_context(base_url=front.url, locale="en-US")
        page = await context.new_page()
        studio = Studio(page)
        await begin(studio, LONG)
        await studio.expect_progress()
        await expect(page.locator("img.preview")).to_be_visible()
        await page.get_by_role("button", name="Cancel").click()
        await expect(studio.tiles).to_contain_text("Cancelled")
        await studio.field("Steps").fill("1")
        await page.locator(".run").click()
        await studio.expect_pictures(1)
        await context.close()
