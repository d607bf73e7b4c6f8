"""What is counted, and how it looks to Prometheus."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.exposition import Exposition
from agent.metrics import BUCKETS, Metrics
from agent.metrics_table import TABLE, Kind
from agent.tasks.record import Attempt, Outcome, State, TaskRecord


def samples(metrics: Metrics, *, is_front: bool = False) -> dict[tuple[str, tuple[str, ...]], float]:
    """(name without prefix, label values in the order of their names) -> value."""
    text = Exposition(metrics, is_front=is_front).text().decode()
    return {
        (
            sample.name.removeprefix("comfyui_agent_"),
            tuple(v for _, v in sorted(sample.labels.items())),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def ended(state: State, seconds: float, error: str | None = None, **timings: float) -> TaskRecord:
    attempt = Attempt(
        number=1, instance="i", started_at=100, ended_at=100 + seconds, outcome=Outcome.SUCCEEDED
    )
    return TaskRecord(
        id="t",
        state=state,
        created_at=100,
        finished_at=100 + seconds,
        attempts=[attempt],
        timings=timings,
        error={"code": error} if error else None,
    )


def test_ended_tasks_are_counted_by_state_and_code_with_their_times() -> None:
    metrics = Metrics()
    metrics.task_ended(ended(State.SUCCEEDED, 2, run=1.5, queue=0.2))
    metrics.task_ended(ended(State.SUCCEEDED, 3, run=2.5))
    metrics.task_ended(ended(State.FAILED, 1, "OutOfMemory"))
    metrics.task_ended(ended(State.CANCELLED, 0, "TaskCancelled"))
    seen = samples(metrics)
    assert seen["tasks_total", ("none", "none", "succeeded")] == 2
    assert seen["tasks_total", ("OutOfMemory", "service", "failed")] == 1
    assert seen["tasks_total", ("TaskCancelled", "caller", "cancelled")] == 1
    assert seen["task_duration_seconds_sum", ("succeeded",)] == 5
    assert seen["task_stage_seconds_count", ("run",)] == 2
    assert seen["task_stage_seconds_bucket", ("1.0", "run")] == 0
    assert seen["task_stage_seconds_bucket", ("2.5", "run")] == 2  # a bound belongs to its bucket
    assert seen["task_stage_seconds_bucket", ("+Inf", "run")] == 2
    assert seen["task_billed_seconds_total", ()] == 6


def test_time_with_several_open_requests_counts_once() -> None:
    now = 100.0
    metrics = Metrics(clock=lambda: now)
    metrics.request_began()
    now = 102
    metrics.request_began()
    now = 105
    end(metrics)
    assert samples(metrics)["open_request_seconds_total", ()] == 5
    now = 106
    end(metrics)
    now = 200
    assert samples(metrics)["open_request_seconds_total", ()] == 6
    metrics.request_began()
    now = 201
    assert samples(metrics)["open_request_seconds_total", ()] == 7
    assert samples(metrics)["open_requests", ()] == 1


def end(metrics: Metrics, method: str = "GET", code: str | None = None) -> None:
    metrics.request_ended(method, "/x", 200, code=code, read=3, sent=4)


def test_methods_of_a_callers_own_are_one() -> None:
    metrics = Metrics()
    for method in ("GET", "BREW", "WHEN"):
        metrics.request_began()
        end(metrics, method)
    seen = samples(metrics)
    assert seen["http_requests_total", ("other", "/x", "200")] == 2
    assert seen["http_request_bytes_total", ()] == 9
    assert seen["http_response_bytes_total", ()] == 12


def test_counters_without_labels_are_there_from_the_start() -> None:
    names = {name for name, _ in samples(Metrics())}
    plain = {m.name for m in TABLE if m.kind is Kind.COUNTER and not m.labels and m.on_engine}
    assert plain <= names


def test_failures_that_are_the_services_fault_begin_at_0() -> None:
    metrics = Metrics()
    metrics.may_retry(["EngineDied"])
    seen = samples(metrics)
    assert seen["tasks_total", ("OutOfMemory", "service", "failed")] == 0
    assert seen["tasks_total", ("none", "none", "succeeded")] == 0
    assert seen["task_retries_total", ("EngineDied",)] == 0
    assert ("tasks_total", ("InvalidJson", "caller", "failed")) not in seen


@pytest.mark.parametrize("is_front", [False, True])
def test_nothing_is_told_of_when_it_was_created(is_front: bool) -> None:
    metrics = Metrics()
    metrics.task_ended(ended(State.SUCCEEDED, 2, run=1))
    assert not [name for name, _ in samples(metrics, is_front=is_front) if name.endswith("_created")]


def test_a_front_has_its_own_metrics_alone() -> None:
    front, engine = ({n for n, _ in samples(Metrics(), is_front=f)} for f in (True, False))
    assert "function_failures_total" in front - engine
    assert "task_billed_seconds_total" in engine - front
    assert "process_resident_memory_bytes" in front & engine


def test_names_follow_prometheus() -> None:
    assert len({metric.name for metric in TABLE}) == len(TABLE)
    assert sorted(BUCKETS) == list(BUCKETS)
    for metric in TABLE:
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER), metric.name
        assert metric.help.endswith("."), metric.name
        assert not {"task_id", "id", "url", "path", "le"} & set(metric.labels)


def test_numbers_that_are_read_need_a_name() -> None:
    with pytest.raises(KeyError):
        Metrics().read("no_such_metric", lambda: 1)
