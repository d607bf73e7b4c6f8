"""Fetching over real loopback sockets: an HTTP mock would sit above the dial, where the guard is not."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from agent import __version__
from agent.errors import AgentError, InputForbidden, InputNotFetched, InputTooLarge
from agent.inputs.addresses import AllowList
from agent.inputs.fetch import Fetcher

from .conftest import PNG, MediaServer

MakeFetcher = Callable[..., Fetcher]


@pytest.fixture
async def make_fetcher() -> AsyncIterator[MakeFetcher]:
    async with AsyncExitStack() as stack:

        def make(
            *allow: str, max_bytes: int = 100_000, timeout_seconds: float = 5, **options: Any
        ) -> Fetcher:
            # Loading all authorities takes longer than most tests here.
            options.setdefault("tls", ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
            fetcher = Fetcher(
                AllowList.parse(allow), max_bytes=max_bytes, timeout_seconds=timeout_seconds, **options
            )
            stack.push_async_callback(fetcher.close)
            return fetcher

        yield make


@pytest.fixture
def fetcher(make_fetcher: MakeFetcher) -> Fetcher:
    """May reach 127.0.0.1, and of this machine nothing else."""
    return make_fetcher("127.0.0.1")


class Resolver:
    """DNS under the test's control: the answers in turn, the last one for ever."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


async def refused(fetcher: Fetcher, url: str, kind: type[AgentError] = InputForbidden) -> AgentError:
    with pytest.raises(kind) as caught:
        async with asyncio.timeout(10):
            await fetcher.fetch(url)
    return caught.value


# What works


async def test_file_comes_back_byte_for_byte(fetcher: Fetcher, server: MediaServer) -> None:
    got = await fetcher.fetch(server.url("/cat.png"))
    assert (got.data, got.content_type, got.filename) == (PNG, "image/png", "cat.png")


async def test_request_says_who_asks_and_wants_no_compression(fetcher: Fetcher, server: MediaServer) -> None:
    await fetcher.fetch(server.url("/cat.png?size=1&x=%2F#part"))
    head = server.requests[0].lower()
    assert head.startswith("get /cat.png?size=1&x=%2f http/1.1\r\n")
    assert f"user-agent: comfyui-agent/{__version__}\r\n" in head
    assert "accept-encoding: identity\r\n" in head


async def test_connections_are_shared(fetcher: Fetcher, server: MediaServer) -> None:
    for _ in range(3):
        await fetcher.fetch(server.url("/cat.png"))
    assert server.connections == 1


async def test_many_fetches_at_the_same_time(fetcher: Fetcher, server: MediaServer) -> None:
    got = await asyncio.gather(*(fetcher.fetch(server.url(f"/cat.png?{n}")) for n in range(60)))
    assert all(each.data == PNG for each in got)


async def test_empty_file_is_not_judged_here(fetcher: Fetcher, server: MediaServer) -> None:
    assert (await fetcher.fetch(server.url("/empty"))).data == b""


async def test_five_redirects_are_followed_and_a_sixth_is_not(fetcher: Fetcher, server: MediaServer) -> None:
    assert (await fetcher.fetch(server.url("/hop1"))).data == PNG
    assert (
        "redirects more than 5 times" in (await refused(fetcher, server.url("/hop0"), InputNotFetched)).detail
    )
    await refused(fetcher, server.url("/loop"), InputNotFetched)


async def test_filename_comes_from_the_server_or_from_a_url(fetcher: Fetcher, server: MediaServer) -> None:
    assert (await fetcher.fetch(server.url("/named?x=y.mp4"))).filename == "猫.png"
    assert (await fetcher.fetch(server.url("/named-badly"))).filename == "x.png"
    assert (await fetcher.fetch(server.url("/moved"))).filename == "cat.png"
    assert (await fetcher.fetch(server.url("/empty"))).filename is None


async def test_credentials_in_the_url_are_sent_to_their_server_only(
    make_fetcher: MakeFetcher, server: MediaServer
) -> None:
    fetcher = make_fetcher("127.0.0.1", "localhost")
    base = server.url("/moved", host="us%40er:pa:ss@127.0.0.1")
    await fetcher.fetch(base)
    assert all(
        "authorization: basic dXNAZXI6cGE6c3M="
        in head.replace("Authorization", "authorization").replace("Basic", "basic")
        for head in server.requests
    )
    server.requests.clear()
    await fetcher.fetch(base.replace("/moved", "/moved-by-name"))
    assert ["authorization" in head.lower() for head in server.requests] == [True, False]


