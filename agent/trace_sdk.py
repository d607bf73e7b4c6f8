"""Spans on OpenTelemetry's SDK, sent over OTLP/HTTP. The SDK reads its own variables (OTEL_*): where to send them, with
which headers, how many of the requests, under which service name."""

from __future__ import annotations

import time
from collections.abc import Mapping

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import (
    SERVICE_NAME,
    SERVICE_VERSION,
    OTELResourceDetector,
    Resource,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from agent import __version__
from agent.trace_export import Exporter
from agent.traces import Fact, Span

_PROPAGATOR = TraceContextTextMapPropagator()


class Recorder:
    """Records spans and sends them in the background, from a thread of the SDK's."""

    def __init__(self) -> None:
        ours = {SERVICE_NAME: "comfyui-agent", SERVICE_VERSION: __version__}
        named = (
            OTELResourceDetector().detect().attributes
        )  # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win
        self._provider = TracerProvider(resource=Resource.create({**ours, **named}), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(Exporter()))
        self._tracer = self._provider.get_tracer("comfyui-agent", __version__)

    def begin(self, name: str, callers: Span, facts: Mapping[str, Fact]) -> Span:
        """The span of a request, within its caller's trace."""
        return RecordedSpan(
            self._tracer, name, _PROPAGATOR.extract(callers.headers()), facts, SpanKind.SERVER
        )

    def flush(self) -> None:
        """Send every span that has ended. Blocks until it is sent or given up."""
        self._provider.force_flush()


class RecordedSpan(Span):
    """A span that is sent to the collector once it has ended."""

    def __init__(
        self,
        tracer: trace.Tracer,
        name: str,
        parent: Context,
        facts: Mapping[str, Fact],
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> None:
        self._tracer = tracer
        self._span = tracer.start_span(name, parent, kind, dict(facts))
        self._context = trace.set_span_in_context(self._span, parent)
        headers: dict[str, str] = {}
        _PROPAGATOR.inject(headers, self._context)
        super().__init__(trace.format_trace_id(self._span.get_span_context().trace_id), headers)

    def child(self, name: str, facts: Mapping[str, Fact]) -> Span:
        return RecordedSpan(self._tracer, name, self._context, facts)

    def stage(self, name: str, seconds: float) -> None:
        now = time.time_ns()
        span = self._tracer.start_span(name, self._context, start_time=now - int(seconds * 1e9))
        span.end(now)

    def note(self, facts: Mapping[str, Fact]) -> None:
        self._span.set_attributes(dict(facts))

    def end(self, error: str | None = None) -> None:
        if error is not None:
            self._span.set_status(Status(StatusCode.ERROR, error))
        self._span.end()
