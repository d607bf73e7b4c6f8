"""A request on its way through the platform: what it is refused for, and which headers pass (sections 3 to 5)."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

from tests.gateway.function import Account, Function

KB, MB = 1024, 1024 * 1024

#: Section 3: headers and path with query of a request, headers of a response.
LARGEST_HEADERS = 8 * KB
LONGEST_TARGET = 4 * KB

#: Section 4, and the same limit for answers.
LARGEST_SYNC_BODY = 32 * MB
LARGEST_ASYNC_BODY = 128 * KB

#: Section 3: of all x-fc-* headers a caller may set these.
CALLERS_OWN = {
    "x-fc-invocation-type",
    "x-fc-log-type",
    "x-fc-async-task-id",
    "x-fc-async-delay",
    "x-fc-trace-id",
}
DROPPED_FROM_REQUESTS = {"connection", "keep-alive"}
DROPPED_FROM_RESPONSES = {"connection", "date", "server", "upgrade", "keep-alive"}

#: Belong to one connection; each of the two that the gateway joins has its own.
OF_A_CONNECTION = {"expect", "transfer-encoding", "upgrade"}

#: Section 4.
TASK_ID = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,127}")
LONGEST_DELAY_SECONDS = 3600


class Refused(Exception):
    """The platform answers itself; no instance sees the request."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass(frozen=True)
class Call:
    """One request, with the headers that its container gets."""

    request_id: str
    method: str
    target: str  #: path and query as they came
    headers: CIMultiDict[str]
    is_async: bool = False
    task_id: str = ""  #: the platform's; of asynchronous calls alone
    delay_seconds: float = 0

    def __str__(self) -> str:
        return f"{self.method} {self.target}"

    @property
    def is_websocket(self) -> bool:
        return self.headers.get("Sec-WebSocket-Key") is not None


def read_call(request: web.Request, function: Function, account: Account) -> Call:
    """Take a caller's request in. Raises Refused."""
    if request.method not in function.methods:
        raise Refused(405, "MethodNotAllowed", f"The trigger does not take {request.method}.")
    if size_of(request.headers.items()) > LARGEST_HEADERS:
        raise Refused(400, "InvalidArgument", "The headers are larger than 8 KB.")
    if len(request.raw_path) > LONGEST_TARGET:
        raise Refused(400, "InvalidArgument", "Path and query are longer than 4 KB.")
    is_async = request.headers.get("X-Fc-Invocation-Type", "").lower() == "async"
    if (request.content_length or 0) > (LARGEST_ASYNC_BODY if is_async else LARGEST_SYNC_BODY):
        raise too_large(is_async=is_async)
    request_id = f"1-{uuid.uuid4()}"
    headers = _passing(request.headers)
    if is_async and not function.asynchronous.shows_type:
        headers.popall("X-Fc-Invocation-Type", None)
    headers.update(platform_headers(function, account, request_id, "/http-invoke"))
    return Call(
        request_id,
        request.method,
        request.raw_path,
        headers,
        is_async,
        _task_id(request, request_id) if is_async else "",
        _delay(request) if is_async else 0,
    )


def hook_call(method: str, path: str, function: Function, account: Account) -> Call:
    """A request of the platform's own: section 2. It has no body."""
    request_id = f"1-{uuid.uuid4()}"
    headers = CIMultiDict({**platform_headers(function, account, request_id, path), "Content-Length": "0"})
    return Call(request_id, method, path, headers)


def platform_headers(
    function: Function, account: Account, request_id: str, control_path: str
) -> dict[str, str]:
    """Section 3: what every request carries that reaches a container."""
    return {
        "x-fc-request-id": request_id,
        "x-fc-function-name": function.name,
        "x-fc-region": account.region,
        "x-fc-account-id": account.id,
        "x-fc-qualifier": "LATEST",
        "x-fc-version-id": "",
        "x-fc-control-path": control_path,
        **account.credentials,
    }


def callers_headers(headers: CIMultiDictProxy[str], request_id: str) -> CIMultiDict[str]:
    """What the caller gets of a container's response headers. Raises Refused where they are too large."""
    if size_of(headers.items()) > LARGEST_HEADERS:
        raise Refused(502, "BadResponse", "The response headers are larger than 8 KB.")
    dropped = DROPPED_FROM_RESPONSES | OF_A_CONNECTION
    passed = CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in dropped)
    for name in [name for name in passed if name.lower().startswith("x-fc-")]:
        passed.popall(name, None)
    passed["X-Fc-Request-Id"] = request_id
    # Section 5: the default domain makes browsers download whatever they open.
    passed.setdefault("Content-Disposition", "attachment")
    return passed


def refusal(error: Refused, request_id: str = "") -> web.Response:
    body = {"Code": error.code, "Message": error.message, "RequestId": request_id}
    return web.json_response(body, status=error.status, headers={"X-Fc-Request-Id": request_id})


def too_large(*, is_async: bool) -> Refused:
    """Section 4. The status of the synchronous one is not in the documentation."""
    limit = LARGEST_ASYNC_BODY if is_async else LARGEST_SYNC_BODY
    return Refused(400 if is_async else 413, "EntityTooLarge", f"The body is larger than {limit} bytes.")


async def read_async_body(request: web.Request) -> bytes:
    """Raises Refused beyond 128 KB."""
    body = b""
    async with asyncio.timeout(60):
        async for chunk in request.content.iter_any():
            body += chunk
            if len(body) > LARGEST_ASYNC_BODY:
                raise too_large(is_async=True)
    return body


def size_of(headers: Iterable[tuple[str, str]]) -> int:
    return sum(len(name) + len(value) + 4 for name, value in headers)


def _passing(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    dropped = DROPPED_FROM_REQUESTS | OF_A_CONNECTION
    return CIMultiDict(
        (name, value)
        for name, value in headers.items()
        if name.lower() not in dropped
        and (not name.lower().startswith("x-fc-") or name.lower() in CALLERS_OWN)
    )


def _task_id(request: web.Request, request_id: str) -> str:
    given = request.headers.get("X-Fc-Async-Task-Id")
    if given is not None and not TASK_ID.fullmatch(given):
        raise Refused(
            400, "InvalidArgument", "The task id begins with a letter or _, and has at most 128 characters."
        )
    return given or request_id


def _delay(request: web.Request) -> float:
    given = request.headers.get("X-Fc-Async-Delay", "0")
    if not given.isdigit() or int(given) > LONGEST_DELAY_SECONDS:
        raise Refused(400, "InvalidArgument", "The delay is 0 to 3600 seconds.")
    return float(given)
