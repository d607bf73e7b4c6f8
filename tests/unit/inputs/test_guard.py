"""Which addresses are public, and what AGENT_FETCH_ALLOW opens beside them."""

from __future__ import annotations

from collections.abc import Sequence

import httpcore
import pytest

from agent.inputs.addresses import AddressRefused, AllowList, is_public, to_address
from agent.inputs.guard import GuardedBackend


@pytest.mark.parametrize(
    "text",
    [
        "8.8.8.8",
        "1.1.1.1",
        "100.63.255.255",
        "100.128.0.1",
        "172.32.0.1",
        "192.167.1.1",
        "223.255.255.254",
        "2606:4700::1111",
        "2a00:1450::1",
        "::ffff:8.8.8.8",
    ],
)
def test_public_addresses(text: str) -> None:
    assert is_public(to_address(text))


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254",
        "168.63.129.16", "169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.192",
        "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1",
        "239.255.255.250", "240.0.0.1", "255.255.255.255",
        "::", "::1", "::7f00:1", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:0:127.0.0.1",
        "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::",
        "2002:808:808::1", "3fff::1", "4000::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fd20:ce::254", "fe80::1",
        "fe80::1%lo", "fec0::1", "ff02::1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(text: str) -> None:
    assert not is_public(to_address(text))


@pytest.mark.parametrize(
    ("entry", "host", "address", "port", "permitted"),
    [
        ("127.0.0.1", "localhost", "127.0.0.1", 80, True),
        ("127.0.0.1", "localhost", "127.0.0.2", 80, False),
        ("127.0.0.1:8080", "x", "127.0.0.1", 8080, True),
        ("127.0.0.1:8080", "x", "127.0.0.1", 8081, False),
        ("127.0.0.1", "x", "::ffff:127.0.0.1", 80, True),
        ("10.1.0.0/16", "x", "10.1.255.1", 443, True),
        ("10.1.0.0/16", "x", "10.2.0.1", 443, False),
        ("10.1.0.0/16:443", "x", "10.1.0.1", 80, False),
        ("::1", "x", "::1", 80, True),
        ("[::1]:8080", "x", "::1", 8080, True),
        ("[::1]:8080", "x", "::1", 80, False),
        ("fd12::/16", "x", "fd12:3::1", 80, True),
        ("Media.Internal", "media.internal.", "10.0.0.1", 80, True),
        ("media.internal.", "MEDIA.internal", "10.0.0.1", 80, True),
        ("media.internal:81", "media.internal", "10.0.0.1", 80, False),
        ("media.internal", "a.media.internal", "10.0.0.1", 80, False),
        ("media.internal", "xmedia.internal", "10.0.0.1", 80, False),
        ("*.internal", "media.internal", "10.0.0.1", 80, True),
        ("*.internal", "a.b.internal", "10.0.0.1", 80, True),
        ("*.internal", "internal", "10.0.0.1", 80, False),
        ("*.internal", "evilinternal", "10.0.0.1", 80, False),
        ("*.internal:443", "a.internal", "10.0.0.1", 80, False),
        # Credentials of the instance: only by their very address.
        ("*.internal", "metadata.google.internal", "169.254.169.254", 80, False),
        ("0.0.0.0/0", "x", "169.254.169.254", 80, False),
        ("100.64.0.0/10", "oss-internal.example", "100.118.28.50", 80, True),
        ("100.64.0.0/10", "x", "100.100.100.200", 80, False),
        ("100.100.100.200", "x", "100.100.100.200", 80, True),
        ("fd00::/8", "x", "fd00:ec2::254", 80, False),
    ],
)
def test_allow_list(entry: str, host: str, address: str, port: int, permitted: bool) -> None:
    assert AllowList.parse([entry]).permits(host, to_address(address), port) is permitted


def test_allow_list_skips_blanks_and_an_empty_one_permits_nothing() -> None:
    assert AllowList.parse(["", " "]) == AllowList()
    assert not AllowList().permits("localhost", to_address("127.0.0.1"), 80)


@pytest.mark.parametrize(
    "entry",
    [
        "10.0.0.1/8", "10.1.0.0/33", "10.1.0", "256.1.1.1", "2130706433", "0x7f.1", "0x7f000001", "0177.0.0.1",
        "http://media.internal", "media.internal/x", "media.internal:", "media.internal:0", "media.internal:99999",
        "*", "*.", "*internal", "media.*", "a..b", "-a.b", "::1]", "[::1", "[::1]/128", "[media.internal]:80:1", "::g",
        "bücher.internal", "a b", "user@host",
    ],
)  # fmt: skip
def test_bad_entry_is_an_error_with_a_sentence(entry: str) -> None:
    with pytest.raises(ValueError, match=r"^AGENT_FETCH_ALLOW: .*\.$") as caught:
        AllowList.parse(["127.0.0.1", entry])
    assert repr(entry) in str(caught.value)


def backend_for(*answer: str, allow: Sequence[str] = ()) -> GuardedBackend:
    async def resolve(host: str, port: int) -> list[str]:
        return list(answer)

    return GuardedBackend(AllowList.parse(allow), resolve)


async def test_one_forbidden_address_refuses_the_host_and_is_not_named() -> None:
    with pytest.raises(AddressRefused) as caught:
        await backend_for("8.8.8.8", "10.9.8.7").connect_tcp("mixed.example", 80, timeout=5)
    assert "mixed.example" in str(caught.value)
    assert "10.9.8.7" not in repr(caught.value)


async def test_unix_sockets_are_refused() -> None:
    with pytest.raises(AddressRefused):
        await backend_for().connect_unix_socket("/var/run/docker.sock")


async def test_host_without_an_address_is_a_connect_error() -> None:
    with pytest.raises(httpcore.ConnectError):
        await backend_for().connect_tcp("nothing.example", 80, timeout=5)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "2130706433",
        "0x7f.1",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "localhost",
        "localhost.",
        "127.0.0.1.",
        "::ffff:127.0.0.1",
        "::1",
        "0",
        "0.0.0.0",
        "::",
        "::ffff:7f00:1",
        "[::1]",
    ],
)
async def test_odd_spellings_of_this_machine_are_refused_by_the_real_resolver(host: str) -> None:
    with pytest.raises((AddressRefused, httpcore.ConnectError)):
        await GuardedBackend(AllowList()).connect_tcp(host, 9, timeout=5)


@pytest.mark.parametrize("host", ["a" * 70 + ".example", "a..b", "x\0y"])
async def test_impossible_names_are_connect_errors(host: str) -> None:
    with pytest.raises(httpcore.ConnectError):
        await GuardedBackend(AllowList()).connect_tcp(host, 80, timeout=5)
