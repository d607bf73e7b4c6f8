"""The Range header (RFC 9110, section 14)."""

from __future__ import annotations

import pytest

from agent.api.ranges import part_of


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", range(1)),
        ("bytes=0-9", range(10)),
        ("bytes=3-5", range(3, 6)),
        (" bytes=3- ", range(3, 10)),
        ("bytes=-4", range(6, 10)),
        ("bytes=-99", range(10)),
        ("bytes=5-99999", range(5, 10)),
    ],
)
def test_one_range_is_a_part(header: str, expected: range) -> None:
    assert part_of(header, 10) == expected


@pytest.mark.parametrize(
    "header", [None, "", "bytes", "bytes=", "bytes=-", "bytes=5-3", "bytes=1-2,4-5", "bytes=a-b", "lines=1-2"]
)
def test_what_is_no_single_range_says_nothing(header: str | None) -> None:
    assert part_of(header, 10) is None


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=10-", 10), ("bytes=-0", 10), ("bytes=0-", 0), ("bytes=-5", 0)]
)
def test_a_part_that_is_not_there_is_an_error(header: str, size: int) -> None:
    with pytest.raises(ValueError, match=f"{size} bytes"):
        part_of(header, size)
