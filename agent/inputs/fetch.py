"""Download input URLs: public ones only, in bounded time and size, without a trace of their secrets.

The query string of an input URL is often a signature or a token. It goes to the server that the URL names and
nowhere else: not into errors, not into logs, not to a redirect's target.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.message
import http.cookiejar
import logging
import ssl
import urllib.parse
from collections.abc import AsyncIterator

from agent import __version__
from agent.errors import AgentError, InputForbidden, InputNotFetched, InputTooLarge
from agent.inputs.addresses import AddressRefused, AllowList, Resolve, resolve_host
from agent.inputs.fetched import Fetched
from agent.inputs.guard import GuardedTransport
from comfyui.http import (
    URL,
    AsyncClient,
    ConnectError,
    ConnectTimeout,
    InvalidURL,
    Limits,
    NetworkError,
    RemoteProtocolError,
    Response,
    Timeout,
    TimeoutException,
    TransportError,
)

MAX_REDIRECTS = 5
CONNECT_SECONDS = 10.0

#: What ends a connection; before the answer began it is worth one more try, since GET changes nothing.
_CUT_OFF = (ConnectTimeout, NetworkError, RemoteProtocolError)

#: What the URL class raises: at first sight, or only once a part is taken away or put in.
MALFORMED = (InvalidURL, ValueError)


class Fetcher:
    """Downloads input URLs through one shared pool of connections. Calls may run at the same time."""

    def __init__(
        self,
        allow: AllowList,
        *,
        max_bytes: int,
        timeout_seconds: float,
        resolve: Resolve = resolve_host,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._allow = allow
        self._max_bytes = max_bytes
        self._timeout_seconds = timeout_seconds
        self._resolve = resolve
        self._tls = tls
        self._opened: AsyncClient | None = None

    async def fetch(self, url: str) -> Fetched:
        """Download one URL within the time limit, all redirects included.

        Raises InputForbidden (an address or scheme that is not for this server), InputTooLarge, and
        InputNotFetched for all else; each has the fact `url` without query, fragment and credentials. A cancelled
        call leaves nothing open.
        """
        start = _parse(url)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._download(start)
        except AgentError as exc:
            raise exc.with_facts(url=shown(start)) from None
        # Foreign errors are not chained: their texts can hold a redirect's target or an internal address.
        except AddressRefused as exc:
            raise InputForbidden(_forbidden(exc.host), url=shown(start)) from None
        except (TimeoutError, TransportError, *MALFORMED) as exc:
            raise InputNotFetched(self._reason(exc), url=shown(start)) from None

    async def close(self) -> None:
        """Close all connections. A later fetch opens new ones."""
        client, self._opened = self._opened, None
        if client is not None:
            await client.aclose()

    async def _download(self, start: URL) -> Fetched:
        url = start
        for _ in range(MAX_REDIRECTS + 1):
            async with self._answer(url) as answer:
                if not answer.has_redirect_location:
                    return Fetched(
                        data=await self._read(answer, url),
                        content_type=answer.headers.get("content-type"),
                        filename=_filename(answer.headers.get("content-disposition"), url, start),
                    )
                url = _redirected(url, answer.headers["location"])
        raise InputNotFetched(f"The input URL redirects more than {MAX_REDIRECTS} times.")

    @contextlib.asynccontextmanager
    async def _answer(self, url: URL) -> AsyncIterator[Response]:
        try:
            answer = await self._send(url)
        except _CUT_OFF:
            answer = await self._send(url)
        try:
            yield answer
        finally:
            await answer.aclose()

    async def _send(self, url: URL) -> Response:
        client = self._client()
        # The client logs each request's URL, so it gets one without secrets; the pool sends the real target.
        request = client.build_request("GET", bare(url), extensions={"target": url.raw_path})
        credentials = (url.username, url.password) if url.userinfo else None
        return await client.send(request, auth=credentials, stream=True)

    async def _read(self, answer: Response, url: URL) -> bytes:
        status = answer.status_code
        if status != 200:
            raise InputNotFetched(f"{_host(url)} answered {status} for the input URL.", status=status)
        encoding = answer.headers.get("content-encoding", "").strip().lower()
        if encoding not in ("", "identity"):
            # Unpacking could make any size of a few bytes, and we asked for identity.
            raise InputNotFetched(
                f"{_host(url)} sent the input compressed ({encoding[:20]!r}).", status=status
            )
        declared = answer.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self._max_bytes:
            raise self._too_large()
        chunks, size = [], 0
        async for chunk in answer.aiter_raw():
            size += len(chunk)
            if size > self._max_bytes:
                raise self._too_large()
            chunks.append(chunk)
        return b"".join(chunks)

    def _too_large(self) -> InputTooLarge:
        return InputTooLarge(
            f"The input file is larger than {self._max_bytes} bytes. "
            "Send a smaller one or raise AGENT_MAX_INPUT_BYTES.",
            limit=self._max_bytes,
        )

    def _reason(self, exc: Exception) -> str:
        match exc:
            case ConnectTimeout():
                return f"The input URL's server took no connection within {CONNECT_SECONDS:g} seconds."
            case TimeoutError() | TimeoutException():
                return f"The input URL took longer than {self._timeout_seconds:g} seconds."
            case ConnectError():
                return _no_connection(exc)
            case InvalidURL() | ValueError():  # the client looks at a redirect's target before we do
                return "The input URL redirects to a malformed URL."
            case _:
                return "The input URL's server broke off the connection or does not speak HTTP."

    def _client(self) -> AsyncClient:
        if self._opened is None:
            self._opened = open_client(self._allow, self._timeout_seconds, self._resolve, self._tls)
        return self._opened


def open_client(
    allow: AllowList, timeout_seconds: float, resolve: Resolve, tls: ssl.SSLContext | None
) -> AsyncClient:
    """A client that reaches what the guard lets it reach, and that keeps no cookies. It logs URLs: give it `bare` ones
    and the real target as the request's extension."""
    # At debug level the pool logs whole response headers, and a redirect's Location is as secret as a query.
    logging.getLogger("httpcore.http11").setLevel(logging.INFO)
    # Kept for the other files of a workflow. Not for long: connections of a frozen instance die without a sign.
    limits = Limits(max_connections=32, max_keepalive_connections=8, keepalive_expiry=3)
    no_cookies = http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
    return AsyncClient(
        transport=GuardedTransport(allow, limits=limits, resolve=resolve, tls=tls),
        # A proxy from the environment would walk round the guard.
        trust_env=False,
        # One caller's cookies are not the next one's.
        cookies=no_cookies,
        timeout=Timeout(timeout_seconds, connect=min(CONNECT_SECONDS, timeout_seconds)),
        headers={
            "User-Agent": f"comfyui-agent/{__version__}",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
        },
    )


