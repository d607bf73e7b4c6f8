"""`comfyui-agent doctor` against real faults: it names each, says what to do, and tells no secret."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from agent.doctor import examine as examination
from agent.doctor.examine import examine, exit_code
from agent.doctor.finding import Finding, Level
from agent.doctor.stores import judge_clock
from tests.integration.agent.service import settings_of
from tests.integration.cli.conftest import Command, serving
from tests.object_store import Bucket
from tests.ports import free_port
from tests.redis_server import RedisServer

SECRET = "sEcReT-0123456789"


async def findings_of(*, write: bool = False, **settings: Any) -> list[Finding]:
    ports = {"port": free_port(), "comfyui_port": free_port()}
    return await examine(settings_of(**{**ports, **settings}), write=write)


def about(findings: list[Finding], what: str) -> Finding:
    """The one finding about this; with a remedy exactly where something is to be done."""
    (found,) = [finding for finding in findings if finding.about == what]
    assert bool(found.remedy) == (found.level is not Level.OK), found
    return found


def problems(findings: list[Finding]) -> list[str]:
    return [finding.about for finding in findings if finding.level is Level.PROBLEM]


async def test_healthy_machine_has_no_problem(redis_server: RedisServer) -> None:
    findings = await findings_of(redis_url=redis_server.url, api_keys=["k" * 32])
    assert problems(findings) == []
    assert exit_code(findings) == 0
    assert about(findings, "task store").text == "Redis answers."
    assert about(findings, "clock").level is Level.OK
    assert about(findings, "engine").level is Level.ADVICE  # the simulator
    assert about(findings, "api keys").level is Level.OK


async def test_dead_redis() -> None:
    port = free_port()
    findings = await findings_of(redis_url=f"redis://127.0.0.1:{port}/0")
    assert problems(findings) == ["task store"]
    assert exit_code(findings) == 1
    assert str(port) in about(findings, "task store").text, "the operator needs to know"
    assert "REDIS_URL" in about(findings, "task store").remedy


async def test_redis_that_throws_tasks_away(private_redis: RedisServer) -> None:
    with Redis.from_url(private_redis.url) as redis:
        redis.config_set("maxmemory-policy", "allkeys-lru")
    found = about(await findings_of(redis_url=private_redis.url), "task store")
    assert found.level is Level.ADVICE
    assert "allkeys-lru" in found.text


async def test_redis_that_takes_no_writes(private_redis: RedisServer) -> None:
    with Redis.from_url(private_redis.url) as redis:
        redis.replicaof("127.0.0.1", free_port())
    found = about(await findings_of(redis_url=private_redis.url), "task store")
    assert (found.level, "replica" in found.text) == (Level.PROBLEM, True)


async def test_store_folder_that_is_missing(tmp_path: Path) -> None:
    findings = await findings_of(store_dir=str(tmp_path / "gone"))
    assert problems(findings) == ["task store"]
    assert "AGENT_STORE_DIR" in about(findings, "task store").text
    assert problems(await findings_of(store_dir=str(tmp_path))) == []


async def test_wrong_root(tmp_path: Path) -> None:
    findings = await findings_of(comfyui_root=str(tmp_path / "gone"))
    assert problems(findings) == ["engine"]
    assert "main.py" in about(findings, "engine").text


async def test_python_without_what_comfyui_needs(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("")
    findings = await findings_of(
        comfyui_root=str(tmp_path), comfyui_python=sys.executable, comfyui_args="--cpu"
    )
    assert problems(findings) == ["engine"]
    assert "torch" in about(findings, "engine").text
    assert "requirements.txt" in about(findings, "engine").remedy


@pytest.mark.parametrize("python", ["no-such-python", "/bin/true"])
async def test_python_that_is_none(tmp_path: Path, python: str) -> None:
    (tmp_path / "main.py").write_text("")
    findings = await findings_of(comfyui_root=str(tmp_path), comfyui_python=python, comfyui_args="--cpu")
    assert problems(findings) == ["engine"]
    assert "COMFYUI_PYTHON" in about(findings, "engine").text + about(findings, "engine").remedy


async def test_engine_port_that_a_stranger_has() -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        findings = await findings_of(comfyui_port=stranger.getsockname()[1])
    assert problems(findings) == ["engine port"]
    assert "COMFYUI_PORT" in about(findings, "engine port").remedy


async def test_own_port_that_a_stranger_has(redis_server: RedisServer) -> None:
    findings = await findings_of(host="127.0.0.1", port=redis_server.port)
    assert problems(findings) == ["port"]
    assert "AGENT_PORT" in about(findings, "port").remedy


async def test_attached_engine_that_does_not_answer() -> None:
    findings = await findings_of(comfyui_url=f"http://127.0.0.1:{free_port()}")
    assert problems(findings) == ["engine"]
    assert "COMFYUI_URL" in about(findings, "engine").text


async def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "output").symlink_to("/proc")  # even the superuser makes no file there
    findings = await findings_of(comfyui_args=f"--base-directory {tmp_path}")
    assert problems(findings) == ["folders"]
    assert "cannot be written" in about(findings, "folders").text


async def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.doctor.folders.LEAST_BYTES", 2**62)
    findings = await findings_of(comfyui_args=f"--base-directory {tmp_path}")
    assert set(problems(findings)) == {"disk"}


async def test_files_that_settings_name_and_that_are_not_there(tmp_path: Path) -> None:
    findings = await findings_of(
        workflows_dir=str(tmp_path / "gone"),
        provision=str(tmp_path / "gone.yaml"),
        warm_up=str(tmp_path / "gone.json"),
        models=str(tmp_path / "gone-models.yaml"),
        api_keys_file=str(tmp_path / "gone.keys"),
    )
    assert problems(findings) == ["settings", "settings", "settings", "workflows", "provisioning"]
    assert exit_code(findings) == 2


async def test_models_that_lead_nowhere(tmp_path: Path) -> None:
    table = tmp_path / "models.yaml"
    table.write_text("good: {workflow: text-to-image, values: {steps: 3}}\n")
    assert about(await findings_of(models=str(table)), "models").level is Level.OK
    table.write_text('"gpt-*": {workflow: nope}\ndall-e-3: {workflow: text-to-image, values: {zzz: 1}}\n')
    findings = await findings_of(models=str(table))
    assert problems(findings) == ["models", "models"]
    told = " ".join(finding.text for finding in findings)
    assert "nope" in told
    assert "zzz" in told
    assert not [f for f in await findings_of() if f.about == "models"]


async def test_weak_and_missing_protection() -> None:
    open_to_all = await findings_of(fetch_allow=["0.0.0.0/0"], webhook_url="https://example.com/x")
    assert problems(open_to_all) == []
    for what in ("api keys", "fetch guard", "webhooks"):
        assert about(open_to_all, what).level is Level.ADVICE
    assert about(await findings_of(api_keys=["short"]), "api keys").level is Level.ADVICE
    assert problems(await findings_of(fetch_allow=["not a host"])) == ["settings", "fetch guard"]


async def test_collector_of_traces_is_there_or_not() -> None:
    assert not [f for f in await findings_of() if f.about == "traces"]
    with socket.create_server(("127.0.0.1", 0)) as collector:
        endpoint = f"http://127.0.0.1:{collector.getsockname()[1]}"
        assert about(await findings_of(traces_endpoint=endpoint), "traces").level is Level.OK
    assert about(await findings_of(traces_endpoint=endpoint), "traces").level is Level.ADVICE


async def test_object_store_is_tried_only_when_asked(bucket: Bucket) -> None:
    assert problems(await findings_of(**bucket.settings())) == []
    assert about(await findings_of(write=True, **bucket.settings()), "object store").level is Level.OK
    assert bucket.keys() == [], "nothing is left behind"


async def test_bucket_that_is_not_there(bucket: Bucket) -> None:
    elsewhere = bucket.settings(object_store="s3://no-such-bucket-of-ours")
    for write in (False, True):
        findings = await findings_of(write=write, **elsewhere)
        assert problems(findings) == ["object store"]
        assert "NoSuchBucket" in about(findings, "object store").text


async def test_front_whose_function_is_not_there(redis_server: RedisServer) -> None:
    front = {"role": "front", "redis_url": redis_server.url}
    findings = await findings_of(engine_url=f"http://127.0.0.1:{free_port()}", **front)
    assert problems(findings) == ["engine function"]
    reachable = await findings_of(engine_url=f"http://127.0.0.1:{redis_server.port}", **front)
    assert problems(reachable) == []


async def test_check_that_breaks_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def check_folders(_: object) -> list[Finding]:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(examination, "check_folders", check_folders)
    findings = await findings_of()
    assert problems(findings) == ["folders"]
    assert SECRET not in str(findings)
    assert about(findings, "port").level is Level.OK


@pytest.mark.parametrize(
    ("skew", "level"), [(0.1, Level.OK), (-6, Level.ADVICE), (30, Level.ADVICE), (-300, Level.PROBLEM)]
)
def test_clocks_that_differ(skew: float, level: Level) -> None:
    assert judge_clock(skew).level is level


def test_command_says_what_is_wrong_and_ends_with_the_code(command: Command) -> None:
    command.settings = {"AGENT_PORT": str(free_port()), "COMFYUI_ROOT": "/nowhere"}
    done = command.run("doctor")
    assert (done.returncode, done.stderr) == (1, "")
    assert "PROBLEM engine" in done.stdout
    assert "main.py" in done.stdout
    assert done.stdout.rstrip().endswith("1 problem: see the arrow below each.")


def test_command_answers_programs_in_json(command: Command) -> None:
    command.settings = {"AGENT_PORT": str(free_port()), "COMFYUI_PORT": str(free_port())}
    done = command.run("doctor", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert answer["exit_code"] == 0
    assert {"about", "level", "text", "remedy"} == answer["findings"][0].keys()


def test_wrong_setting_ends_with_2(command: Command) -> None:
    command.settings = {"AGENT_PORT": "none", "AGENT_KEYS": SECRET}
    done = command.run("doctor", "--json")
    assert (done.returncode, done.stderr) == (2, "")
    assert json.loads(done.stdout)["exit_code"] == 2
    assert SECRET not in done.stdout


def test_agent_that_runs_already_is_no_problem(command: Command, tmp_path: Path) -> None:
    command.settings = {"COMFYUI_PORT": str(free_port()), "AGENT_SHUTDOWN_SECONDS": "1"}
    with serving(command) as url:
        command.settings["AGENT_PORT"] = url.rpartition(":")[2]
        done = command.run("doctor")
        assert done.returncode == 0, done.stdout
        assert "An agent answers" in done.stdout
        attached = Command(
            tmp_path / "home", {"COMFYUI_URL": f"http://127.0.0.1:{command.settings['COMFYUI_PORT']}"}
        )
        attached.settings["AGENT_PORT"] = str(free_port())
        done = attached.run("doctor")
        assert done.returncode == 0, done.stdout
        assert "ComfyUI " in done.stdout


def test_no_secret_is_told(command: Command, bucket: Bucket) -> None:
    store = bucket.settings(object_store="s3://no-such-bucket-of-ours")
    command.settings = {
        "AGENT_PORT": str(free_port()),
        "AGENT_API_KEYS": SECRET,
        "AGENT_WEBHOOK_URL": f"https://user:{SECRET}@example.com/{'x'}?token={SECRET}",
        "AGENT_WEBHOOK_SECRETS": "whsec_" + "c0VjUmVULTAxMjM0NTY3ODktMDEyMzQ1",
        "REDIS_URL": f"redis://:{SECRET}@127.0.0.1:{free_port()}/0",
        "COMFYUI_URL": f"http://user:{SECRET}@127.0.0.1:{free_port()}",
        "AGENT_OBJECT_STORE": store["object_store"],
        "AGENT_OBJECT_STORE_ENDPOINT": store["object_store_endpoint"],
        "AGENT_OBJECT_STORE_REGION": "us-east-1",
        "AGENT_OBJECT_STORE_KEY_ID": SECRET,
        "AGENT_OBJECT_STORE_KEY_SECRET": SECRET,
    }
    for arguments in (["--write"], ["--json"]):
        done = command.run("doctor", *arguments)
        assert done.returncode == 1, done.stdout
        assert SECRET not in done.stdout + done.stderr
        assert "c0VjUmVULTAxMjM0NTY3ODktMDEyMzQ1" not in done.stdout
