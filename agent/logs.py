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

#: Function Compute's log service takes lines of 32 KB; this leaves room for what it puts before them.
LINE_BYTES = 30_000

#: How long the values of a line that is too long may be, tried in turn. The last one always fits.
VALUE_CHARACTERS = (8000, 2000, 200)


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
            _Bounded(renderer),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
        ),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", _LogStream(sys.stdout))),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_Relay()], force=True)


class _Bounded:
    """Renders a line, with its longest values shortened where it would be longer than a log service takes."""

    def __init__(self, renderer: Any) -> None:
        self._renderer = renderer

    def __call__(self, logger: Any, method: str, event: EventDict) -> str:
        line: str = self._renderer(logger, method, dict(event))
        for limit in VALUE_CHARACTERS:
            if not _is_too_long(line):
                return line
            short = {name: _shorten(value, limit) for name, value in event.items()}
            line = self._renderer(logger, method, short)
        # Only text for people comes here: its renderer adds the traceback by itself.
        return _shorten_text(line, LINE_BYTES // 4) if _is_too_long(line) else line


def _is_too_long(line: str) -> bool:
    return len(line) * 4 > LINE_BYTES and len(line.encode(errors="replace")) > LINE_BYTES


def _shorten(value: Any, limit: int) -> Any:
    if isinstance(value, str):
        return _shorten_text(value, limit)
    is_small = value is None or isinstance(value, int | float | tuple)  # a tuple: exc_info
    return value if is_small or len(text := repr(value)) <= limit else _shorten_text(text, limit)


def _shorten_text(text: str, limit: int) -> str:
    """Leave out the middle: a traceback begins with where and ends with why."""
    if len(text) <= limit:
        return text
    return f"{text[: limit * 2 // 3]} [cut] {text[len(text) - limit // 3 :]}"


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
