"""Sends spans to the collector, and says so once when it fails, instead of each time."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

log = structlog.get_logger(__name__)

#: Loggers of the library that write a line or more for each batch that a collector does not take: about tries that
#: failed, and about spans for which there is no room while they do.
TALKATIVE = ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk._shared_internal")

#: Where the address is repeated, with whatever secret its query holds.
_ADDRESS = re.compile(r"\burl: \S+")


class Exporter(SpanExporter):
    """The library's exporter. A thread of the library's calls it."""

    def __init__(self) -> None:
        self._exporter = OTLPSpanExporter()
        self._lost = 0
        self._reason = ""
        for name in TALKATIVE:
            logging.getLogger(name).addFilter(self._hear)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send them, or give them up after the library's tries."""
        self._reason = ""
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            if self._lost:
                log.info("traces.restored", lost=self._lost)
                self._lost = 0
            return result
        if not self._lost:
            log.warning(
                "traces.lost", reason=self._reason, note="said once, until the collector takes spans again"
            )
        self._lost += len(spans)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)

    def _hear(self, record: logging.LogRecord) -> bool:
        """Keep what the library says first of a batch, and from the log."""
        self._reason = self._reason or _ADDRESS.sub("url: ...", record.getMessage())
        return False
