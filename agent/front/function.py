"""The engine function: agents with engines, behind one address of the platform's."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from pydantic_core import from_json

from agent.errors import (
    AgentError,
    EngineAccessDenied,
    EngineBusy,
    EngineUnreachable,
    HookNotAllowed,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    OriginNotAllowed,
    Unauthorized,
)
from agent.settings import Settings
from agent.traces import here

CONNECT_SECONDS = 10

#: How long the platform may take to say that it has queued an asynchronous request.
SUBMIT_SECONDS = 30

#: What the other agent answers to the front itself, not to the front's caller.
ABOUT_US = (Unauthorized, OriginNotAllowed, HookNotAllowed, NotFound, MethodNotAllowed, InvalidRequest)


class FunctionBroke(Exception):
    """No answer of the function's agent came: the connection or the instance broke. The task may run all the same."""


@dataclass(frozen=True, slots=True)
class Result:
    """A success: the final progress map as JSON. `is_kept`: the task store has it too."""

    task_id: str
    body: bytes = field(repr=False)
    is_kept: bool


def credentials(settings: Settings) -> dict[str, str]:
    """The headers by which the engine function knows the front."""
    given = {"X-Api-Key": settings.engine_api_key, "Authorization": settings.engine_authorization}
    return {name: secret.get_secret_value() for name, secret in given.items() if secret}


class EngineFunction:
    """Calls `POST /api/run` there. The credentials that it adds never reach the front's callers."""

    def __init__(self, settings: Settings) -> None:
        if settings.engine_url is None:
            raise ValueError("a front needs engine_url")
        self._url = f"{settings.engine_url.rstrip('/')}/api/run"
        self._headers = {"Content-Type": "application/json", **credentials(settings)}
        # An instance may have to be started, and its engine too, before the task gets its time.
        self._run_seconds = settings.engine_start_seconds + settings.task_timeout_seconds + 60
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def run(self, body: bytes, task_id: str | None) -> Result:
        """Run a task and wait for its result. Raises the task's error; FunctionBroke; EngineBusy,
        EngineAccessDenied and EngineUnreachable for what the platform answers in the agent's place."""
        status, headers, answer = await self._post(body, task_id, {}, self._run_seconds)
        # The platform answers 200 for an instance that could not be initialized. Our agent always echoes the task-id.
        if status == 200 and "task-id" in headers and "x-fc-error-type" not in headers:
            return Result(headers["task-id"], answer, is_kept=headers.get("x-fc-status") != "404")
        raise _failure(status, headers, answer)

    async def submit(self, body: bytes, task_id: str) -> None:
        """Hand a task over to the platform's queue, or to an agent that runs it in the background. Raises as `run`."""
        headers = {"X-Fc-Invocation-Type": "Async"}
        status, found, answer = await self._post(body, task_id, headers, SUBMIT_SECONDS)
        if status != 202:
            raise _failure(status, found, answer)

    async def _post(
        self, body: bytes, task_id: str | None, headers: dict[str, str], seconds: float
    ) -> tuple[int, Any, bytes]:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
                # A front is frozen too, and its connections die without a sign: none is kept idle for long.
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=3),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        named = {"task-id": task_id} if task_id else {}
        try:
            async with self._session.post(
                self._url,
                data=io.BytesIO(body),  # in pieces: bytes would be copied whole, and hold up the event loop
                headers={**self._headers, **here().headers(), **named, **headers},
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_SECONDS),
            ) as response:
                return response.status, response.headers, await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise FunctionBroke(type(exc).__name__) from exc


def _failure(status: int, headers: Any, body: bytes) -> Exception:
    """The error of an answer that is no success: the agent's own, or what the platform's comes to."""
    if error := _agents_error(headers, body):
        return EngineAccessDenied() if isinstance(error, ABOUT_US) else error
    if status in (401, 403):
        return EngineAccessDenied()
    if status == 429:
        return EngineBusy()
    if 400 <= status < 500 or 300 <= status < 400:
        return EngineUnreachable(
            f"The engine function's address answered {status}, and not as an agent does. Is AGENT_ENGINE_URL right?"
        )
    return FunctionBroke(f"HTTP {status}")


def _agents_error(headers: Any, body: bytes) -> AgentError | None:
    try:
        answer = from_json(body)
        code, error = answer["message"], dict(answer["error"])
        if code not in AgentError.by_code:
            return None
        found = AgentError.from_dict({"code": code, **error})
    except (ValueError, TypeError, KeyError):
        return None
    found.retry_after = _seconds(headers.get("Retry-After"))
    return found


def _seconds(value: str | None) -> int | None:
    return (
        int(value) if value is not None and value.isascii() and value.isdigit() and len(value) < 6 else None
    )
