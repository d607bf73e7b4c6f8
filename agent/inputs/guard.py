"""An HTTP transport that reaches public addresses only, whatever a URL, a redirect or the DNS says.

The check sits where the socket is opened: the host is resolved once, every address of the answer is judged,
and one of exactly these is dialled. So it also holds for redirects, for a DNS answer that changes between check
and connect, and for odd spellings (`2130706433`, `0x7f.1`, `[::ffff:10.0.0.1]`). The URL's host is never
rewritten: SNI and the certificate's name check see the name that the caller wrote.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterable, Iterator

import httpcore

from agent.inputs.addresses import (
    AddressRefused,
    AllowList,
    IPAddress,
    Resolve,
    is_public,
    resolve_host,
    to_address,
)
from comfyui.http import (
    AsyncBaseTransport,
    AsyncByteStream,
    ConnectError,
    ConnectTimeout,
    Limits,
    NetworkError,
    RemoteProtocolError,
    Request,
    Response,
    TimeoutException,
    TransportError,
)


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Opens TCP connections to public and allowed addresses; everything else raises AddressRefused.

    A host with a single forbidden address is refused whole: no honest public host has one.
    """

    def __init__(self, allow: AllowList, resolve: Resolve = resolve_host) -> None:
        self._allow = allow
        self._resolve = resolve
        self._dial = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address that answers. `timeout` (seconds) covers look-up and all attempts."""
        deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
        addresses = await self._checked_addresses(host, port, timeout)
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for tried, address in enumerate(addresses):
            try:
                return await self._dial.connect_tcp(
                    str(address),
                    port,
                    timeout=_share_of(deadline, len(addresses) - tried),
                    local_address=local_address,
                    socket_options=socket_options,
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as exc:
                failure = exc
        raise failure

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ARG002 - httpcore's interface
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,  # noqa: ARG002
    ) -> httpcore.AsyncNetworkStream:
        """Refuse: a Unix socket is never public."""
        raise AddressRefused(path)

    async def sleep(self, seconds: float) -> None:
        """Wait, as the pool does between its own retries."""
        await asyncio.sleep(seconds)

    async def _checked_addresses(self, host: str, port: int, timeout: float | None) -> list[IPAddress]:
        try:
            async with asyncio.timeout(timeout):
                found = await self._resolve(host, port)
        except TimeoutError as exc:
            raise httpcore.ConnectTimeout(f"{host} was not resolved in time") from exc
        except (OSError, UnicodeError, OverflowError) as exc:
            raise httpcore.ConnectError(f"{host} cannot be resolved") from exc
        addresses = [to_address(text) for text in found]
        if not all(is_public(each) or self._allow.permits(host, each, port) for each in addresses):
            raise AddressRefused(host)
        return addresses


def _share_of(deadline: float | None, attempts_left: int) -> float | None:
    """Seconds for the next attempt, so that one silent address leaves time for the others."""
    if deadline is None:
        return None
    return max(deadline - asyncio.get_running_loop().time(), 0) / attempts_left


class GuardedTransport(AsyncBaseTransport):
    """The HTTP client's way to the network, through a connection pool over GuardedBackend. HTTP/1.1 only.

    Raises the client library's TransportErrors, and AddressRefused. `tls` replaces the default context, which
    verifies certificates and host names against the usual authorities.
    """

    def __init__(
        self,
        allow: AllowList,
        *,
        limits: Limits,
        resolve: Resolve = resolve_host,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            # The pool itself would make a new one, reading all authorities from disk, for each connection.
            ssl_context=tls or httpcore.default_ssl_context(),
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            network_backend=GuardedBackend(allow, resolve),
        )

    async def handle_async_request(self, request: Request) -> Response:
        """Send one request; the body of the answer is still to be read."""
        outgoing = httpcore.Request(
            request.method,
            httpcore.URL(
                scheme=request.url.raw_scheme,
                host=request.url.raw_host,
                port=request.url.port,
                target=request.url.raw_path,
            ),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        with _translated_errors():
            answer = await self._pool.handle_async_request(outgoing)
        return Response(
            answer.status, headers=answer.headers, stream=_Body(answer), extensions=answer.extensions
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._pool.aclose()


class _Body(AsyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _translated_errors():
            async for part in self._answer.aiter_stream():
                yield part

    async def aclose(self) -> None:
        await self._answer.aclose()


#: The first match counts. OSError: a TLS fault in the middle of a body passes through httpcore as it is.
_TRANSLATIONS: tuple[tuple[type[Exception], type[TransportError]], ...] = (
    (httpcore.ConnectTimeout, ConnectTimeout),
    (httpcore.TimeoutException, TimeoutException),
    (httpcore.ConnectError, ConnectError),
    (httpcore.NetworkError, NetworkError),
    (httpcore.RemoteProtocolError, RemoteProtocolError),
    (httpcore.ProtocolError, TransportError),
    (httpcore.UnsupportedProtocol, TransportError),
    (OSError, NetworkError),
)


@contextlib.contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except Exception as exc:
        for foreign, ours in _TRANSLATIONS:
            if isinstance(exc, foreign):
                raise ours(str(exc)) from exc
        raise
