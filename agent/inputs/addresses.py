"""Which addresses are on the public internet, and which private ones an operator has opened (AGENT_FETCH_ALLOW)."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Self

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

#: From host and port to all IP addresses of the host, as text. Raises OSError when there are none.
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


class AddressRefused(Exception):
    """A host that must not be reached. `host` is spelt as in the URL; what it resolves to is kept out."""

    def __init__(self, host: str) -> None:
        self.host = host
        super().__init__(f"{host} is not on the public internet")


# The version of Python decides what `is_global` says of these (3.11.7 calls most of them global), so they are
# named here, those that it refuses today included.
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; Alibaba Cloud's internal services
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local; most clouds' metadata
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",  # multicast and reserved
        "2001::/23",  # Teredo and other protocol assignments
        "2001:db8::/32",
        "2002::/16",  # 6to4: carries an IPv4 address
        "3fff::/20",
    )
)

# All of public IPv6 today. Outside lie loopback, IPv4-compatible, NAT64 (64:ff9b::/96 and 64:ff9b:1::/48),
# unique local (fc00::/7), link-local, site-local (fec0::/10) and multicast.
_GLOBAL_UNICAST_6 = ipaddress.ip_network("2000::/3")

# Where clouds hand credentials to whoever asks. Some lie inside networks that are reasonable to allow: Alibaba
# Cloud's is in 100.64.0.0/10, beside its internal object storage. So only their own address opens them.
_METADATA = tuple(
    ipaddress.ip_network(text)
    for text in (
        "169.254.0.0/16",
        "100.100.100.200/32",  # Alibaba Cloud
        "168.63.129.16/32",  # Azure: a public address that is answered by the host
        "192.0.0.192/32",  # Oracle Cloud
        "fd00:ec2::/32",  # AWS
        "fd20:ce::254/128",  # Google Cloud
    )
)


def to_address(text: str) -> IPAddress:
    """Read an IP address; an IPv4 address mapped into IPv6 becomes what it stands for. Raises ValueError."""
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_public(address: IPAddress) -> bool:
    """Tell whether an address belongs to the public internet."""
    if address.version == 6 and address not in _GLOBAL_UNICAST_6:
        return False
    return address.is_global and not _is_metadata(address) and not any(address in net for net in _NOT_PUBLIC)


def _is_metadata(address: IPAddress) -> bool:
    return any(address in network for network in _METADATA)


@dataclass(frozen=True, slots=True)
class _AllowedNetwork:
    network: IPNetwork
    port: int | None

    def covers(self, name: str, address: IPAddress) -> bool:  # noqa: ARG002 - one interface with _AllowedName
        if _is_metadata(address) and self.network.num_addresses > 1:
            return False
        return address in self.network


@dataclass(frozen=True, slots=True)
class _AllowedName:
    name: str
    port: int | None

    def covers(self, name: str, address: IPAddress) -> bool:
        if _is_metadata(address):
            return False
        if self.name.startswith("*."):
            return name.endswith(self.name[1:])
        return name == self.name


@dataclass(frozen=True, slots=True)
class AllowList:
    """Hosts and networks that may be reached although they are private (AGENT_FETCH_ALLOW).

    A cloud's metadata address is opened only by an entry with exactly this address, not by a name or a network.
    """

    entries: tuple[_AllowedNetwork | _AllowedName, ...] = ()

    @classmethod
    def parse(cls, entries: Iterable[str]) -> Self:
        """Read entries like `10.1.0.0/16`, `::1`, `media.internal`, `*.internal`, each also with `:port`.

        An IPv6 address with a port needs brackets: `[::1]:8080`. Blank entries are skipped. Raises ValueError
        with a sentence for the operator.
        """
        return cls(tuple(_parse_entry(entry) for entry in entries if entry.strip()))

    def permits(self, host: str, address: IPAddress, port: int) -> bool:
        """Tell whether an entry covers this host or this address of it, on this port."""
        name = host.lower().rstrip(".")
        return any(
            entry.covers(name, address) for entry in self.entries if entry.port is None or entry.port == port
        )


_HOST_AND_PORT = re.compile(r"(\[[^\[\]]+\]|[^:\[\]]+)(?::([0-9]{1,5}))?")
_ADDRESS_LIKE = re.compile(r"[0-9.]*|.*[:/].*")
_NAME = re.compile(r"(?:\*\.)?(?:[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?")
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")


def _parse_entry(entry: str) -> _AllowedNetwork | _AllowedName:
    host, port = _split_port(entry)
    if _ADDRESS_LIKE.fullmatch(host):
        try:
            return _AllowedNetwork(ipaddress.ip_network(host), port)
        except ValueError as exc:
            raise _bad_entry(entry, f"is no IP address or network ({exc})") from None
    name = host.removesuffix(".")
    # Resolvers read a last label of digits as a number: "0x7f.1" is 127.0.0.1.
    if not _NAME.fullmatch(name) or _NUMERIC_LABEL.fullmatch(name.rpartition(".")[2]):
        raise _bad_entry(entry, "is no host name; write media.internal, *.internal or 10.1.0.0/16")
    return _AllowedName(name, port)


def _split_port(entry: str) -> tuple[str, int | None]:
    text = entry.strip().lower()
    if text.count(":") > 1 and not text.startswith("["):
        return text, None  # bare IPv6
    match = _HOST_AND_PORT.fullmatch(text)
    if match is None:
        raise _bad_entry(entry, "is not of the form host, network, host:port or [IPv6]:port")
    port = int(match[2]) if match[2] else None
    if port is not None and not 1 <= port <= 65535:
        raise _bad_entry(entry, "has a port outside 1 to 65535")
    return match[1].strip("[]"), port


def _bad_entry(entry: str, why: str) -> ValueError:
    return ValueError(f"AGENT_FETCH_ALLOW: {entry.strip()!r} {why}.")


async def resolve_host(host: str, port: int) -> list[str]:
    """All addresses of a host by the system's resolver. Raises OSError; UnicodeError for an impossible name."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
