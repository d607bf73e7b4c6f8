"""The metrics in Prometheus' text format. Imported by the first scrape, see agent/metrics.py."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from agent import metrics_table
from agent.metrics import BUCKETS, Metrics
from agent.metrics_table import TABLE, Kind


class Exposition(Collector):
    """Shows one application's metrics, and memory, CPU and files of its process as every Python service shows them."""

    #: The format that Prometheus of every version reads.
    content_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self, metrics: Metrics, *, is_front: bool) -> None:
        self._metrics = metrics
        self._shown = [metric for metric in TABLE if (metric.on_front if is_front else metric.on_engine)]
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """Everything as it is now."""
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """Nothing: names need no check against those of other collectors."""
        return []

    def collect(self) -> Iterator[Metric]:
        for metric in self._shown:
            yield self._histogram(metric) if metric.kind is Kind.HISTOGRAM else self._plain(metric)

    def _plain(self, metric: metrics_table.Metric) -> Metric:
        kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
        family = kind(metric.full_name, metric.help, labels=metric.labels)
        for labels, value in self._metrics.values(metric.name).items():
            family.add_metric(labels, value)
        return family

    def _histogram(self, metric: metrics_table.Metric) -> Metric:
        family = HistogramMetricFamily(metric.full_name, metric.help, labels=metric.labels)
        bounds = [*map(str, BUCKETS), "+Inf"]
        for labels, histogram in self._metrics.histograms(metric.name).items():
            counts = accumulate(histogram.counts)
            family.add_metric(labels, list(zip(bounds, counts, strict=True)), histogram.sum)
        return family
