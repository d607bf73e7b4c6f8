"""Models arrive whole and right, whatever the connection does."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from tests.integration.provision.conftest import (
    CONTENT,
    HALF,
    IMPATIENT,
    FileServer,
    Site,
    busy,
    drop,
    ignore_range,
    stall,
)

MODEL = "checkpoints/model.safetensors"


async def test_models_are_put_in_place_and_a_second_run_asks_nobody(site: Site, server: FileServer):
    entries = [site.offer(MODEL), site.offer("vae/other.safetensors", b"small")]
    assert (await site.run(*entries))[0]
    assert site.files() == {MODEL: CONTENT, "vae/other.safetensors": b"small"}
    server.requests.clear()
    well, lines = await site.run()
    assert well
    assert lines.said == [("present", MODEL), ("present", "vae/other.safetensors")]
    assert server.requests == []


async def test_progress_is_told_up_to_the_whole_file(site: Site):
    _, lines = await site.run(site.offer(MODEL))
    assert lines.told[0] == (0, len(CONTENT))
    assert lines.told[-1] == (len(CONTENT), len(CONTENT))


async def test_dropped_connection_is_resumed_where_it_broke(site: Site, server: FileServer):
    server.misbehaviours[f"/{MODEL}"] = [drop]
    well, _ = await site.run(site.offer(MODEL))
    assert well
    assert site.files() == {MODEL: CONTENT}
    assert server.ranges() == [None, f"bytes={HALF}-"]
    assert server.requests[1].headers["If-Range"] == '"v1"'


async def test_server_that_ignores_ranges_is_read_from_the_start(site: Site, server: FileServer):
    server.misbehaviours[f"/{MODEL}"] = [drop, ignore_range]
    well, _ = await site.run(site.offer(MODEL))
    assert well
    assert site.files() == {MODEL: CONTENT}


async def test_file_that_changed_between_two_tries_is_read_from_the_start(site: Site, server: FileServer):
    entry = site.offer(MODEL)

    async def drop_old(server: FileServer, request: web.Request, body: bytes) -> web.StreamResponse:
        answer = await drop(server, request, bytes(len(body)))
        server.etags[f"/{MODEL}"] = '"v2"'
        return answer

    server.misbehaviours[f"/{MODEL}"] = [drop_old]
    well, _ = await site.run(entry)
    assert well
    assert site.files() == {MODEL: CONTENT}


async def test_pieces_of_two_versions_that_the_server_does_not_tell_apart_are_noticed(
    site: Site, server: FileServer
):
    async def drop_other(server: FileServer, request: web.Request, body: bytes) -> web.StreamResponse:
        return await drop(server, request, bytes(len(body)))

    server.misbehaviours[f"/{MODEL}"] = [drop_other]
    well, _ = await site.run(site.offer(MODEL))
    assert well
    assert server.ranges() == [None, f"bytes={HALF}-", None]
    assert site.files() == {MODEL: CONTENT}


async def test_server_that_is_busy_is_asked_again(site: Site, server: FileServer):
    server.misbehaviours[f"/{MODEL}"] = [busy]
    well, _ = await site.run(site.offer(MODEL))
    assert well
    assert len(server.requests) == 2


async def test_download_goes_on_as_long_as_it_makes_progress(site: Site, server: FileServer):
    async def drop_soon(server: FileServer, request: web.Request, body: bytes) -> web.StreamResponse:
        start = int((request.headers.get("Range") or "bytes=0-")[6:-1])
        answer = await server.serve(request, body, until=start + 2**20)
        request.transport.close()
        return answer

    server.misbehaviours[f"/{MODEL}"] = [drop_soon] * 5
    well, _ = await site.run(site.offer(MODEL), patience=replace(IMPATIENT, tries=2))
    assert well
    assert site.files() == {MODEL: CONTENT}


async def test_connection_that_stalls_is_given_up_and_what_came_is_kept(site: Site, server: FileServer):
    server.misbehaviours[f"/{MODEL}"] = [stall, busy, busy]
    entry = site.offer(MODEL)
    well, lines = await site.run(entry, patience=replace(IMPATIENT, stall_seconds=2))
    assert not well
    assert "127.0.0.1" in lines.failures[MODEL]
    ((name, kept),) = site.files().items()
    assert name == "checkpoints/.model.safetensors.part"
    assert kept == CONTENT[: len(kept)]
    server.requests.clear()
    server.misbehaviours.clear()
    well, _ = await site.run(entry)
    assert well
    assert server.ranges() == [f"bytes={len(kept)}-"]
    assert site.files() == {MODEL: CONTENT}


async def test_wrong_content_is_deleted_and_both_hashes_are_told(site: Site, server: FileServer):
    entry = site.offer(MODEL) | {"sha256": "0" * 64}
    well, lines = await site.run(entry, site.offer("vae/other.safetensors", b"small"))
    assert not well
    assert "0" * 64 in lines.failures[MODEL]
    assert hashlib.sha256(CONTENT).hexdigest() in lines.failures[MODEL]
    assert site.files() == {"vae/other.safetensors": b"small"}


@pytest.mark.parametrize(("status", "word"), [(404, "url"), (401, "tokens"), (403, "tokens"), (418, "418")])
async def test_refusal_is_told_with_the_remedy_and_without_the_query(
    site: Site, server: FileServer, status: int, word: str
):
    async def refuse(server: FileServer, request: web.Request, body: bytes) -> web.StreamResponse:
        return web.Response(status=status)

    server.misbehaviours[f"/{MODEL}"] = [refuse]
    entry = site.offer(MODEL)
    well, lines = await site.run(entry | {"url": entry["url"] + "?signature=SECRET"})
    assert not well
    assert str(status) in lines.failures[MODEL]
    assert word in lines.failures[MODEL]
    assert "SECRET" not in lines.failures[MODEL]
    assert len(server.requests) == 1


async def test_nobody_at_the_other_end_is_a_failure_and_the_rest_is_done(site: Site, server: FileServer):
    dead = site.offer(MODEL) | {"url": "http://127.0.0.1:1/model"}
    well, lines = await site.run(dead, site.offer("vae/other.safetensors", b"small"))
    assert not well
    assert "cannot be reached" in lines.failures[MODEL]
    assert site.files() == {"vae/other.safetensors": b"small"}


async def test_token_goes_to_its_host_and_not_to_where_it_redirects(site: Site, server: FileServer):
    async def redirect(server: FileServer, request: web.Request, body: bytes) -> web.StreamResponse:
        raise web.HTTPFound(server.url("/elsewhere?signature=1", host="localhost"))

    site.environ["HF_TOKEN"] = "TOKEN"
    server.misbehaviours[f"/{MODEL}"] = [redirect]
    server.files["/elsewhere"] = CONTENT
    tokens = {f"127.0.0.1:{server.port}": "HF_TOKEN"}
    well, _ = await site.run(site.offer(MODEL), manifest={"tokens": tokens})
    assert well
    sent = [(request.host.split(":")[0], request.headers.get("Authorization")) for request in server.requests]
    assert sent == [("127.0.0.1", "Bearer TOKEN"), ("localhost", None)]


async def test_token_is_sent_again_within_its_host(site: Site, server: FileServer):
    async def redirect(server: FileServer, request: web.Request, body: bytes) -> web.StreamResponse:
        raise web.HTTPFound("/elsewhere")

    site.environ["HF_TOKEN"] = "TOKEN"
    server.misbehaviours[f"/{MODEL}"] = [redirect]
    server.files["/elsewhere"] = CONTENT
    well, _ = await site.run(site.offer(MODEL), manifest={"tokens": {f"127.0.0.1:{server.port}": "HF_TOKEN"}})
    assert well
    assert [request.headers.get("Authorization") for request in server.requests] == ["Bearer TOKEN"] * 2


async def test_token_that_is_not_set_is_told_when_it_is_needed(site: Site, server: FileServer):
    async def refuse(server: FileServer, request: web.Request, body: bytes) -> web.StreamResponse:
        return web.Response(status=401)

    server.misbehaviours[f"/{MODEL}"] = [refuse]
    tokens = {f"127.0.0.1:{server.port}": "HF_TOKEN"}
    _, lines = await site.run(site.offer(MODEL), manifest={"tokens": tokens})
    assert "not set" in lines.failures[MODEL]


@pytest.mark.parametrize(("token", "is_well"), [("TOKEN\n", True), ("TO\nKEN", False), ("TÖKEN", False)])
async def test_token_is_trimmed_and_one_that_is_none_is_told_without_itself(
    site: Site, server: FileServer, token: str, is_well: bool
):
    site.environ["HF_TOKEN"] = token
    tokens = {f"127.0.0.1:{server.port}": "HF_TOKEN"}
    well, lines = await site.run(site.offer(MODEL), manifest={"tokens": tokens})
    assert well is is_well
    if not is_well:
        assert "characters that no token can have" in lines.failures[MODEL]
        assert token not in lines.failures[MODEL]


async def test_endless_redirects_end(site: Site, server: FileServer):
    async def redirect(server: FileServer, request: web.Request, body: bytes) -> web.StreamResponse:
        raise web.HTTPFound(f"/{MODEL}")

    server.misbehaviours[f"/{MODEL}"] = [redirect] * 20
    well, lines = await site.run(site.offer(MODEL))
    assert not well
    assert "redirects" in lines.failures[MODEL]


async def test_size_that_differs_from_the_manifest_is_refused_before_the_download(site: Site):
    well, lines = await site.run(site.offer(MODEL, bytes=7))
    assert not well
    assert "the manifest says 7" in lines.failures[MODEL]


async def test_download_that_does_not_fit_on_the_disk_is_refused(site: Site, server: FileServer):
    async def huge(server: FileServer, request: web.Request, body: bytes) -> web.StreamResponse:
        answer = web.StreamResponse()
        answer.content_length = 2**60
        await answer.prepare(request)
        await server.ended.wait()
        return answer

    server.misbehaviours[f"/{MODEL}"] = [huge]
    well, lines = await site.run(site.offer(MODEL))
    assert not well
    assert "are free on" in lines.failures[MODEL]


async def test_file_that_was_put_there_by_hand_is_taken_as_it_is(site: Site, server: FileServer):
    (site.models / "checkpoints").mkdir(parents=True)
    (site.models / MODEL).write_bytes(CONTENT)
    well, lines = await site.run(site.offer(MODEL))
    assert (well, lines.said, server.requests) == (True, [("adopted", MODEL)], [])
    _, lines = await site.run()
    assert lines.said == [("present", MODEL)]


async def test_new_version_replaces_the_old_one_only_when_it_is_whole(site: Site, server: FileServer):
    await site.run(site.offer(MODEL, b"old"))
    entry = site.offer(MODEL)
    server.misbehaviours[f"/{MODEL}"] = [drop, busy, busy]
    well, _ = await site.run(entry)
    assert not well
    assert site.files()[MODEL] == b"old"
    well, _ = await site.run(entry)
    assert well
    assert site.files() == {MODEL: CONTENT}


async def test_damage_that_time_and_size_do_not_show_is_found_by_verify_and_repaired(site: Site):
    import os  # noqa: PLC0415

    entry = site.offer(MODEL)
    await site.run(entry)
    before = (site.models / MODEL).stat()
    (site.models / MODEL).write_bytes(bytes(len(CONTENT)))
    os.utime(site.models / MODEL, ns=(before.st_atime_ns, before.st_mtime_ns))
    _, lines = await site.run()
    assert lines.said == [("present", MODEL)]
    well, lines = await site.run(verify=True)
    assert well
    assert lines.said == [("damaged", MODEL), ("fetched", MODEL)]
    assert site.files() == {MODEL: CONTENT}


async def test_dry_run_changes_nothing_and_asks_nobody(site: Site, server: FileServer):
    well, lines = await site.run(site.offer(MODEL), dry_run=True)
    assert (well, lines.said, server.requests) == (True, [("fetch", MODEL)], [])
    assert not site.models.exists()


async def test_link_that_leads_out_of_the_models_folder_is_refused(
    site: Site, tmp_path: Path, server: FileServer
):
    (outside := tmp_path / "outside").mkdir()
    site.models.mkdir()
    (site.models / "checkpoints").symlink_to(outside)
    well, lines = await site.run(site.offer(MODEL))
    assert not well
    assert "symbolic link" in lines.failures[MODEL]
    assert (list(outside.iterdir()), server.requests) == ([], [])


async def test_cancelled_run_keeps_what_came_and_leaves_no_lock(site: Site, server: FileServer):
    server.misbehaviours[f"/{MODEL}"] = [stall]
    entry = site.offer(MODEL)
    part = site.models / "checkpoints/.model.safetensors.part"
    run = asyncio.create_task(site.run(entry))
    async with asyncio.timeout(30):
        while not part.exists() or part.stat().st_size < HALF:
            await asyncio.sleep(0.02)  # a file calls nobody
    run.cancel()
    await asyncio.wait([run])
    assert not list((site.models / ".provision").glob("*.lock*"))
    server.requests.clear()
    assert (await site.run())[0]
    assert server.ranges() == [f"bytes={HALF}-"]
