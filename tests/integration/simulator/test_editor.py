"""What ComfyUI's editor asks for: its files, its settings, the workflows that people save."""

from __future__ import annotations

import json
from pathlib import Path

from tests.integration.simulator.conftest import Start
from tests.integration.simulator.process import client


async def test_front_end_is_served_from_its_folder(start: Start, tmp_path: Path) -> None:
    root = tmp_path / "front-end"
    (root / "extensions" / "core").mkdir(parents=True)
    (root / "index.html").write_text("<title>Editor</title>")
    (root / "extensions" / "core" / "one.js").write_text("export {}")
    (tmp_path / "secret.txt").write_text("not for the browser")
    async with client(await start("--front-end-root", str(root))) as http:
        async with http.get("/") as answer:
            assert (await answer.text(), answer.content_type) == ("<title>Editor</title>", "text/html")
            assert answer.headers["Cache-Control"] == "no-cache"
        async with http.get("/extensions") as answer:
            assert await answer.json() == ["/extensions/core/one.js"]
        async with http.get("/extensions/core/one.js") as answer:
            assert (answer.status, await answer.text()) == (200, "export {}")
            assert answer.content_type.endswith("/javascript")
        for path in ("/nothing.js", "/%2e%2e/secret.txt", "/extensions"):
            async with http.get(f"{path}/x") as answer:
                assert answer.status == 404
        async with http.get("/%2e%2e%2fsecret.txt") as answer:
            assert answer.status == 404


async def test_without_one_there_is_a_page_that_says_so(start: Start) -> None:
    async with client(await start()) as http:
        async with http.get("/") as answer:
            assert "simulator" in await answer.text()
        async with http.get("/extensions") as answer:
            assert await answer.json() == []


async def test_front_end_that_is_not_there_ends_the_start(start: Start, tmp_path: Path) -> None:
    one = await start("--front-end-root", str(tmp_path / "nowhere"), wait=False)
    assert await one.wait() == 2


async def test_settings_and_files_are_kept_over_a_restart(start: Start) -> None:
    first = await start()
    async with client(first) as http:
        for path, body in (("/settings", b'{"a": 1, "b": [2]}'), ("/api/settings/b", b"null")):
            async with http.post(path, data=body) as answer:
                assert (answer.status, await answer.read()) == (200, b"")
        graph = json.dumps({"nodes": []}).encode()
        async with http.post("/userdata/workflows%2Fcat.json?overwrite=false", data=graph) as answer:
            assert await answer.json() == "workflows/cat.json"
        async with http.post("/userdata/workflows%2Fcat.json?overwrite=false", data=b"{}") as answer:
            assert answer.status == 409
    await first.stop()
    async with client(await start()) as http:
        async with http.get("/settings") as answer:
            assert await answer.json() == {"a": 1, "b": None}
        async with http.get("/settings/a") as answer:
            assert await answer.json() == 1
        async with http.get("/userdata?dir=workflows&recurse=true&split=false&full_info=true") as answer:
            (info,) = await answer.json()
            assert (info["path"], info["size"]) == ("cat.json", len(graph))
        move = "/userdata/workflows%2Fcat.json/move/workflows%2Fdog.json"
        async with http.post(move) as answer:
            assert await answer.json() == "workflows/dog.json"
        async with http.get("/userdata/workflows%2Fdog.json") as answer:
            assert await answer.read() == graph
        async with http.delete("/userdata/workflows%2Fdog.json") as answer:
            assert answer.status == 204
        for method, path, status in (
            ("GET", "/userdata", 400),
            ("GET", "/userdata?dir=nowhere", 404),
            ("GET", "/userdata?dir=..%2F..", 403),
            ("GET", "/userdata/workflows%2Fdog.json", 404),
            ("GET", "/userdata/..%2F..%2Finput", 403),
            ("POST", "/userdata/..%2Fx.json", 403),
            ("DELETE", "/userdata/nothing.json", 404),
        ):
            async with http.request(method, path, data=b"{}") as answer:
                assert answer.status == status, (method, path)
