"""Log lines: the date first, one line each for machines, and nothing secret."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
import structlog
from pydantic import SecretStr

from agent.logs import LINE_BYTES, configure_logs
from agent.settings import LogFormat, Settings

Lines = Callable[[], list[str]]

#: Not spelt out, or the source lines of a traceback would show it.
SECRET = "tops" + "3cret"


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Iterator[Lines]:
    """What was written to stdout; afterwards logging is as it was."""
    handlers, level = logging.root.handlers[:], logging.root.level

    def read() -> list[str]:
        return capsys.readouterr().out.splitlines()

    yield read
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def fail(secret: str) -> None:
    """Raises with a secret among its local variables."""
    kept = [secret]
    raise ValueError(f"it failed with {len(kept)} secret")


def test_a_json_line_begins_with_time_level_and_event(lines: Lines) -> None:
    configure_logs(LogFormat.JSON, "info")
    structlog.get_logger("x").info("task.finished", seconds=1.5, task_id="t", name="猫")
    (line,) = lines()
    assert line.startswith('{"timestamp": "20')
    entry = json.loads(line)
    assert list(entry)[:3] == ["timestamp", "level", "event"]
    assert datetime.fromisoformat(entry["timestamp"]).utcoffset() is not None
    assert entry | {"level": "info", "event": "task.finished", "seconds": 1.5, "name": "猫"} == entry


def test_text_begins_with_the_date(lines: Lines) -> None:
    configure_logs(LogFormat.TEXT, "info")
    structlog.get_logger().info("task.finished", task_id="t")
    (line,) = lines()
    assert line[:3] == "202"
    assert "\x1b" not in line  # no colours into a file
    assert "task_id=t" in line


def test_without_a_terminal_auto_means_json(lines: Lines) -> None:
    configure_logs(LogFormat.AUTO, "info")
    structlog.get_logger().info("x")
    assert json.loads(lines()[0])["event"] == "x"


@pytest.mark.parametrize(("level", "expected"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_only_lines_of_the_level_and_above_are_written(lines: Lines, level: str, expected: int) -> None:
    configure_logs(LogFormat.JSON, level)
    log = structlog.get_logger()
    for name in ("debug", "info", "warning", "error"):
        getattr(log, name)("x")
    assert len(lines()) == expected


@pytest.mark.parametrize("log_format", [LogFormat.JSON, LogFormat.TEXT])
def test_a_traceback_shows_no_local_variables(lines: Lines, log_format: LogFormat) -> None:
    configure_logs(log_format, "info")
    try:
        fail(SECRET)
    except ValueError:
        structlog.get_logger().exception("task.failed")
    written = "\n".join(lines())
    assert "it failed with 1 secret" in written
    assert "in fail" in written
    assert SECRET not in written


def test_a_traceback_is_one_json_line(lines: Lines) -> None:
    configure_logs(LogFormat.JSON, "info")
    try:
        fail("x")
    except ValueError:
        structlog.get_logger().exception("task.failed", task_id="t")
    (line,) = lines()
    assert "Traceback" in json.loads(line)["exception"]


@pytest.mark.parametrize("log_format", [LogFormat.JSON, LogFormat.TEXT])
def test_secrets_among_the_fields_are_hidden(lines: Lines, log_format: LogFormat) -> None:
    configure_logs(log_format, "info")
    settings = Settings(api_keys=[SecretStr("tops3cret")], redis_url=SecretStr("redis://:p4ssw0rd@x"))
    structlog.get_logger().info("x", settings=settings, key=SecretStr("tops3cret"), keys=settings.api_keys)
    written = "\n".join(lines())
    assert "***" in written
    assert "tops3cret" not in written
    assert "p4ssw0rd" not in written


@pytest.mark.parametrize(
    "value", [b"\xff\x00", {1: 2}, {"a"}, object(), "line\nbreak\x00", float("nan"), 2**80]
)
def test_any_value_makes_one_line(lines: Lines, value: Any) -> None:
    configure_logs(LogFormat.JSON, "info")
    structlog.get_logger().info("x", value=value)
    (line,) = lines()
    assert json.loads(line)["event"] == "x"


def test_bound_ids_are_on_every_line(lines: Lines) -> None:
    configure_logs(LogFormat.JSON, "info")
    structlog.contextvars.bind_contextvars(task_id="t-1")
    structlog.get_logger("a").info("x")
    structlog.get_logger("b").warning("y")
    assert [json.loads(line)["task_id"] for line in lines()] == ["t-1", "t-1"]


@pytest.mark.parametrize("log_format", [LogFormat.JSON, LogFormat.TEXT])
@pytest.mark.parametrize(
    "fields",
    [
        {"text": "x" * 100_000},
        {"text": "猫" * 20_000, "list": ["y" * 50_000] * 3},
        {f"field{number}": "\x00" * 9000 for number in range(15)},
    ],
    ids=["one long value", "several", "escapes"],
)
def test_a_line_is_never_longer_than_a_log_service_takes(
    lines: Lines, log_format: LogFormat, fields: dict[str, Any]
) -> None:
    configure_logs(log_format, "info")
    structlog.get_logger().info("x", task_id="t", **fields)
    (line,) = lines()
    assert len(line.encode()) <= LINE_BYTES
    assert "[cut]" in line
    if log_format is LogFormat.JSON:
        assert json.loads(line)["task_id"] == "t"


def test_a_cut_traceback_keeps_where_and_why(lines: Lines) -> None:
    configure_logs(LogFormat.JSON, "info")
    try:
        raise ValueError("y" * 100_000 + "the end of it")  # noqa: TRY301 - a traceback is wanted
    except ValueError:
        structlog.get_logger().exception("task.failed")
    (line,) = lines()
    exception = json.loads(line)["exception"]
    assert exception.startswith("Traceback")
    assert exception.endswith("the end of it")


def test_what_libraries_log_has_the_same_form(lines: Lines) -> None:
    configure_logs(LogFormat.JSON, "info")
    logging.getLogger("some.library").warning("disk %s is full", "sda")
    logging.getLogger("some.library").info("not shown")
    (line,) = lines()
    entry = json.loads(line)
    assert (entry["level"], entry["library"], entry["message"]) == (
        "warning",
        "some.library",
        "disk sda is full",
    )


@pytest.mark.parametrize("redirection", [">&-", ">/dev/full", "| head -c 0"])
def test_a_log_that_nobody_can_write_or_reads_stops_nothing(redirection: str) -> None:
    code = (
        "from agent.logs import configure_logs; from agent.settings import LogFormat; import structlog, sys, time;"
        "configure_logs(LogFormat.JSON, 'info'); log = structlog.get_logger();"
        "[(log.info('line', text='x' * 9000), time.sleep(0.002)) for _ in range(50)];"
        "sys.stderr.write('done')"
    )
    shell = f'{sys.executable} -c "{code}" {redirection}'
    ran = subprocess.run(["bash", "-c", shell], stderr=subprocess.PIPE, text=True, timeout=30, check=False)
    assert "done" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_line_is_in_the_pipe_before_the_program_goes_on() -> None:
    """After an answer the instance may be frozen: what was still in a buffer would come late, or never."""
    code = (
        "from agent.logs import configure_logs; from agent.settings import LogFormat; import structlog, sys;"
        "configure_logs(LogFormat.AUTO, 'info'); structlog.get_logger().info('before'); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert json.loads(child.stdout.readline())["event"] == "before"
        assert child.poll() is None
        child.communicate(timeout=30)
