"""Posts one message to one URL, under the same guard as input URLs and without a trace of the URL's secrets."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from agent.inputs.addresses import (
    AddressRefused,
    AllowList,
    IPAddress,
    Resolve,
    is_public,
    resolve_host,
    to_address,
)
from agent.webhooks.signing import message_headers

if TYPE_CHECKING:
    from comfyui.http import AsyncClient

#: Characters of a webhook's URL.
LONGEST_URL = 2048


@dataclass(frozen=True, slots=True)
class Answer:
    """How one try ended. `error` is None when the message was taken; `status` is None when nothing was answered.

    `is_last`: another try would end no better. `retry_after`: seconds that the receiver asks to be left alone.
    """

    status: int | None = None
    error: str | None = None
    is_last: bool = False
    retry_after: float | None = None


class Sender:
    """Posts signed messages. Calls may run at the same time."""

    def __init__(
        self,
        keys: Sequence[bytes],
        allow: AllowList,
        *,
        timeout_seconds: float,
        resolve: Resolve = resolve_host,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.timeout_seconds = timeout_seconds
        self._keys, self._allow = tuple(keys), allow
        self._resolve, self._tls = resolve, tls
        self._opened: AsyncClient | None = None

    def check(self, url: str) -> str:
        """The URL without its secrets, to be shown. Raises ValueError with a sentence when it can be no webhook's:
        its host's name is only looked up when something is sent, but an address in its place is judged now."""
        from agent.inputs.fetch import MALFORMED, bare, port_of, shown  # noqa: PLC0415 - httpx: many services tell no webhook
        from comfyui.http import URL  # noqa: PLC0415

        if len(url) > LONGEST_URL:
            raise ValueError(f"a URL has at most {LONGEST_URL} characters here")
        try:
            parsed = URL(url)
            bare(parsed)
        except MALFORMED:
            raise ValueError("it is not a URL") from None
        if parsed.scheme not in ("http", "https") or not parsed.raw_host:
            raise ValueError("it must be a whole http or https URL")
        host, port = parsed.raw_host.decode("ascii"), port_of(parsed)
        if not 1 <= port <= 65535:
            raise ValueError("it has no usable port")
        address = _literal_address(host)
        if address is not None and not (is_public(address) or self._allow.permits(host, address, port)):
            raise ValueError(_refused(host))
        return shown(parsed)

    async def post(self, url: str, message_id: str, body: bytes, *, seconds: float | None = None) -> Answer:
        """Post a JSON body once. Never raises for what the network or the receiver does; a redirect is not followed.

        `seconds` shortens the time limit.
        """
        from agent.inputs.fetch import MALFORMED  # noqa: PLC0415
        from comfyui.http import TransportError  # noqa: PLC0415

        limit = min(self.timeout_seconds, seconds or self.timeout_seconds)
        try:
            async with asyncio.timeout(limit):
                return await self._post(url, message_id, body)
        # What foreign errors say is kept out: it can hold a part of the URL or an internal address.
        except AddressRefused as exc:
            return Answer(error=f"{_refused(exc.host)}.", is_last=True)
        except TimeoutError:
            return Answer(error=f"The receiver did not answer within {limit:g} seconds.")
        except (TransportError, *MALFORMED) as exc:
            return Answer(error=_broken(exc))

    async def close(self) -> None:
        """Close all connections. A later post opens new ones."""
        client, self._opened = self._opened, None
        if client is not None:
            await client.aclose()

    async def _post(self, text: str, message_id: str, body: bytes) -> Answer:
        from agent.inputs.fetch import bare, open_client  # noqa: PLC0415
        from comfyui.http import URL  # noqa: PLC0415

        url = URL(text)
        if self._opened is None:
            self._opened = open_client(self._allow, self.timeout_seconds, self._resolve, self._tls)
        client = self._opened
        headers = message_headers(self._keys, message_id, int(time.time()), body)
        # The client logs each request's URL, so it gets one without secrets; the pool sends the real target.
        request = client.build_request(
            "POST",
            bare(url),
            content=body,
            headers={"Content-Type": "application/json", **headers},
            extensions={"target": url.raw_path},
        )
        credentials = (url.username, url.password) if url.userinfo else None
        response = await client.send(request, auth=credentials, stream=True)
        await response.aclose()  # nobody reads what the receiver has to say beside its status
        status = response.status_code
        if 200 <= status < 300:
            return Answer(status)
        retry_after = _seconds(response.headers.get("retry-after"))
        return Answer(status, _said(status), status == 410 or 300 <= status < 400, retry_after)


def _literal_address(host: str) -> IPAddress | None:
    """The address that a host is written as, in any spelling that the resolver takes; None for a name."""
    with suppress(ValueError):
        return to_address(host)
    with suppress(OSError):
        return ipaddress.IPv4Address(socket.inet_aton(host))  # 2130706433, 0x7f.1
    return None


def _refused(host: str) -> str:
    return f"{host} is not on the public internet, and AGENT_FETCH_ALLOW does not open it"


def _said(status: int) -> str:
    if status == 410:
        return "The receiver answered 410: it wants no more messages."
    if 300 <= status < 400:
        return f"The receiver answered {status}: redirects are not followed, name the URL itself."
    return f"The receiver answered {status}."


def _broken(exc: BaseException) -> str:
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"The certificate of the receiver is not valid: {cause.verify_message}."
        cause = cause.__cause__ or cause.__context__
    return "The receiver cannot be reached, or broke off the connection."


def _seconds(retry_after: str | None) -> float | None:
    """What a Retry-After header means: seconds, or a date. None for nonsense."""
    if retry_after is None:
        return None
    if retry_after.isascii() and retry_after.isdecimal():
        return float(retry_after[:9])
    try:
        moment = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
