"""What this process counts for those who run it. `GET /metrics` shows it; agent/metrics_table.py names it.

Counting is a dictionary update and imports nothing: prometheus-client takes 40 ms of CPU to import, where the whole
start takes 580, so only the first scrape brings it in (agent/exposition.py). What other parts know anyway, such as how
often the engine was restarted, is not counted here again but read when somebody asks.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from agent.errors import AgentError
from agent.metrics_table import BY_NAME, Kind

if TYPE_CHECKING:
    from agent.tasks.record import TaskRecord

#: Upper bounds of the histograms' buckets, in seconds: a cached picture takes milliseconds, a video an hour.
BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0)

#: The code of a task that ended without an error, and whose fault that is.
NO_ERROR = "none"

#: Whoever sends a request may call its method as he likes.
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

Labels = tuple[str, ...]
Values = Mapping[Labels, float]


class Histogram:
    """Observations by bucket; the last bucket has no bound."""

    def __init__(self) -> None:
        self.counts, self.sum = [0] * (len(BUCKETS) + 1), 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(BUCKETS, value)] += 1
        self.sum += value


class Metrics:
    """The numbers of one application. Everything is called on its event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counts: dict[str, Counter[Labels]] = {}
        self._histograms: dict[str, dict[Labels, Histogram]] = {}
        self._readers: dict[str, Callable[[], Values | float]] = {}
        self._open, self._open_since, self._open_seconds = 0, 0.0, 0.0
        # A series that appears at its first count shows no growth by it, so those that are watched begin at 0.
        self._count("tasks_total", "succeeded", NO_ERROR, NO_ERROR, by=0)
        for code in AgentError.by_code:
            if _fault(code) == "service":
                self._count("tasks_total", "failed", code, "service", by=0)
        self.read("open_requests", lambda: self._open)
        self.read("open_request_seconds_total", self._seconds_open)

    def read(self, name: str, reader: Callable[[], Values | float]) -> None:
        """Ask `reader` for this metric whenever it is shown: for a number, or for one a set of label values."""
        self._readers[BY_NAME[name].name] = reader

    def task_ended(self, record: TaskRecord) -> None:
        """A task of this instance is over."""
        state, code = record.state.value, record.error["code"] if record.error else NO_ERROR
        self._count("tasks_total", state, code, _fault(code))
        self._observe(
            "task_duration_seconds", (record.finished_at or record.created_at) - record.created_at, state
        )
        for stage, seconds in record.timings.items():
            self._observe("task_stage_seconds", seconds, stage)
        self._count("task_billed_seconds_total", by=record.billed_seconds)
        self._count("outputs_total", by=len(record.outputs))
        self._count("output_bytes_total", by=sum(output.bytes for output in record.outputs))

    def may_retry(self, codes: Iterable[str]) -> None:
        """These are the codes that `task_retried` will be called with."""
        for code in codes:
            self._count("task_retries_total", code, by=0)

    def task_retried(self, code: str) -> None:
        """An attempt failed of this, and another one begins here."""
        self._count("task_retries_total", code)

    def safety_step(self, step: str, seconds: float) -> None:
        """A step of the review has looked at a prompt or a picture."""
        self._observe("safety_step_seconds", seconds, step)

    def safety_verdict(self, step: str, action: str) -> None:
        """A step of the review has found what it has found, and this came of it."""
        self._count("safety_verdicts_total", step, action)

    def classifier_failed(self, step: str) -> None:
        """A classifier gave no answer in time."""
        self._count("safety_classifier_failures_total", step)

    def request_began(self) -> None:
        """A request is open. `request_ended` follows in any case."""
        if self._open == 0:
            self._open_since = self._clock()
        self._open += 1

    def request_ended(
        self, method: str, route: str, status: int, *, code: str | None, read: int, sent: int
    ) -> None:
        """`route` is the route's pattern; `code` that of an error answer; `read` and `sent` are bytes of bodies."""
        self._open_seconds = self._seconds_open() if self._open == 1 else self._open_seconds
        self._open -= 1
        known = method if method in METHODS else "other"
        self._count("http_requests_total", known, route, str(status))
        if code is not None:
            self._count("http_errors_total", code)
        self._count("http_request_bytes_total", by=read)
        self._count("http_response_bytes_total", by=sent)

    def values(self, name: str) -> Values:
        """A counter or gauge as it is now, by label values; empty while there is nothing to say."""
        if reader := self._readers.get(name):
            found = reader()
            return found if isinstance(found, Mapping) else {(): found}
        is_plain = BY_NAME[name].kind is Kind.COUNTER and not BY_NAME[name].labels
        return self._counts.get(name, {(): 0} if is_plain else {})

    def histograms(self, name: str) -> Mapping[Labels, Histogram]:
        return self._histograms.get(name, {})

    def _count(self, name: str, *labels: str, by: float = 1) -> None:
        self._counts.setdefault(name, Counter())[labels] += by  # type: ignore[assignment] # counts seconds too

    def _observe(self, name: str, value: float, *labels: str) -> None:
        self._histograms.setdefault(name, {}).setdefault(labels, Histogram()).observe(max(0.0, value))

    def _seconds_open(self) -> float:
        return self._open_seconds + (self._clock() - self._open_since if self._open else 0.0)


def _fault(code: str) -> str:
    """Whose fault an error is, by the status that it is answered with."""
    if code == NO_ERROR:
        return NO_ERROR
    return "caller" if AgentError.by_code.get(code, AgentError).status < 500 else "service"
