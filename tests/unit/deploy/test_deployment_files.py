"""Images, Compose and Knative: what can be checked of the files without a registry or a cluster."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from agent.provision.manifest import load_manifest
from agent.settings import load_settings
from tests.ports import free_port
from tests.unit.deploy.documents import KNOWN_VARIABLES, ROUTES, default_of
from tests.unit.deploy.files import ROOT, load, schema

DOCKERFILE = (ROOT / "Dockerfile").read_text()
STAGES = re.findall(r"^FROM (\S+) AS (\w+)$", DOCKERFILE, re.MULTILINE)


def stage(name: str) -> str:
    return DOCKERFILE.split(f" AS {name}\n", 1)[1].split("\nFROM ", 1)[0]


def test_image_copies_only_what_the_repository_has_and_sends() -> None:
    ignored = (ROOT / ".dockerignore").read_text()
    sent = {line[1:] for line in ignored.splitlines() if line.startswith("!")}
    arguments = dict(re.findall(r"^ARG (\w+)=(.*)$", DOCKERFILE, re.MULTILINE))
    copied = [line.split()[1:-1] for line in DOCKERFILE.splitlines() if re.match(r"COPY (?!--from)", line)]
    sources = [re.sub(r"\$\{(\w+)\}", lambda m: arguments[m[1]], one) for many in copied for one in many]
    assert "deploy/models.yaml" in sources
    for source in sources:
        assert (ROOT / source).exists()
        assert source.split("/")[0] in sent


def test_image_sets_only_variables_that_exist() -> None:
    named = set(re.findall(r"\b((?:AGENT|COMFYUI)_\w+)=", DOCKERFILE))
    assert named - {"COMFYUI_VERSION"} <= KNOWN_VARIABLES


def test_stages_build_on_images_with_a_tag_or_on_each_other_and_the_last_one_is_the_engine() -> None:
    arguments = dict(re.findall(r"^ARG (\w+)=(.*)$", DOCKERFILE, re.MULTILINE))
    known: set[str] = set()
    for source, name in STAGES:
        image = re.sub(r"\$\{(\w+)\}", lambda m: arguments[m[1]], source)
        assert image in known or re.search(r":(?!latest$).+", image), image
        known.add(name)
    assert STAGES[-1][1] == "engine"
    copied_from = set(re.findall(r"COPY --from=(\w+)", DOCKERFILE))
    assert copied_from <= known


def test_engine_stands_on_the_runtime_flavour_of_the_cuda_version_of_its_pytorch() -> None:
    arguments = dict(re.findall(r"^ARG (\w+)=(.*)$", DOCKERFILE, re.MULTILINE))
    assert ("${CUDA_IMAGE}", "engine") in STAGES
    image = re.fullmatch(r"nvidia/cuda:(\d+)\.(\d+)\.\d+-runtime-ubuntu24\.04", arguments["CUDA_IMAGE"])
    assert image is not None
    assert arguments["TORCH_INDEX"].endswith(f"/cu{image[1]}{image[2]}")
    assert arguments["PLAIN_IMAGE"] == "ubuntu:24.04", "the agent's environment is made with the same Python"


@pytest.mark.parametrize("name", ["engine", "front"])
def test_both_images_say_whether_they_are_healthy_and_start_the_agent(name: str) -> None:
    text = stage(name)
    assert 'ENTRYPOINT ["tini", "--", "comfyui-agent"]' in text
    assert "HEALTHCHECK" in text
    assert "EXPOSE 9000" in text


def test_shell_commands_of_the_image_are_well_formed() -> None:
    joined = re.sub(r"\\\n", " ", DOCKERFILE)
    commands = re.findall(r"^RUN (?:--\S+ +)*(.*)$", joined, re.MULTILINE)
    assert len(commands) >= 8
    for command in commands:
        subprocess.run(["sh", "-n", "-c", command], check=True, timeout=10)


def test_front_image_has_neither_comfyui_nor_cuda() -> None:
    parents, text = {name: source for source, name in STAGES}, stage("front")
    assert parents["front"] == "plain"
    assert parents["plain"] == "${PLAIN_IMAGE}"
    assert set(re.findall("COPY --from=(.*)", text)) == {"agent /opt/agent /opt/agent"}
    assert 'CMD ["serve", "--role", "front"]' in text


def test_what_is_downloaded_is_pinned() -> None:
    assert "--require-hashes" in stage("agent")
    assert re.search(r"ARG COMFYUI_VERSION=v\d+\.\d+\.\d+$", DOCKERFILE, re.MULTILINE)
    torch = re.search(r'^ARG TORCH="(.*)"$', DOCKERFILE, re.MULTILINE)
    assert torch
    assert all("==" in package for package in torch[1].split())


def test_manifest_that_the_image_is_built_with_is_valid_and_empty() -> None:
    assert load_manifest(ROOT / "deploy/models.yaml").models == ()


class Health(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/healthz" else 404)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def check_health(port: int) -> int:
    environment = {
        "PATH": os.environ["PATH"],
        "FC_CUSTOM_LISTEN_PORT": str(port),
        "http_proxy": "http://127.0.0.1:1",
    }
    argv = [sys.executable, "-m", "agent.healthcheck"]
    ran = subprocess.run(argv, env=environment, cwd=ROOT, capture_output=True, timeout=30, check=False)
    return ran.returncode


def test_health_check_follows_the_agents_health() -> None:
    with HTTPServer(("127.0.0.1", 0), Health) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            assert check_health(server.server_port) == 0
            Health.status = 503
            assert check_health(server.server_port) != 0
        finally:
            server.shutdown()
            thread.join()
    assert check_health(free_port()) != 0


def compose() -> dict[str, dict[str, Any]]:
    services: dict[str, dict[str, Any]] = load("compose.yaml")["services"]
    return services


def test_compose_builds_stages_that_exist_and_pins_what_it_pulls() -> None:
    names = {name for _, name in STAGES}
    for service in compose().values():
        if "build" in service:
            assert service["build"]["target"] in names
        else:
            assert re.search(r":(?!latest$).+", service["image"])


@pytest.mark.parametrize("name", ["agent", "engine", "front"])
def test_compose_sets_only_variables_that_exist_and_the_agent_starts_with_them(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = compose()[name]
    assert set(service["environment"]) <= KNOWN_VARIABLES
    for known in KNOWN_VARIABLES:
        monkeypatch.delenv(known, raising=False)
    for variable, value in service["environment"].items():
        monkeypatch.setenv(variable, value)
    command = service.get("command", ["serve", "--role", "front"])
    role = dict(zip(command[1::2], command[2::2], strict=True)).get("--role", "all")
    assert load_settings(service["environment"], role=role).role.value == role


def test_compose_opens_its_ports_to_this_machine_alone() -> None:
    ports = [port for service in compose().values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_compose_front_knows_the_key_and_the_store_of_its_engine() -> None:
    front, engine = (compose()[name]["environment"] for name in ("front", "engine"))
    assert front["AGENT_ENGINE_API_KEY"] == engine["AGENT_API_KEYS"]
    assert front["AGENT_ENGINE_URL"] == "http://engine:9000"
    for shared in ("REDIS_URL", "AGENT_REDIS_PREFIX"):
        assert front[shared] == engine[shared]


def test_compose_agent_has_the_key_of_its_object_store_and_shows_its_open_port() -> None:
    agent, store = compose()["agent"]["environment"], compose()["objects"]
    assert agent["AGENT_OBJECT_STORE_KEY_ID"] == store["environment"]["MINIO_ROOT_USER"]
    assert agent["AGENT_OBJECT_STORE_KEY_SECRET"] == store["environment"]["MINIO_ROOT_PASSWORD"]
    bucket = agent["AGENT_OBJECT_STORE"].removeprefix("s3://").partition("/")[0]
    assert f"/data/{bucket} " in store["entrypoint"][-1]
    outside = agent["AGENT_OBJECT_STORE_PUBLIC_ENDPOINT"].rpartition(":")[2]
    assert store["ports"] == [f"127.0.0.1:{outside}:9000"]


def knative() -> dict[str, Any]:
    document: dict[str, Any] = load("deploy/knative.yaml")
    return document


def test_knative_service_fits_the_schema() -> None:
    schema("knative_schema.yaml").validate(knative())


@pytest.mark.parametrize(
    "change",
    [
        {"timeoutSecond": 5},
        {"timeoutSeconds": 601},
        {"terminationGracePeriodSeconds": 5},
        {"containers": [{"image": "agent:latest"}]},
        {"containers": [{"image": "agent:1", "lifecycle": {}}]},
        {"containers": [{"image": "agent:1", "env": [{"name": "PORT", "value": "9000"}]}]},
    ],
)
def test_knative_schema_refuses_what_the_cluster_would_refuse(change: dict[str, Any]) -> None:
    document = knative()
    document["spec"]["template"]["spec"] |= change
    assert not schema("knative_schema.yaml").is_valid(document)


def test_knative_service_agrees_with_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    pod = knative()["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    plain = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
    assert {entry["name"] for entry in container["env"]} <= KNOWN_VARIABLES
    for known in KNOWN_VARIABLES:
        monkeypatch.delenv(known, raising=False)
    for variable, value in plain.items():
        monkeypatch.setenv(variable, value)
    assert not load_settings(plain).behind_gateway
    assert container["ports"] == [{"name": "http1", "containerPort": 9000}]
    for probe in ("readinessProbe", "livenessProbe"):
        assert ("GET", container[probe]["httpGet"]["path"]) in ROUTES
        assert container[probe]["httpGet"]["port"] == 9000
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    # Knative gives a pod that it stops as long as a request. The agent puts tasks back in 10 seconds at most.
    assert float(plain["AGENT_SHUTDOWN_SECONDS"]) + 15 < pod["timeoutSeconds"]
    seconds = float(plain["AGENT_TASK_TIMEOUT_SECONDS"])
    assert seconds + default_of("AGENT_WEBHOOK_TOTAL_SECONDS") < pod["timeoutSeconds"]
    assert pod["responseStartTimeoutSeconds"] == pod["timeoutSeconds"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {mount["name"] for mount in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    (mount,) = container["volumeMounts"]
    assert load("deploy/extra_model_paths.yaml")["mounted"]["base_path"] == mount["mountPath"]
