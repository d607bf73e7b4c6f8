"""Every metric of the service by name. docs/operations.md, the dashboard and the alert rules are held to this table.

Names follow Prometheus: a unit at the end, `_total` for what only grows. No label holds what callers send: each has a
few values that are known beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

PREFIX = "comfyui_agent_"


class Kind(StrEnum):
    """What a number means."""

    COUNTER = "counter"  #: grows from 0 at the start of the process
    GAUGE = "gauge"  #: as it is when asked
    HISTOGRAM = "histogram"  #: how many observations were at most how large


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric; `name` without the prefix. `on_front`: a front has it too, or alone where `on_engine` is False."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    on_engine: bool = True
    on_front: bool = False

    @property
    def full_name(self) -> str:
        return PREFIX + self.name


TABLE = (
    Metric("info", Kind.GAUGE, "Always 1; its labels say what runs.", ("version", "role"), on_front=True),
    Metric(
        "tasks_total",
        Kind.COUNTER,
        "Tasks that ended here, by final state, error code (none: no error) and whose fault it is: caller (a 4xx "
        "error), service (a 5xx error), none.",
        ("state", "code", "fault"),
    ),
    Metric(
        "task_retries_total",
        Kind.COUNTER,
        "Attempts after which this instance tried again, by the error code of the attempt.",
        ("code",),
    ),
    Metric(
        "task_duration_seconds",
        Kind.HISTOGRAM,
        "Time from a task's creation to its end, by final state.",
        ("state",),
    ),
    Metric(
        "task_stage_seconds",
        Kind.HISTOGRAM,
        "Time that ended tasks spent in each stage of `timings`; queue is the wait, run the work of ComfyUI.",
        ("stage",),
    ),
    Metric(
        "task_billed_seconds_total",
        Kind.COUNTER,
        "Sum of `billed_seconds` of the tasks that ended here; tasks that run beside each other count each.",
    ),
    Metric("outputs_total", Kind.COUNTER, "Files that ended tasks produced."),
    Metric("output_bytes_total", Kind.COUNTER, "Bytes of these files."),
    Metric(
        "tasks",
        Kind.GAUGE,
        "Unfinished tasks of this instance, by state (queued, running); a front's are those that it passes on.",
        ("state",),
        on_front=True,
    ),
    Metric("task_capacity", Kind.GAUGE, "Unfinished tasks that this instance takes.", on_front=True),
    Metric("engine_ready", Kind.GAUGE, "1 while ComfyUI is ready, else 0."),
    Metric(
        "engine_restarts_total",
        Kind.COUNTER,
        "Lives of ComfyUI that ended: deaths, hangs, failed starts, restarts on request.",
    ),
    Metric("feed_reconnects_total", Kind.COUNTER, "How often the WebSocket to ComfyUI was lost."),
    Metric(
        "device_memory_bytes",
        Kind.GAUGE,
        "Memory of each device that ComfyUI computes on, as it says itself; absent while it does not answer.",
        ("device",),
    ),
    Metric("device_memory_free_bytes", Kind.GAUGE, "What is free of it.", ("device",)),
    Metric(
        "object_uploads_total",
        Kind.COUNTER,
        "Files brought to the object store, by result (succeeded, failed).",
        ("result",),
        on_front=True,
    ),
    Metric(
        "webhooks_total",
        Kind.COUNTER,
        "Webhooks that are done with, by state (delivered, failed).",
        ("state",),
        on_front=True,
    ),
    Metric(
        "store_errors_total",
        Kind.COUNTER,
        "Calls that the task store (Redis or the folder) did not answer as it should.",
        on_front=True,
    ),
    Metric(
        "safety_verdicts_total",
        Kind.COUNTER,
        "Verdicts of the review, by step and by what came of them (pass, warn, blur, retry, fail, reject).",
        ("step", "action"),
        on_front=True,
    ),
    Metric(
        "safety_step_seconds",
        Kind.HISTOGRAM,
        "Time that a step of the review took for one prompt or picture.",
        ("step",),
    ),
    Metric(
        "safety_classifier_failures_total",
        Kind.COUNTER,
        "Prompts and pictures of which a classifier could not say anything in time, by step.",
        ("step",),
    ),
    Metric(
        "function_failures_total",
        Kind.COUNTER,
        "Calls of the engine function that ended without an agent's answer, or with that of one that stops.",
        on_engine=False,
        on_front=True,
    ),
    Metric(
        "http_requests_total",
        Kind.COUNTER,
        "Finished requests by method, route and status; 499: the caller left before.",
        ("method", "route", "status"),
        on_front=True,
    ),
    Metric("http_errors_total", Kind.COUNTER, "Error answers by error code.", ("code",), on_front=True),
    Metric(
        "http_request_bytes_total", Kind.COUNTER, "Bytes of request bodies that were read.", on_front=True
    ),
    Metric(
        "http_response_bytes_total",
        Kind.COUNTER,
        "Bytes of answers' bodies, without what goes over WebSockets.",
        on_front=True,
    ),
    Metric("open_requests", Kind.GAUGE, "Requests that are open now, this one included.", on_front=True),
    Metric(
        "open_request_seconds_total",
        Kind.COUNTER,
        "Time during which at least one request was open: what Function Compute bills of this instance.",
        on_front=True,
    ),
)

BY_NAME = {metric.name: metric for metric in TABLE}