async def test_cookies_of_one_caller_do_not_reach_the_next(fetcher: Fetcher, server: MediaServer) -> None:
    await fetcher.fetch(server.url("/moved"))
    await fetcher.fetch(server.url("/cat.png"))
    assert not any("cookie" in head.lower() for head in server.requests)


async def test_proxy_of_the_environment_does_not_lead_round_the_guard(
    monkeypatch: pytest.MonkeyPatch, make_fetcher: MakeFetcher, server: MediaServer
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, server.url(""))
    await refused(make_fetcher(), "http://10.0.0.1/cat.png")
    assert server.connections == 0


async def test_fetching_after_close_opens_anew(fetcher: Fetcher, server: MediaServer) -> None:
    await fetcher.fetch(server.url("/cat.png"))
    await fetcher.close()
    await fetcher.close()
    assert (await fetcher.fetch(server.url("/cat.png"))).data == PNG


# The guard


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "localhost.", "LOCALHOST", "2130706433", "0x7f.1", "0x7f000001", "0177.0.0.1", "127.1",
        "127.0.0.1.", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "0.0.0.0", "[::]", "0",
        "①②⑦.0.0.1", "127。0。0。1", "user:pass@127.0.0.1", "127.0.0.1%2f", "[::1%25lo]",
    ],
)  # fmt: skip
async def test_no_spelling_reaches_this_machine(
    make_fetcher: MakeFetcher, server: MediaServer, host: str
) -> None:
    with pytest.raises((InputForbidden, InputNotFetched)):
        await make_fetcher().fetch(server.url("/cat.png", host))
    assert server.connections == 0


@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "100.100.100.200",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "[64:ff9b::a00:1]",
        "[2002:a00:1::]",
        "[fec0::1]",
        "[::ffff:10.0.0.1]",
        "[ff02::1]",
    ],
)
async def test_private_addresses_are_forbidden_at_once(make_fetcher: MakeFetcher, host: str) -> None:
    started = time.perf_counter()
    error = await refused(make_fetcher(), f"http://{host}/latest/")
    assert "AGENT_FETCH_ALLOW" in error.detail
    assert error.facts == {"url": f"http://{host}/latest/"}
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize(
    "path", ["/to-loopback", "/to-metadata", "/to-alibaba-metadata", "/to-file", "/to-gopher"]
)
async def test_redirect_into_the_dark_is_forbidden(fetcher: Fetcher, server: MediaServer, path: str) -> None:
    error = await refused(fetcher, server.url(path))
    assert error.facts == {"url": server.url(path)}
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "path",
    [
        "/to-nowhere",
        "/to-no-host",
        "/to-control",
        "/to-no-authority",
        "/to-no-idna",
        "/to-no-ipv6",
        "/302-without-location",
    ],
)
async def test_redirect_to_nonsense_is_not_fetched(fetcher: Fetcher, server: MediaServer, path: str) -> None:
    await refused(fetcher, server.url(path), InputNotFetched)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "gopher://127.0.0.1/x",
        "data:,x",
        "/etc/passwd",
        "cat.png",
        "javascript:alert(1)",
        "unix:///x",
    ],
)
async def test_other_schemes_are_forbidden(fetcher: Fetcher, url: str) -> None:
    await refused(fetcher, url)


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http:///x",
        "http://[::1/x",
        "http://a:99999/",
        "http://a:0/",
        "http://a:x/",
        "http://a..b/",
        "http://" + "a" * 70 + ".test/",
        "http://a\0b/",
        "https://?x",
        "http://xn--/",
        "http:a",
        "http:////[",
    ],
)
async def test_malformed_urls_are_not_fetched(fetcher: Fetcher, url: str) -> None:
    await refused(fetcher, url, InputNotFetched)


async def test_refusal_names_the_host_but_not_its_address(make_fetcher: MakeFetcher) -> None:
    fetcher = make_fetcher(resolve=Resolver(["10.11.12.13"]))
    error = await refused(fetcher, "http://intranet.test/x")
    assert "intranet.test" in error.detail
    assert "10.11.12.13" not in "".join(traceback.format_exception(error))


async def test_rebinding_between_check_and_connect_changes_nothing(
    make_fetcher: MakeFetcher, server: MediaServer
) -> None:
    """The name answers an allowed address first and a forbidden one next: the first is dialled, the second never."""
    resolver = Resolver(["127.0.0.1"], ["127.0.0.2"])
    fetcher = make_fetcher("127.0.0.1", resolve=resolver)
    assert (await fetcher.fetch(server.url("/cat.png", "rebind.test"))).data == PNG
    assert resolver.asked == ["rebind.test"]
    await fetcher.close()
    await refused(fetcher, server.url("/cat.png", "rebind.test"))
    assert server.connections == 1


