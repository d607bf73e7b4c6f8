"""The asynchronous client, on aiohttp."""

from __future__ import annotations

import asyncio
import io
import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from inspect import isawaitable
from math import isinf
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp
from yarl import URL

from agent.client.conversation import RUN_SECONDS, Conversation, Done, Steps, advance, named_body
from agent.client.errors import AgentClientError, AgentUnreachable, TaskFailed, tls_reason
from agent.client.following import STREAM_SILENCE_SECONDS, Following
from agent.client.results import OutputFile, Result
from agent.client.retries import RETRY_PAUSES
from agent.client.wire import (
    FINAL_STATES,
    KEY_HEADER,
    Answer,
    Call,
    Deadline,
    Pause,
    Source,
    Workflow,
    checked_key,
    has_same_origin,
    is_loopback,
    origin,
)

#: Bytes: a signed URL in a redirect may be long.
LONGEST_HEADER = 65536

#: What it returns is awaited, if it can be.
OnProgress = Callable[[dict[str, Any]], object]
T = TypeVar("T")


class AsyncAgentClient:
    """AgentClient for asyncio: the same methods, results and errors. Any number of tasks may share one.

    A call that is cancelled hangs up, which cancels a `run`; what was submitted goes on.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        timeout: float = 30,
        *,
        retry_pauses: Sequence[float] = RETRY_PAUSES,
        platform_queue: bool = False,
    ) -> None:
        self._agent = Conversation(url, retry_pauses, platform_queue=platform_queue)
        self.url, self.timeout = self._agent.url, timeout
        self._key = None if api_key is None else checked_key(api_key)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. The client can be used again."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def run(
        self, workflow: Workflow, task_id: str | None = None, *, timeout: float = RUN_SECONDS
    ) -> Result:
        """As AgentClient.run."""
        return await self._do(self._agent.run(workflow, task_id, timeout))

    async def submit(self, workflow: Workflow, task_id: str | None = None) -> str:
        """As AgentClient.submit."""
        return await self._do(self._agent.submit(workflow, task_id))

    async def workflows(self) -> list[dict[str, Any]]:
        """As AgentClient.workflows."""
        return await self._do(self._agent.workflows())

    async def workflow(self, name: str) -> dict[str, Any]:
        """As AgentClient.workflow."""
        return await self._do(self._agent.workflow(name))

    async def run_workflow(
        self,
        name: str,
        parameters: Mapping[str, Any] | None = None,
        files: Mapping[str, Source] | None = None,
        task_id: str | None = None,
        *,
        options: Mapping[str, Any] | None = None,
        timeout: float = RUN_SECONDS,
    ) -> Result:
        """As AgentClient.run_workflow."""
        body = await asyncio.to_thread(named_body, parameters, files, options)
        return await self._do(self._agent.run_workflow(name, body, task_id, timeout))

    async def submit_workflow(
        self,
        name: str,
        parameters: Mapping[str, Any] | None = None,
        files: Mapping[str, Source] | None = None,
        task_id: str | None = None,
        *,
        options: Mapping[str, Any] | None = None,
    ) -> str:
        """As AgentClient.submit_workflow."""
        body = await asyncio.to_thread(named_body, parameters, files, options)
        return await self._do(self._agent.submit_workflow(name, body, task_id))

    async def task(self, task_id: str) -> dict[str, Any]:
        """As AgentClient.task."""
        return await self._do(self._agent.task(task_id))

    def events(self, task_id: str) -> AsyncGenerator[dict[str, Any], None]:
        """As AgentClient.events. Who leaves early closes it, with contextlib.aclosing."""
        return self._events(self._agent.follow(task_id, None))

    async def wait(
        self, task_id: str, on_progress: OnProgress | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        """As AgentClient.wait. `on_progress` may be a coroutine function."""
        async with aclosing(self._events(self._agent.follow(task_id, timeout))) as records:
            async for record in records:
                if on_progress is not None and isawaitable(shown_to := on_progress(record)):
                    await shown_to
                if record["state"] in FINAL_STATES:
                    if record["state"] != "succeeded":
                        raise TaskFailed(record)
                    return record
        raise AssertionError("the event stream ends with a final record or raises")

    async def fetch_output(self, task_id: str, number: int) -> bytes:
        """As AgentClient.fetch_output."""
        return await self._do(self._agent.output(task_id, number))

    async def fetch_outputs(self, task_id: str) -> list[OutputFile]:
        """As AgentClient.fetch_outputs."""
        return await self._do(self._agent.outputs(task_id))

    async def cancel(self, task_id: str) -> dict[str, Any]:
        """As AgentClient.cancel."""
        return await self._do(self._agent.cancel(task_id))

    async def ready(self) -> bool:
        """As AgentClient.ready."""
        return await self._do(self._agent.ready())

    async def _do(self, steps: Steps[T]) -> T:
        given: Answer | AgentUnreachable | None = None
        while True:
            step = await asyncio.to_thread(advance, steps, given)
            if isinstance(step, Done):
                return step.value
            given = await self._take(step)

    async def _take(self, step: Call | Pause) -> Answer | AgentUnreachable | None:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        read_seconds = step.read_seconds or self.timeout
        limits = aiohttp.ClientTimeout(
            total=None,
            connect=min(self.timeout, read_seconds),
            sock_read=None if isinf(read_seconds) else read_seconds,
        )
        try:
            with reaching(step.url):
                async with await self._request(step, limits) as response:
                    return _answer(response, await response.read())
        except AgentUnreachable as error:
            return error

    async def _request(self, call: Call, limits: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        """The head of an answer."""
        headers = dict(call.headers)
        if self._key is not None and has_same_origin(call.url, self.url):
            headers[KEY_HEADER] = self._key
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers={"User-Agent": "comfyui-agent-client"},
                trust_env=not is_loopback(self.url),
                max_field_size=LONGEST_HEADER,
            )
        url = URL(call.url, encoded=True)  # a signature holds for the letters that were signed
        # aiohttp writes bytes in one piece, and warns of it where they are many.
        body = None if call.body is None else io.BytesIO(call.body)
        return await self._session.request(
            call.method, url, data=body, headers=headers, timeout=limits, allow_redirects=False
        )

    async def _events(self, task: Following) -> AsyncGenerator[dict[str, Any], None]:
        while True:
            lost: AgentClientError = task.ended()
            try:
                async with await self._open_stream(task) as response:
                    async for chunk in _chunks(response, task.deadline):
                        for record in task.feed(chunk):
                            yield record
                        if task.is_over:
                            return
            except AgentClientError as error:
                lost = error
            await asyncio.sleep(task.lost(lost))

    async def _open_stream(self, task: Following) -> aiohttp.ClientResponse:
        with reaching(task.call.url):
            async with asyncio.timeout(task.deadline.cap(self.timeout)):
                response = await self._request(task.call, aiohttp.ClientTimeout(total=None))
                try:
                    task.opened(_answer(response, b"" if response.ok else await response.read()))
                except BaseException:
                    response.close()
                    raise
                return response


def _answer(response: aiohttp.ClientResponse, body: bytes) -> Answer:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(str(response.url), response.status, headers, body)


async def _chunks(response: aiohttp.ClientResponse, deadline: Deadline) -> AsyncIterator[bytes]:
    """What the server sends, as soon as it is there."""
    while True:
        with reaching(str(response.url)):
            async with asyncio.timeout(deadline.cap(STREAM_SILENCE_SECONDS)):
                chunk = await response.content.readany()
        if not chunk:
            return
        yield chunk


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Within, what aiohttp raises when a connection cannot be had or breaks is AgentUnreachable."""
    try:
        yield
    except TimeoutError as exc:
        raise AgentUnreachable(f"{origin(url)} does not answer in time.") from exc
    except aiohttp.ClientConnectorError as exc:
        if isinstance(exc.os_error, ssl.SSLError):
            raise AgentUnreachable(f"{origin(url)} cannot be reached: {tls_reason(exc.os_error)}.") from exc
        # asyncio words it itself, and no better than the system does.
        number = exc.os_error.errno or 0
        reason = os.strerror(number) if number > 0 else exc.os_error.strerror or str(exc.os_error)
        raise AgentUnreachable(f"{origin(url)} cannot be reached: {reason}.") from exc
    except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, aiohttp.ClientResponseError) as exc:
        reason = (str(exc) or type(exc).__name__).partition("\n")[0].rstrip(".")
        raise AgentUnreachable(f"The connection to {origin(url)} broke: {reason}.", broke=True) from exc
    except (aiohttp.ClientError, ValueError) as exc:
        raise AgentUnreachable(f"{origin(url)} cannot be reached: {exc}") from exc
