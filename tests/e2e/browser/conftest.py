"""A real browser: Debian's chromium, driven by Playwright, with pages that may ask nobody but the agent."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from PIL import Image
from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    async_playwright,
    expect,
)

from tests.e2e.browser.service import SWITCHES, Service

CHROMIUM = shutil.which("chromium")
PATIENCE_MS = 20_000


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("needs chromium on the PATH (Debian: apt-get install chromium)")
    expect.set_options(timeout=PATIENCE_MS)
    async with async_playwright() as playwright:
        # Containers give /dev/shm 64 MB, and root gets no sandbox.
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        await browser.close()


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The agent on its simulator, as a process: what a person would start."""
    with Service(tmp_path_factory.mktemp("service"), *SWITCHES) as service:
        yield service


@pytest_asyncio.fixture(loop_scope="session")
async def context(browser: Browser, service: Service) -> AsyncIterator[BrowserContext]:
    """A fresh profile. A request to another origin fails the test."""
    strangers: list[str] = []

    def look(request: Request) -> None:
        if not request.url.startswith((service.url, "data:", "blob:")):
            strangers.append(request.url)

    context = await browser.new_context(base_url=service.url, locale="en-US")
    context.set_default_timeout(PATIENCE_MS)
    context.on("request", look)
    yield context
    await context.close()
    assert strangers == [], "the page asked somebody else"


@pytest_asyncio.fixture(loop_scope="session")
async def page(context: BrowserContext) -> AsyncIterator[Page]:
    """A tab. What its console reports as an error fails the test."""
    page = await context.new_page()
    errors = errors_of(page)
    yield page
    assert errors == []


def errors_of(page: Page) -> list[str]:
    """What the page's console reports as errors from now on. That the interface refused something, browsers report as
    well, and tests mean it to."""
    errors: list[str] = []

    def look(message: ConsoleMessage) -> None:
        is_answer = message.text.startswith("Failed to load") and "/api/" in message.location["url"]
        if message.type == "error" and not is_answer:
            errors.append(message.text)

    page.on("console", look)
    page.on("pageerror", lambda error: errors.append(str(error)))
    return errors


@pytest.fixture
def picture_file(tmp_path: Path) -> Path:
    """A photo to upload."""
    path = tmp_path / "photo.png"
    Image.new("RGB", (64, 48), (200, 30, 60)).save(path)
    return path