async def test_rebinding_between_redirects_is_forbidden(
    make_fetcher: MakeFetcher, server: MediaServer
) -> None:
    fetcher = make_fetcher("127.0.0.1", resolve=Resolver(["127.0.0.1"], ["127.0.0.2"]))
    error = await refused(fetcher, server.url("/moved-by-name", "rebind.test"))
    assert "localhost" in error.detail
    assert server.connections == 1


async def test_allowed_name_may_be_private_on_its_port_only(
    make_fetcher: MakeFetcher, server: MediaServer
) -> None:
    resolver = Resolver(["127.0.0.1"])
    allowed = make_fetcher(f"media.test:{server.port}", resolve=resolver)
    assert (await allowed.fetch(server.url("/cat.png", "media.test"))).data == PNG
    await refused(allowed, server.url("/cat.png", "other.test"))
    await refused(
        make_fetcher(f"media.test:{server.port + 1}", resolve=resolver), server.url("/cat.png", "media.test")
    )


async def test_addresses_are_tried_in_turn(make_fetcher: MakeFetcher, server: MediaServer) -> None:
    fetcher = make_fetcher("127.0.0.0/8", resolve=Resolver(["127.0.0.9", "127.0.0.8", "127.0.0.1"]))
    assert (await fetcher.fetch(server.url("/cat.png", "many.test"))).data == PNG


# Faulty servers


@pytest.mark.parametrize(
    ("path", "status"), [("/missing", 404), ("/500", 500), ("/204", 204), ("/302-without-location", 302)]
)
async def test_only_200_counts_and_is_asked_once(
    fetcher: Fetcher, server: MediaServer, path: str, status: int
) -> None:
    error = await refused(fetcher, server.url(path + "?token=x"), InputNotFetched)
    assert error.facts == {"url": server.url(path), "status": status}
    assert len(server.requests) == 1


@pytest.mark.parametrize("path", ["/drips", "/drips_headers"])
async def test_slow_drip_ends_with_the_time_limit(
    make_fetcher: MakeFetcher, server: MediaServer, path: str
) -> None:
    started = time.perf_counter()
    error = await refused(make_fetcher("127.0.0.1", timeout_seconds=0.3), server.url(path), InputNotFetched)
    assert "longer than 0.3 seconds" in error.detail
    assert time.perf_counter() - started < 2


async def test_silent_resolver_ends_with_the_time_limit(make_fetcher: MakeFetcher) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    started = time.perf_counter()
    await refused(make_fetcher(timeout_seconds=0.3, resolve=resolve), "http://slow.test/", InputNotFetched)
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize("path", ["/big", "/sends_for_ever"])
async def test_too_large_is_refused_by_header_and_while_reading(
    fetcher: Fetcher, server: MediaServer, path: str
) -> None:
    error = await refused(fetcher, server.url(path), InputTooLarge)
    assert error.facts == {"url": server.url(path), "limit": 100_000}


async def test_limit_is_exact(make_fetcher: MakeFetcher, server: MediaServer) -> None:
    assert (await make_fetcher("127.0.0.1", max_bytes=len(PNG)).fetch(server.url("/cat.png"))).data == PNG
    await refused(make_fetcher("127.0.0.1", max_bytes=len(PNG) - 1), server.url("/cat.png"), InputTooLarge)


async def test_gzip_bomb_is_refused_unopened(fetcher: Fetcher, server: MediaServer) -> None:
    assert "compressed" in (await refused(fetcher, server.url("/gzip-bomb"), InputNotFetched)).detail


async def test_body_beyond_its_declared_length_is_ignored(fetcher: Fetcher, server: MediaServer) -> None:
    assert (await fetcher.fetch(server.url("/lies_about_its_length"))).data == PNG[:5]


@pytest.mark.parametrize(
    ("path", "tries"),
    [
        ("/breaks_off_in_the_body", 1),
        ("/breaks_off_in_a_chunk", 1),
        ("/breaks_off_before_the_answer", 2),
        ("/speaks_no_http", 2),
        ("/absurd-length", 2),
    ],
)
async def test_broken_answers_are_not_fetched(
    fetcher: Fetcher, server: MediaServer, path: str, tries: int
) -> None:
    error = await refused(fetcher, server.url(path), InputNotFetched)
    assert error.facts == {"url": server.url(path)}
    assert len(server.requests) == tries


