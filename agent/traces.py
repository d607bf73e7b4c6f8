"""Traces: the caller's `traceparent` (W3C Trace Context) is put into log lines and passed on to the engine function.

Where OTEL_EXPORTER_OTLP_ENDPOINT names a collector and the extra `otel` is installed, each request, each task and each
stage of a task is a span of that trace too (agent/trace_sdk.py). What runs within `entered(span)`, and every asyncio
task that is started there, belongs to that span.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog

if TYPE_CHECKING:
    from agent.trace_sdk import Recorder

log = structlog.get_logger(__name__)

#: Version, trace, parent span and flags; ids of zeros are none. Of later versions the beginning is the same.
TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-((?!0{32})[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")

#: How much of vendors' own data (`tracestate`) is passed on.
LONGEST_STATE = 512

#: How long sending what has not been sent may hold up the end of the process.
SEND_SECONDS = 3

Fact = str | int | float | bool


class Span:
    """A piece of work within a trace. This one is not recorded: it only knows what to pass on."""

    def __init__(self, trace_id: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        self.trace_id = trace_id
        self._headers = dict(headers or {})

    def headers(self) -> dict[str, str]:
        """What makes another service's work part of the trace."""
        return self._headers

    def child(self, name: str, facts: Mapping[str, Fact]) -> Span:  # noqa: ARG002 - see RecordedSpan
        """A piece of this work that begins now."""
        return self

    def stage(self, name: str, seconds: float) -> None:
        """A piece of this work that took so long and ends now."""

    def note(self, facts: Mapping[str, Fact]) -> None:
        """More that is known of it."""

    def end(self, error: str | None = None) -> None:
        """It is over, with this error if it failed."""


_here: ContextVar[Span] = ContextVar("span", default=Span())  # noqa: B039 - without a trace it never changes


def here() -> Span:
    """What the running work belongs to."""
    return _here.get()


@contextmanager
def entered(span: Span) -> Iterator[Span]:
    """Have what runs within belong to the span. Ending it stays with the caller."""
    token = _here.set(span)
    try:
        yield span
    finally:
        _here.reset(token)


class Traces:
    """The service's traces. The port is open before the SDK is imported; requests before that are not recorded."""

    def __init__(self, endpoint: str | None) -> None:
        self._endpoint = endpoint
        self._recorder: Recorder | None = None
        self._sending: threading.Thread | None = None

    async def start(self) -> None:
        """Open the way to the collector, if one is named."""
        if self._endpoint is None:
            return
        try:
            self._recorder = await asyncio.to_thread(_open_recorder)
        except ImportError:
            log.warning("traces.off", note="spans need the extra otel: pip install 'comfyui-agent[otel]'")
        else:
            url = urlsplit(self._endpoint)  # a collector's name and password may stand in it
            log.info("traces.on", endpoint=f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}")

    def request(self, name: str, headers: Mapping[str, str], facts: Mapping[str, Fact]) -> Span:
        """The span of a request; a part of its caller's trace, if it names one."""
        callers = _callers(headers)
        return callers if self._recorder is None else self._recorder.begin(name, callers, facts)

    async def flush(self) -> None:
        """Send what has not been sent, within bounded time: what comes next may be the end, or a long freeze."""
        if self._recorder is None or (self._sending is not None and self._sending.is_alive()):
            return  # the latter: the collector was silent once, and is not waited for again
        over, loop = asyncio.Event(), asyncio.get_running_loop()

        def send(recorder: Recorder) -> None:
            recorder.flush()
            try:
                loop.call_soon_threadsafe(over.set)
            except RuntimeError:  # nobody waited any longer, and the loop is closed
                return

        # No pool's thread: the process would wait for it at its end, however long the collector is silent.
        self._sending = threading.Thread(target=send, args=(self._recorder,), daemon=True, name="traces")
        self._sending.start()
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await over.wait()
        except TimeoutError:
            log.warning("traces.not_sent", note="the collector does not answer")


def _open_recorder() -> Recorder:
    from agent.trace_sdk import Recorder  # noqa: PLC0415 - an extra, and slow to import

    return Recorder()


def _callers(headers: Mapping[str, str]) -> Span:
    given = headers.get("traceparent", "")
    found = TRACEPARENT.fullmatch(given)
    if found is None:
        return Span()
    state = headers.get("tracestate", "")
    passed = {"traceparent": given, **({"tracestate": state} if 0 < len(state) <= LONGEST_STATE else {})}
    return Span(found[1], passed)
