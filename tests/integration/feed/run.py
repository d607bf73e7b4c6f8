"""Running prompts, and waiting for what becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from agent.tasks.progress import Progress
from comfyui.client import Client
from comfyui.events import Event
from comfyui.execution import Ended, Execution
from comfyui.feed import Feed
from comfyui.workflow import Workflow

DEADLINE = 20
CONNECT_SECONDS = 20
STEP_SECONDS = 0.005  #: how often a condition that nobody announces is looked at


@dataclass
class Told:
    """All that an execution said."""

    events: list[Event]
    progress: Progress
    graph: dict[str, Any] = field(repr=False)

    @property
    def ended(self) -> Ended:
        last = self.events[-1]
        assert isinstance(last, Ended)
        return last

    @property
    def files(self) -> list[str]:
        """Names of the files of node 9."""
        return [file["filename"] for file in self.progress.snapshot()["9"].images]

    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.events]


@dataclass
class Running:
    """Follows executions on one engine over one feed."""

    client: Client
    feed: Feed

    def execution(self, silence_seconds: float = 0.3, stall_seconds: float = 60) -> Execution:
        return Execution(self.client, self.feed, silence_seconds=silence_seconds, stall_seconds=stall_seconds)

    async def run(self, graph: dict[str, Any], **limits: float) -> Told:
        """Submit and follow to the end."""
        with self.execution(**limits) as execution:
            await execution.submit(graph)
            return await follow(execution, graph)


async def follow(execution: Execution, graph: dict[str, Any]) -> Told:
    progress, events = Progress(Workflow(graph)), []
    async with asyncio.timeout(DEADLINE):
        async for event in execution.events():
            events.append(event)
            progress.apply(event)
            if isinstance(event, Ended) and event.history is not None:
                progress.replace_outputs(event.history)
    assert isinstance(events[-1], Ended)
    assert not any(isinstance(event, Ended) for event in events[:-1])
    return Told(events, progress, graph)


async def eventually(
    condition: Callable[[], Awaitable[bool]] | Callable[[], bool], seconds: float = DEADLINE
) -> None:
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(STEP_SECONDS)


async def finished(client: Client, prompt_id: str) -> None:
    """Wait, without the feed, until the prompt is in the history."""

    async def has_entry() -> bool:
        return await client.history(prompt_id) is not None

    await eventually(has_entry)


async def started(client: Client, prompt_id: str) -> None:
    async def is_running() -> bool:
        return prompt_id in (await client.queue()).running

    await eventually(is_running)