async def test_connection_that_failed_before_the_answer_is_tried_once_more(
    fetcher: Fetcher, server: MediaServer
) -> None:
    assert (await fetcher.fetch(server.url("/breaks_off_once"))).data == PNG
    assert len(server.requests) == 2


async def test_closed_port_is_not_fetched(fetcher: Fetcher, unused_tcp_port: int) -> None:
    error = await refused(fetcher, f"http://127.0.0.1:{unused_tcp_port}/x", InputNotFetched)
    assert "cannot be reached" in error.detail


async def test_unknown_host_is_not_fetched(make_fetcher: MakeFetcher) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        raise OSError(-2, "Name or service not known")

    await refused(make_fetcher(resolve=resolve), "http://nowhere.test/", InputNotFetched)


async def test_cancelled_fetch_frees_its_connection(make_fetcher: MakeFetcher, server: MediaServer) -> None:
    fetcher = make_fetcher("127.0.0.1")
    for _ in range(40):  # more than the pool has connections
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await fetcher.fetch(server.url("/drips"))
    assert (await fetcher.fetch(server.url("/cat.png"))).data == PNG


# TLS


async def test_tls_certificate_is_checked_by_the_name_in_the_url(
    make_fetcher: MakeFetcher, tls_server: MediaServer, certificate: Path
) -> None:
    trusting = ssl.create_default_context(cafile=str(certificate))
    fetcher = make_fetcher("127.0.0.1", resolve=Resolver(["127.0.0.1"]), tls=trusting)
    assert (await fetcher.fetch(f"https://media.test:{tls_server.port}/cat.png")).data == PNG
    error = await refused(fetcher, f"https://other.test:{tls_server.port}/cat.png", InputNotFetched)
    assert "certificate" in error.detail


async def test_unknown_authority_is_refused_by_default(
    make_fetcher: MakeFetcher, tls_server: MediaServer
) -> None:
    fetcher = make_fetcher("127.0.0.1", resolve=Resolver(["127.0.0.1"]), tls=None)
    error = await refused(fetcher, f"https://media.test:{tls_server.port}/cat.png", InputNotFetched)
    assert "certificate" in error.detail
    assert not tls_server.requests


# Secrets


@pytest.mark.parametrize(
    "path",
    [
        "/cat.png",
        "/moved",
        "/missing",
        "/500",
        "/big",
        "/gzip-bomb",
        "/drips",
        "/loop",
        "/to-file",
        "/to-metadata",
        "/to-nowhere",
        "/to-no-host",
        "/to-control",
        "/to-no-authority",
        "/to-no-idna",
        "/to-no-ipv6",
        "/breaks_off_in_the_body",
        "/breaks_off_before_the_answer",
        "/speaks_no_http",
        "/absurd-length",
    ],
)
async def test_secrets_of_a_url_stay_out_of_errors_and_logs(
    make_fetcher: MakeFetcher, server: MediaServer, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    fetcher = make_fetcher("127.0.0.1", timeout_seconds=0.5)
    url = server.url(f"{path}?token=s3cr3t-query#s3cr3t-fragment", host="s3cr3t-user:s3cr3t-pass@127.0.0.1")
    [outcome] = await asyncio.gather(fetcher.fetch(url), return_exceptions=True)
    assert "s3cr3t" in server.requests[0]
    assert "s3cr3t" not in caplog.text
    if isinstance(outcome, AgentError):
        assert outcome.facts["url"] == server.url(path)
        assert (
            "s3cr3t" not in f"{outcome} {outcome!r} {outcome.to_dict()} {traceback.format_exception(outcome)}"
        )
    else:
        assert path in ("/cat.png", "/moved")


async def test_secrets_of_a_malformed_or_forbidden_url_stay_out_too(
    make_fetcher: MakeFetcher, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    urls = [
        "http://a:s3cr3t/",
        "http://[x/?s3cr3t",
        "http://a\1/?s3cr3t",
        "ftp://u:s3cr3t@h/?s3cr3t",
        "http://s3cr3t:s3cr3t@10.0.0.1/?s3cr3t",
        "http:///?s3cr3t",
        "http://u:s3cr3t@h:0/?s3cr3t",
    ]
    for url in urls:
        with pytest.raises(AgentError) as caught:
            await make_fetcher().fetch(url)
        assert (
            "s3cr3t"
            not in "".join(traceback.format_exception(caught.value))
            + repr(caught.value.to_dict())
            + caplog.text
        )
