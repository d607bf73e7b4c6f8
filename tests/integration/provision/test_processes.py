"""Several processes on one disk, and processes that end before they are done."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agent.provision.lock import Lock, Seen, Silence
from tests.integration.cli.conftest import SECONDS, Command
from tests.integration.cli.test_serve import read_all
from tests.integration.provision.conftest import CONTENT, HALF, FileServer, Site, stall

MODEL = "checkpoints/model.safetensors"
PART = "checkpoints/.model.safetensors.part"

Run = Callable[..., Awaitable[Any]]


async def eventually(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0.02)  # another process gives no signal


def start(site: Site, command: Command) -> subprocess.Popen[str]:
    return command.start("provision", str(site.manifest), "--models", str(site.models))


async def start_until_half(site: Site, command: Command) -> subprocess.Popen[str]:
    """A run that stalls in the middle of its download."""
    site.server.misbehaviours[f"/{MODEL}"] = [stall]
    site.write(site.offer(MODEL))
    process = start(site, command)
    part = site.models / PART
    await eventually(lambda: part.exists() and part.stat().st_size == HALF)
    return process


async def test_killed_download_leaves_no_file_and_the_next_run_goes_on(
    site: Site, command: Command, site_command: Run, server: FileServer
):
    process = await start_until_half(site, command)
    process.kill()
    await asyncio.to_thread(process.communicate)
    assert list(site.files()) == [PART]
    server.requests.clear()
    done = await site_command()
    assert (done.returncode, done.stdout) == (0, f"fetched    {MODEL}\n"), done.stderr
    assert server.ranges() == [f"bytes={HALF}-"]
    assert site.files() == {MODEL: CONTENT}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_stopped_run_says_so_and_leaves_no_lock(
    site: Site, command: Command, server: FileServer, number: int
):
    process = await start_until_half(site, command)
    process.send_signal(number)
    out, err = await asyncio.to_thread(process.communicate, timeout=SECONDS)
    assert (process.returncode, out) == (1, "")
    assert err.splitlines()[-1] == "comfyui-agent: stopped; the next run goes on where this one ended."
    assert "Traceback" not in err
    assert not list((site.models / ".provision").glob("*.lock*"))


async def test_two_runs_at_once_download_each_model_once(
    site: Site, command: Command, site_command: Run, server: FileServer
):
    holding = asyncio.Event()

    async def hold(server: FileServer, request: Any, body: bytes) -> Any:
        await holding.wait()
        return await server.serve(request, body)

    server.misbehaviours[f"/{MODEL}"] = [hold]
    site.write(site.offer(MODEL), site.offer("vae/other.safetensors"))
    first, second = (asyncio.create_task(site_command()) for _ in range(2))
    await eventually(lambda: len(server.requests) >= 2)
    holding.set()
    done = [await first, await second]
    assert [run.returncode for run in done] == [0, 0], done
    assert sorted(request.path for request in server.requests) == [f"/{MODEL}", "/vae/other.safetensors"]
    said = sorted(line for run in done for line in run.stdout.splitlines())
    assert [line.split()[0] for line in said] == ["fetched", "fetched", "present", "present"]
    assert site.files() == {MODEL: CONTENT, "vae/other.safetensors": CONTENT}


async def test_second_process_takes_over_when_the_first_one_is_killed(
    site: Site, command: Command, site_command: Run
):
    process = await start_until_half(site, command)
    second = asyncio.create_task(site_command())
    process.kill()
    await asyncio.to_thread(process.communicate)
    assert (await second).returncode == 0
    assert site.files() == {MODEL: CONTENT}


async def test_lock_of_a_machine_that_is_gone_is_broken_after_its_silence(tmp_path: Path):
    file = tmp_path / "model.lock"
    theirs = {"id": "x", "process": ["other-machine", "boot", "pid:[1]", "1", "1"]}
    file.write_text(json.dumps(theirs))
    async with asyncio.timeout(SECONDS), Lock(file, stale_seconds=0.3) as lock:
        assert lock.is_held()
    assert list(tmp_path.iterdir()) == []


def test_lock_counts_as_left_behind_only_when_it_looks_the_same_for_too_long():
    silence = Silence(40)
    assert not silence.is_too_long(Seen(b"owner", 1), now=100)
    assert not silence.is_too_long(Seen(b"owner", 1), now=140)
    assert not silence.is_too_long(Seen(b"owner", 0), now=141)  # renewed, by a clock that went back
    assert not silence.is_too_long(Seen(b"other", 0), now=181)
    assert silence.is_too_long(Seen(b"other", 0), now=222)


async def test_lock_is_waited_for_until_it_is_given_back(tmp_path: Path):
    file = tmp_path / "model.lock"
    async with asyncio.timeout(SECONDS), Lock(file) as held:
        waiting = asyncio.create_task(Lock(file).__aenter__())
        await asyncio.sleep(0)
        assert held.is_held()
        assert not waiting.done()
        await held.__aexit__()
        taken = await waiting
        assert taken.is_held()
        await taken.__aexit__()
    assert list(tmp_path.iterdir()) == []


async def test_holder_that_was_taken_for_dead_notices_and_leaves_the_new_lock_alone(tmp_path: Path):
    file = tmp_path / "model.lock"
    async with asyncio.timeout(SECONDS), Lock(file) as old, Lock(file, stale_seconds=0) as new:
        assert (old.is_held(), new.is_held()) == (False, True)
        await old.__aexit__()
        assert new.is_held()


async def test_exit_code_is_1_when_something_failed_and_each_failure_is_a_line(site: Site, site_command: Run):
    site.write(site.offer(MODEL) | {"url": site.server.url("/nothing?secret=1")}, site.offer("vae/b", b"b"))
    done = await site_command()
    assert done.returncode == 1
    assert done.stdout == "fetched    vae/b\n"
    assert [line for line in done.stderr.splitlines() if line.startswith("failed")] == [
        f"failed     {MODEL}: 127.0.0.1:{site.server.port} answered 404 Not Found: correct `url`"
    ]
    assert "secret" not in done.stderr


async def test_wrong_manifest_is_exit_code_2_with_every_fault(site: Site, site_command: Run):
    site.manifest.write_text("models: [{url: ftp://x, path: ../x, sha256: 1}]")
    done = await site_command()
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 3
    assert all("models[0] (../x)" in line for line in done.stderr.splitlines())


@pytest.mark.parametrize(
    ("manifest", "word"),
    [("models: []", "--models"), ("custom_nodes: [a@1]\nroot: /tmp", "--comfyui")],
)
async def test_folder_that_nobody_names_is_exit_code_2(command: Command, tmp_path: Path, manifest, word):
    (tmp_path / "m.yaml").write_text(manifest)
    done = await asyncio.to_thread(command.run, "provision", str(tmp_path / "m.yaml"))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert word in done.stderr


async def test_manifest_without_models_says_that_there_is_nothing_to_do(site: Site, site_command: Run):
    site.manifest.write_text("models: []")
    done = await site_command()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "Nothing to do: the manifest names no model.\n"


async def test_models_folder_that_cannot_be_made_is_one_sentence(site: Site, site_command: Run):
    site.models.write_text("a file")
    site.write(site.offer(MODEL))
    done = await site_command()
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert str(site.models) in done.stderr


async def test_terminal_shows_bars_and_the_same_lines(site: Site, command: Command):
    site.write(site.offer(MODEL))
    leader, follower = pty.openpty()
    argv = ["provision", str(site.manifest), "--models", str(site.models)]
    process = await asyncio.to_thread(command.start, *argv, stderr=follower, stdout=follower)
    os.close(follower)
    shown = await asyncio.to_thread(read_all, leader)
    assert await asyncio.to_thread(process.wait, SECONDS) == 0
    assert f"fetched    {MODEL}" in shown


def test_start_does_not_load_what_only_a_terminal_or_the_service_needs():
    code = "import sys, agent.cli, agent.provision.run, agent.provision.display; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    loaded = set(ran.stdout.split())
    assert not loaded & {"aiohttp", "redis", "PIL", "structlog", "agent.settings"}
