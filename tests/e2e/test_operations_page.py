"""docs/operations.md says what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from agent.metrics_table import TABLE, Metric

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
