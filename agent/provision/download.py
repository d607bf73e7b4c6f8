"""Download one model into its part file: go on where an earlier try stopped, try again when a connection breaks.

The manifest is the operator's own: unlike the inputs of callers its URLs may lead to private addresses, and go through
the environment's proxy. Queries of URLs, which may be signatures, and tokens appear in no text.
"""

from __future__ import annotations

import asyncio
import http.cookiejar
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from agent import __version__
from agent.provision.errors import ProvisionError, TryAgain
from agent.provision.manifest import ModelEntry
from agent.provision.part import Part
from agent.provision.space import Space
from agent.provision.store import CHUNK_BYTES
from comfyui.http import (
    URL,
    AsyncClient,
    ConnectError,
    ConnectTimeout,
    InvalidURL,
    Response,
    Timeout,
    TimeoutException,
    TransportError,
)

MAX_REDIRECTS = 5

#: What may be different in a moment: too early, too many, or the server's own trouble.
PASSING_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})

#: Takes the bytes that are there and, where known, the bytes of the whole file.
Tell = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a server may be silent, and how often a download that makes no progress is tried."""

    connect_seconds: float = 15
    stall_seconds: float = 60
    tries: int = 5
    pause_seconds: float = 1
    longest_pause_seconds: float = 60

    def pause(self, failures: int, asked: float | None) -> float:
        """Seconds to wait after so many failures in a row, or as the server asked."""
        wanted = asked if asked is not None else self.pause_seconds * 2 ** (failures - 1)
        return min(wanted, self.longest_pause_seconds)


class Downloader:
    """Downloads through one pool of connections. `tokens` maps hosts to what they take as bearer token; a host whose
    variable is not set has None. Calls may run at the same time. `async with` closes all connections at the end.
    """

    def __init__(
        self, tokens: Mapping[str, str | None], space: Space, patience: Patience | None = None
    ) -> None:
        self._tokens = tokens
        self._space = space
        self._patience = patience or Patience()
        self._client = AsyncClient(
            timeout=Timeout(self._patience.stall_seconds, connect=self._patience.connect_seconds, pool=None),
            headers={
                "User-Agent": f"comfyui-agent/{__version__}",
                "Accept": "*/*",
                "Accept-Encoding": "identity",
            },
            cookies=http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(allowed_domains=[])),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def fetch(self, entry: ModelEntry, part: Part, tell: Tell) -> None:
        """Bring the part to its end, with the right SHA-256.

        Raises ProvisionError with what is wrong. The part stays for the next run, unless its content was wrong: then
        it is deleted.
        """
        await self._complete(entry, part, tell)
        if part.sha256() != entry.sha256 and part.is_joined:
            # The pieces may be of two versions: a server need not tell them apart.
            await part.restart()
            await self._complete(entry, part, tell)
        if part.sha256() != entry.sha256:
            got = part.sha256()
            part.delete()
            raise ProvisionError(
                f"expected SHA-256 {entry.sha256}, got {got}; what came was deleted. "
                "Compare url and sha256 with the model's page."
            )

    async def _complete(self, entry: ModelEntry, part: Part, tell: Tell) -> None:
        failures = 0
        while True:
            before = part.size
            try:
                await self._attempt(entry, part, tell)
                return
            except TryAgain as exc:
                failures = 1 if part.size > before else failures + 1
                if failures >= self._patience.tries:
                    raise ProvisionError(f"{exc}, {failures} times in a row. Try again later.") from None
                await asyncio.sleep(self._patience.pause(failures, exc.after_seconds))
            finally:
                self._space.release(part)

    async def _attempt(self, entry: ModelEntry, part: Part, tell: Tell) -> None:
        """Ask for what is missing and append it."""
        url = URL(entry.url)
        try:
            answer = await self._open(url, part)
            try:
                total = await self._begin(entry, part, answer)
                tell(part.size, total)
                if total is not None:
                    self._space.reserve(part, total - part.size)
                if part.size != total:
                    await self._read(answer, part, total, tell)
            finally:
                await answer.aclose()
        except ConnectTimeout as exc:
            seconds = self._patience.connect_seconds
            raise TryAgain(f"{_host(url)} took no connection within {seconds:g} seconds") from exc
        except TimeoutException as exc:
            raise TryAgain(f"{_host(url)} was silent for {self._patience.stall_seconds:g} seconds") from exc
        except ConnectError as exc:
            raise TryAgain(f"{_host(url)} cannot be reached ({exc})") from exc
        except TransportError as exc:
            raise TryAgain(f"{_host(url)} broke off the connection") from exc
        if total is not None and part.size < total:
            raise TryAgain(f"{_host(url)} sent {part.size} of {total} bytes")

    async def _read(self, answer: Response, part: Part, total: int | None, tell: Tell) -> None:
        async for chunk in answer.aiter_raw(CHUNK_BYTES):
            await part.append(chunk)
            if total is not None:
                self._space.note(part, total - part.size)
            tell(part.size, total)

    async def _open(self, start: URL, part: Part) -> Response:
        """The answer at the end of all redirects. A token goes to the host it is for, and to no other."""
        url = start
        for _ in range(MAX_REDIRECTS + 1):
            request = self._client.build_request("GET", url, headers=self._headers(url, start, part))
            answer = await self._client.send(request, stream=True, follow_redirects=False)
            if not answer.has_redirect_location:
                return answer
            await answer.aclose()
            try:
                url = url.join(answer.headers["location"])
            except (InvalidURL, ValueError):
                url = URL()
            if url.scheme not in ("http", "https") or not url.raw_host:
                raise ProvisionError(f"{_host(start)} redirects to something that is no web address")
        raise ProvisionError(f"{_host(start)} redirects more than {MAX_REDIRECTS} times")

    def _headers(self, url: URL, start: URL, part: Part) -> dict[str, str]:
        headers = {}
        token = self._tokens.get(_host(url))
        # Never in the clear, unless the operator wrote http:// himself.
        if token and (url.scheme == "https" or (url.scheme, _host(url)) == (start.scheme, _host(start))):
            if not (token.isascii() and token.isprintable()):
                raise ProvisionError(f"the token for {_host(url)} holds characters that no token can have")
            headers["Authorization"] = f"Bearer {token}"
        if part.size:
            headers["Range"] = f"bytes={part.size}-"
            if part.validator:
                headers["If-Range"] = part.validator
        return headers

    async def _begin(self, entry: ModelEntry, part: Part, answer: Response) -> int | None:
        """Check the head of an answer and make the part ready for its body; returns the size of the whole file."""
        status = answer.status_code
        if status == 416 and part.size:
            # Either everything is here already, or the file on the server is another one now.
            if _content_range(answer) != (None, part.size):
                await part.restart()
                raise TryAgain(f"{_host(answer.url)} has no such range any more", 0)
            part.is_joined = True
            return part.size
        if status not in (200, 206):
            raise self._refusal(answer)
        if answer.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            raise ProvisionError(f"{_host(answer.url)} sent the file compressed, which was not asked for")
        if status == 206:
            start, total = _content_range(answer)
            if start != part.size:
                await part.restart()
                raise TryAgain(f"{_host(answer.url)} sent another range than the one asked for", 0)
            part.is_joined = True
        else:
            if part.size:
                await part.restart()  # it ignores ranges, or has a newer file
            length = answer.headers.get("content-length", "")
            total = int(length) if length.isdecimal() else None
        if entry.bytes is not None and total is not None and total != entry.bytes:
            raise ProvisionError(
                f"{_host(answer.url)} has {total} bytes, the manifest says {entry.bytes}: correct `bytes` or `url`"
            )
        if not part.size:
            part.remember(_validator(answer))
        return total

    def _refusal(self, answer: Response) -> ProvisionError:
        status, host = answer.status_code, _host(answer.url)
        said = f"{host} answered {status} {answer.reason_phrase}".rstrip()
        if status in PASSING_STATUSES:
            after = answer.headers.get("retry-after", "")
            return TryAgain(said, float(after) if after.isdecimal() else None)
        if status in (401, 403):
            if host not in self._tokens:
                return ProvisionError(
                    f"{said}: if it wants a token, name its environment variable under `tokens`"
                )
            if self._tokens[host] is None:
                return ProvisionError(f"{said}: the environment variable with its token is not set")
            return ProvisionError(f"{said}: it does not accept the token, or its terms are not yet agreed to")
        if status in (404, 410):
            return ProvisionError(f"{said}: correct `url`")
        return ProvisionError(said)


def _content_range(answer: Response) -> tuple[int | None, int | None]:
    """First byte and size of the whole, as far as told."""
    match = re.fullmatch(
        r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", answer.headers.get("content-range", "").strip(), re.IGNORECASE
    )
    if match is None:
        return None, None
    return (int(match[1]) if match[1] else None), (int(match[2]) if match[2].isdecimal() else None)


def _validator(answer: Response) -> str | None:
    """What If-Range accepts: a strong ETag, else the date."""
    etag = answer.headers.get("etag", "").strip()
    if etag.startswith('"'):
        return str(etag)
    modified: str | None = answer.headers.get("last-modified")
    return modified


def _host(url: URL) -> str:
    """Host as `tokens` names it: with the port where the URL has one that is not the scheme's own."""
    with suppress(UnicodeDecodeError):
        return url.netloc.decode("ascii").lower()
    return "the server"
