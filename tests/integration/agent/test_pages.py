"""What browsers load: pages, and the files they consist of."""

from __future__ import annotations

import re

import pytest

from agent.api.pages import STATIC
from tests.integration.agent.service import Agent, MakeAgent

#: Addresses of namespaces and of licences are names, not requests.
NAMES = ("http://www.w3.org/", "https://www.w3.org/")


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_pages_and_their_files(agent: Agent, path: str) -> None:
    page = await agent.get(path)
    assert page.status == 200
    assert page.headers["Content-Type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    for name in re.findall(r'(?:src|href)="(static/[^"]+)"', page.body.decode()):
        file = await agent.get(f"/{name}")
        assert (file.status, file.headers["X-Content-Type-Options"]) == (200, "nosniff")
        unchanged = await agent.get(f"/{name}", headers={"If-None-Match": file.headers["ETag"]})
        assert (unchanged.status, unchanged.body) == (304, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/static/../settings.py",
        "/static/%2e%2e/settings.py",
        "/static/..%2fsettings.py",
        "/static//etc/passwd",
        "/static/swagger",
        "/static/%00",
        "/static/nothing.js",
    ],
)
async def test_files_beside_the_pages_are_not_there(agent: Agent, path: str) -> None:
    (await agent.get(path)).error(404, "NotFound")


async def test_pages_are_open_where_the_interface_is_not(make_agent: MakeAgent) -> None:
    agent = await make_agent(api_keys=["secret"])
    for path in ("/", "/docs", "/static/docs.js", "/static/page/app.js", "/openapi.json"):
        assert (await agent.get(path)).status == 200
    (await agent.get("/api/tasks")).error(401, "Unauthorized")


def test_page_asks_for_all_its_modules_at_once() -> None:
    """Not one after the other, as it would find them named in each other."""
    named = re.findall(r'"static/page/(\w+\.js)"', (STATIC / "index.html").read_text())
    assert sorted(named) == sorted(file.name for file in (STATIC / "page").glob("*.js"))


def test_our_own_files_name_no_other_server() -> None:
    for file in STATIC.rglob("*"):
        if file.suffix in (".html", ".js", ".css") and "swagger" not in file.parts:
            found = [
                url
                for url in re.findall(r"https?://[^\s\"'`)]+", file.read_text())
                if not url.startswith(NAMES)
            ]
            assert found == [], file
