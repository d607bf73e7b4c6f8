"""/docs: the HTTP interface to read and to try, from files of our own."""

from __future__ import annotations

import re

from playwright.async_api import Page, expect


async def test_docs_show_every_route_and_ask_nobody_else(page: Page) -> None:
    await page.goto("/docs")
    await expect(page.get_by_role("heading", name=re.compile("comfyui-agent"))).to_be_visible()
    await expect(page.locator("[data-path='/api/run']")).to_be_visible()
    await expect(page.locator("[data-path='/api/tasks/{id}/events']")).to_be_visible()


async def test_a_route_can_be_tried(page: Page) -> None:
    await page.goto("/docs")
    operation = page.locator("#operations-service-alive")
    await operation.click()
    async with page.expect_response("**/healthz") as answer:
        await operation.get_by_role("button", name="Execute").click()
    assert (await answer.value).status == 200
    await expect(operation.get_by_text('"ok"').first).to_be_visible()
