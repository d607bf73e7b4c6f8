"""The dashboard and the alert rules ask for metrics, labels and values that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from agent.errors import AgentError
from agent.exposition import Exposition
from agent.metrics import Metrics
from agent.metrics_table import BY_NAME, PREFIX, Kind
from agent.tasks.record import State
from agent.worker import RETRIED_HERE

DEPLOY = Path(__file__).parents[3] / "deploy"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
RULES = [
    rule
    for group in yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [
    *[(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]],
    *[(rule["alert"], rule["expr"]) for rule in RULES],
]

#: What Prometheus adds to every series.
ADDED = {"job", "instance"}

#: Values of labels that expressions may name.
VALUES: dict[str, set[str]] = {
    "state": {state.value for state in State} | {"delivered", "failed"},
    "stage": {"engine", "inputs", "queue", "run", "collect", "review", "upload", "deliver"},
    "code": set(AgentError.by_code),
    "fault": {"none", "caller", "service"},
    "result": {"succeeded", "failed"},
}

#: A series with its matchers, and what stands before and after it.
SELECTOR = re.compile(r"(\w*)\(?\b(up|comfyui_agent_\w+|process_\w+)\b(?:\{([^}]*)\})?(\[)?")
MATCHER = re.compile(r'\s*(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"\s*')
GROUPED = re.compile(r"\bby \(([\w, ]+)\)")


def process_metrics() -> set[str]:
    text = Exposition(Metrics(), is_front=False).text().decode()
    names = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
    return {name for name in names if name.startswith("process_")}


def labels_of(series: str) -> set[str]:
    """The labels of a series. Raises KeyError where there is no such metric."""
    if not series.startswith(PREFIX):
        assert series == "up" or series in process_metrics(), series
        return ADDED
    name = series.removeprefix(PREFIX)
    part = re.fullmatch(r"(.*_seconds)_(bucket|sum|count)", name)
    if part is None:
        assert BY_NAME[name].kind is not Kind.HISTOGRAM, f"{series} is a histogram: name a part of it"
        return {*BY_NAME[name].labels, *ADDED}
    assert BY_NAME[part[1]].kind is Kind.HISTOGRAM, series
    return {*BY_NAME[part[1]].labels, *ADDED, *(["le"] if part[2] == "bucket" else [])}


@pytest.mark.parametrize(("title", "expression"), EXPRESSIONS)
def test_expressions_name_series_and_labels_that_there_are(title: str, expression: str) -> None:
    found = SELECTOR.findall(expression)
    assert found, title
    for function, series, matchers, is_range in found:
        known = labels_of(series)
        grows = series.endswith(("_total", "_bucket", "_sum", "_count"))
        assert (function in ("rate", "increase")) == grows == bool(is_range), (title, series)
        for matcher in filter(None, re.split(r',(?=(?:[^"]*"[^"]*")*[^"]*$)', matchers)):
            match = MATCHER.fullmatch(matcher)
            assert match is not None, matcher
            label, operator, value = match.groups()
            assert label in known, (title, series, label)
            if label in VALUES and operator in ("=", "!="):
                assert value in VALUES[label], (title, label, value)
    every = set().union(*(labels_of(series) for _, series, _, _ in found))
    for names in GROUPED.findall(expression):
        assert set(re.split(r",\s*", names)) <= every, (title, names)
    assert expression.count("(") == expression.count(")")


def test_dashboard_can_be_imported() -> None:
    assert DASHBOARD["uid"]
    assert {variable["name"] for variable in DASHBOARD["templating"]["list"]} == {
        "datasource",
        "job",
        "instance",
    }
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    places = [tuple(panel["gridPos"].values()) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)
    for panel in PANELS:
        assert panel["description"].endswith("."), panel["title"]
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
            shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            kept = {name for names in GROUPED.findall(target["expr"]) for name in re.split(r",\s*", names)}
            (first, *_) = SELECTOR.findall(target["expr"])
            assert shown <= (kept or labels_of(first[1])), panel["title"]


def test_dashboard_shows_each_metric_that_is_not_left_out_on_purpose() -> None:
    left_out = {"outputs_total", "task_duration_seconds", "open_requests"}
    text = json.dumps(DASHBOARD)
    hidden = {name for name in BY_NAME if not re.search(rf"{PREFIX}{name}(_bucket|_sum|_count)?\{{", text)}
    assert hidden == left_out


def test_alerts_say_what_it_means_and_how_bad_it_is() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert {"summary", "description"} == rule["annotations"].keys()
        shown = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
        kept = {name for names in GROUPED.findall(rule["expr"]) for name in re.split(r",\s*", names)}
        assert shown <= (kept or ADDED), rule["alert"]


def test_alert_on_short_memory_names_a_fault_that_is_tried_again() -> None:
    (rule,) = [rule for rule in RULES if "task_retries_total" in rule["expr"]]
    (code,) = re.findall(r'code="(\w+)"', rule["expr"])
    assert code in {kind.code for kind in RETRIED_HERE}
