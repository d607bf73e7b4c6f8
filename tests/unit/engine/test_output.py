"""Splitting a child's output into lines, and relaying them."""

from __future__ import annotations

from collections import deque
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from comfyui.process import MAX_LINE_BYTES, ExitReport, Line, LineSplitter, Relay


def split(*chunks):
    splitter = LineSplitter()
    return [line for chunk in chunks for line in splitter.feed(chunk)] + splitter.flush()


def test_newlines_end_lines_and_returns_end_progress():
    assert split(b"a\nb\r\n 10%\r 20%\rdone\n") == [
        *(Line("a", False), Line("b", False)),
        *(Line(" 10%", True), Line(" 20%", True), Line("done", False)),
    ]


def test_return_and_newline_in_two_chunks_are_one_end():
    assert split(b"a\r", b"\nb\n") == [Line("a", False), Line("b", False)]


def test_blank_lines_are_dropped():
    assert split(b"\n\r\n \n\r") == []


def test_unfinished_line_comes_at_the_end():
    assert split(b"Killed") == [Line("Killed", False)]


def test_long_line_is_cut_once_and_the_next_one_is_whole():
    lines = split(*[b"x" * 5000] * 1000, b"y\nnext\n")
    assert [len(line.text) for line in lines] == [MAX_LINE_BYTES + len(" [cut]"), 4]


def test_rest_of_a_long_line_is_never_held():
    splitter = LineSplitter()
    for _ in range(100):
        splitter.feed(b"x" * 16_384)
        assert len(splitter._rest) <= MAX_LINE_BYTES


def test_bytes_that_are_no_utf8_are_replaced():
    assert split(b"caf\xe9\n") == [Line("caf\N{REPLACEMENT CHARACTER}", False)]


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=8))
def test_where_chunks_end_makes_no_difference(data, cuts):
    data = data.replace(b"x", b"\r").replace(b"y", b"\n")
    edges = [0, *sorted(cuts), len(data)]
    assert split(*(data[a:b] for a, b in pairwise(edges))) == split(data)


def test_one_progress_line_a_second_is_relayed_and_every_other_line():
    now = [0.0]
    kept = deque(maxlen=3)
    relay = Relay("stderr", kept, clock=lambda: now[0])
    with capture_logs() as logs:
        for i in range(40):
            now[0] = i / 10
            relay.relay([Line(f"{i}%", True)])
        relay.relay([Line("done", False)])
    assert [entry["line"] for entry in logs] == ["0%", "10%", "20%", "30%", "done"]
    assert logs[0] == {"event": "engine.output", "log_level": "info", "line": "0%", "stream": "stderr"}
    assert list(kept) == ["20%", "30%", "done"]


@pytest.mark.parametrize(
    ("report", "summary"),
    [
        (
            ExitReport(1, None, 0.31, ("a", "No torch")),
            "the engine exited with code 1 after 0.3 s; its last line: No torch",
        ),
        (ExitReport(None, "SIGKILL", 12, ()), "the engine was killed by SIGKILL after 12.0 s without a word"),
    ],
)
def test_report_is_one_sentence(report, summary):
    assert report.summary == summary
