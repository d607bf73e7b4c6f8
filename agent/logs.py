"""Log lines: one event each, structured, JSON for machines or text for people."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import Any, TextIO, cast

import structlog
from aiohttp.http_exceptions import HttpProcessingError, PayloadEncodingError
from aiohttp.web import RequestPayloadError
from structlog.typing import EventDict, Processor

from agent.settings import LogFormat


def configure_logs(log_format: LogFormat, level: str) -> None:
    """Set up logging for the whole process, on stdout: Function Compute collects it from there.

    A text line begins with the date, a JSON line has it first: log services tell records apart by it.
    """
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    as_text = log_format is LogFormat.TEXT or (log_format is LogFormat.AUTO and is_terminal)
    renderer: Any = structlog.processors.JSONRenderer(sort_keys=False, ensure_ascii=False)
    if as_text:
        renderer = structlog.dev.ConsoleRenderer(
            colors=is_terminal,
            pad_event_to=20,
            exception_formatter=structlog.dev.plain_traceback,  # the default prints local variables: keys, pictures
        )
    for_machines: list[Processor] = [] if as_text else [structlog.processors.format_exc_info, _in_order]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *for_machines,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
        ),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", _LogStream(sys.stdout))),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_Relay()], force=True)


class _LogStream:
    """A stream that may be closed, full or read by nobody any more: none of that may stop the service."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            return self._stream.write(text) if self._stream is not None else 0
        return 0

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            if self._stream is not None:
                self._stream.flush()


class _Relay(logging.Handler):
    """Brings what libraries log into the same form. A caller's broken HTTP is no fault of ours: no traceback."""

    def emit(self, record: logging.LogRecord) -> None:
        broken_http = (HttpProcessingError, PayloadEncodingError, RequestPayloadError)
        has_trace = record.exc_info is not None and not isinstance(record.exc_info[1], broken_http)
        structlog.get_logger(record.name).log(
            record.levelno,
            "library.message",
            library=record.name,
            message=record.getMessage(),
            exc_info=record.exc_info if has_trace else None,
        )


def _in_order(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Put first what every line has."""
    first = {name: event.pop(name) for name in ("timestamp", "level", "event") if name in event}
    return {**first, **event}
