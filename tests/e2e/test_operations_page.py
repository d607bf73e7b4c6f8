"""docs/operations.md says what the code says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.request import Request, urlopen

import yaml

from agent.metrics_table import TABLE, Metric
from agent.settings import Settings
from tests.e2e.blocks import Block, executes
from tests.e2e.shell import Shell, serving
from tests.ports import free_port, wait_until_ready
from tests.redis_server import RedisServer

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/operations.md"


def row(metric: Metric) -> str:
    """A row of the page's table."""
    where = " and ".join(
        role for role, shows in (("engine", metric.on_engine), ("front", metric.on_front)) if shows
    )
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.full_name}` | {metric.kind} | {labels} | {where} | {metric.help} |"


def test_page_lists_each_metric() -> None:
    rows = re.findall(r"^\| `comfyui_agent_.*$", PAGE.read_text(), re.MULTILINE)
    assert rows == [row(metric) for metric in TABLE]


def test_page_names_log_events_that_are_written() -> None:
    _, _, about_logs = PAGE.read_text().partition("## The log")
    events = [
        name for line in about_logs.splitlines() for name in re.findall(r"`([a-z]+\.[a-z_]+)`", line[:90])
    ]
    code = "".join(
        path.read_text() for folder in ("agent", "comfyui") for path in (ROOT / folder).rglob("*.py")
    )
    assert len(events) > 10
    for event in events:
        assert f'"{event}"' in code or event in ("webhook.delivered", "webhook.failed"), event


def test_page_lists_each_alert() -> None:
    (group,) = yaml.safe_load((ROOT / "deploy/alerts.yaml").read_text())["groups"]
    listed = re.findall(r"^\| `(ComfyUI\w+)` \|", PAGE.read_text(), re.MULTILINE)
    assert listed == [rule["alert"] for rule in group["rules"]]


def test_page_lists_what_the_doctor_looks_at() -> None:
    about_doctor = PAGE.read_text().partition("## The doctor")[2].partition("## Metrics")[0]
    rows = re.findall(r"^\| (`[^|]*`) \|", about_doctor, re.MULTILINE)
    listed = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    code = "".join(path.read_text() for path in (ROOT / "agent/doctor").glob("*.py"))
    used = set(re.findall(r"\b(?:ok|advice|problem)\(\s*\"([a-z ]+)\"", code)) | {"object store"}
    assert listed == used


@executes("docs/operations.md", "bash")
def test_operations_page(blocks: list[Block], shell: Shell, redis_server: RedisServer) -> None:
    *doctor, several = blocks
    with serving(shell):
        for block in doctor:
            shell.run(block)

    ports = {port: str(free_port()) for port in ("9000", "9010", "9011", "9020", "9021")}
    shell.instead = ports | {"redis://localhost:6379": redis_server.url}
    shell.environment["AGENT_REDIS_PREFIX"] = f"{shell.folder}:"
    agents = [f"http://127.0.0.1:{ports[port]}" for port in ("9000", "9010", "9020")]
    with shell.running(several):
        for url in agents:
            wait_until_ready(url)
        graph = (ROOT / "workflows/text-to-image.json").read_bytes()
        urlopen(Request(f"{agents[0]}/api/run", graph, {"task-id": "shared"})).close()
        for url in agents:
            with urlopen(f"{url}/api/tasks/shared") as answer:
                assert json.load(answer)["state"] == "succeeded", "each answers for the tasks of all"


@executes("docs/operations.md", "yaml")
def test_scrape_on_the_operations_page_is_of_what_the_agent_serves(blocks: list[Block]) -> None:
    (block,) = blocks
    (job,) = yaml.safe_load(block.take())["scrape_configs"]
    # Prometheus asks for /metrics with `Authorization: Bearer KEY` unless told otherwise.
    assert set(job) == {"job_name", "authorization", "static_configs"}
    assert set(job["authorization"]) == {"credentials_file"}
    port = Settings.model_fields["port"].default
    for group in job["static_configs"]:
        assert all(target.endswith(f":{port}") for target in group["targets"])
