"""Which URLs may be webhooks, judged before anything is sent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from agent.inputs.addresses import AllowList
from agent.webhooks.sender import Sender, _seconds


def sender(*allow: str) -> Sender:
    return Sender([], AllowList.parse(allow), timeout_seconds=1)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://example.com", "https://example.com"),
        ("https://example.com/hook?token=s3cret#s3cret", "https://example.com/hook"),
        ("https://user:s3cret@example.com:8443/a/b", "https://example.com:8443/a/b"),
        ("http://8.8.8.8/x", "http://8.8.8.8/x"),
        ("http://localhost/x", "http://localhost/x"),  # a name: looked up when something is sent
    ],
)
def test_url_is_shown_without_what_may_be_secret(url: str, shown: str) -> None:
    assert sender().check(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com/hook",
        "/hook",
        "http:///hook",
        "https://",
        "ftp://example.com/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "http://example.com:0/",
        "http://example.com:70000/",
        "http://example.com/\n",
        "http://[::1",
        "https://example.com/" + "x" * 2048,
    ],
)
def test_what_is_no_whole_http_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"URL|port"):
        sender("0.0.0.0/0", "::/0").check(url)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.1",
        "017700000001",
        "10.1.2.3",
        "169.254.169.254",
        "100.100.100.200",
        "[::1]",
        "[::ffff:10.0.0.1]",
        "[fd00:ec2::254]",
    ],
)
def test_private_address_is_refused_however_it_is_spelt(host: str) -> None:
    with pytest.raises(ValueError, match="AGENT_FETCH_ALLOW"):
        sender().check(f"http://{host}:8080/hook?s3cret")


def test_private_address_that_the_operator_opened_may_be_used() -> None:
    opened = sender("127.0.0.1:8080", "10.1.0.0/16")
    assert opened.check("http://127.0.0.1:8080/hook?x=1") == "http://127.0.0.1:8080/hook"
    assert opened.check("http://10.1.2.3/hook")
    with pytest.raises(ValueError, match="AGENT_FETCH_ALLOW"):
        opened.check("http://127.0.0.1:8081/hook")


@pytest.mark.parametrize(
    ("header", "expected"),
    [(None, None), ("0", 0), ("17", 17), ("-1", None), ("soon", None), ("", None), ("9" * 40, 999999999)],
)
def test_retry_after_in_seconds(header: str | None, expected: float | None) -> None:
    assert _seconds(header) == expected


def test_retry_after_as_a_date() -> None:
    now = datetime.now(UTC)
    assert 50 < (_seconds(format_datetime(now + timedelta(seconds=60), usegmt=True)) or 0) <= 60
    assert _seconds(format_datetime(now - timedelta(hours=1), usegmt=True)) == 0