def _parse(text: str) -> URL:
    try:
        url = URL(text.strip())
        bare(url)
    except MALFORMED:
        raise InputNotFetched("The input URL is malformed.") from None
    _check(url)
    return url


def _redirected(url: URL, location: str) -> URL:
    try:
        target = url.join(location)
        bare(target)
    except MALFORMED:
        raise InputNotFetched(f"{_host(url)} redirects to a malformed URL.") from None
    _check(target)
    if _origin(target) == _origin(url) and not target.userinfo:
        return target.copy_with(userinfo=url.userinfo)
    return target


def _check(url: URL) -> None:
    """Let only http and https URLs with a host pass; where it may lead is the transport's to judge."""
    if url.scheme not in ("http", "https"):
        raise InputForbidden("Only http and https URLs are fetched as inputs.", url=shown(url))
    if not url.raw_host or not 1 <= port_of(url) <= 65535:
        raise InputNotFetched("The input URL has no usable host and port.", url=shown(url))


def port_of(url: URL) -> int:
    return url.port if url.port is not None else {"http": 80, "https": 443}[url.scheme]


def _origin(url: URL) -> tuple[str, str, int]:
    return url.scheme, _host(url), port_of(url)


def _host(url: URL) -> str:
    """The host as the DNS spells it; `URL.host` raises for some names that begin with xn--."""
    return url.raw_host.decode("ascii")


def bare(url: URL) -> URL:
    """The URL without query, fragment and credentials, which may be secrets."""
    return url.copy_with(query=None, fragment=None, userinfo=b"")


def shown(url: URL) -> str:
    """What logs, errors and records may hold of a URL."""
    return str(bare(url))[:300]


def _forbidden(host: str) -> str:
    return (
        f"{host} is not on the public internet, and this server does not fetch inputs from there. "
        "AGENT_FETCH_ALLOW opens private hosts."
    )


def _no_connection(exc: BaseException) -> str:
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"The certificate of the input URL's server is not valid: {cause.verify_message}."
        cause = cause.__cause__ or cause.__context__
    return "The input URL's server cannot be reached."


def _filename(disposition: str | None, *urls: URL) -> str | None:
    """The first name with an extension: the server's own, else the last part of a URL's path."""
    names = [_attachment_name(disposition)] if disposition else []
    names += [urllib.parse.unquote(url.path) for url in urls]
    last_parts = (name.replace("\\", "/").rpartition("/")[2][-255:] for name in names)
    return next((name for name in last_parts if "." in name), None)


def _attachment_name(disposition: str) -> str:
    message = email.message.Message()
    message["content-disposition"] = disposition
    return message.get_filename() or ""
