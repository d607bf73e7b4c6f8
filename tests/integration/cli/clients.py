"""Both clients behind one face, so that each test of one is a test of the other."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from typing import Any, Self

from agent.client import AgentClient, AsyncAgentClient


class AwaitedClient:
    """The asynchronous client on an event loop of its own; each call lasts until its answer is there."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._client = AsyncAgentClient(*arguments, **options)
        self._loop = asyncio.Runner()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run(self._client.close())
        self._loop.close()

    def events(self, task_id: str) -> Iterator[dict[str, Any]]:
        records = self._client.events(task_id)

        async def following() -> Any:
            return await anext(records, None)

        try:
            while (record := self._loop.run(following())) is not None:
                yield record
        finally:
            self._loop.run(records.aclose())

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not inspect.iscoroutinefunction(found):
            return found
        return lambda *arguments, **options: self._loop.run(found(*arguments, **options))


MakeClient = Callable[..., Any]

BOTH: dict[str, MakeClient] = {"blocking": AgentClient, "asyncio": AwaitedClient}
