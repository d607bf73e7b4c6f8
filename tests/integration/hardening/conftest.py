"""Agents in this process, so that a test can look into them; what stands around them may lie, stall or go away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from agent.api.keys import BOARD
from agent.tasks.board import TaskBoard
from agent.tasks.record import Attempt, TaskRecord
from agent.tasks.redis import RedisStore
from agent.tasks.store import Claim, Stored
from comfyui.workflow import Workflow
from tests.integration.agent.conftest import agent, make_agent, media, real_agent, simulated_agent
from tests.integration.agent.graphs import Graph
from tests.integration.agent.service import Agent, eventually
from tests.redis_server import RedisServer

__all__ = ["agent", "make_agent", "media", "real_agent", "simulated_agent"]

#: Short enough to wait for several of them.
LEASE_SECONDS = 0.5


def board_of(agent: Agent) -> TaskBoard:
    return agent._runner.app[BOARD]


def record_of(task_id: str, graph: Graph, deliver_until: float | None = None) -> TaskRecord:
    """The record of the ghost's first attempt at a task."""
    return TaskRecord(
        id=task_id,
        workflow_digest=Workflow.parse(graph).digest(None),
        attempts=[Attempt(number=1, instance="ghost", started_at=1)],
        created_at=1,
        deliver_until=deliver_until,
    )


@dataclass
class Ghost:
    """Another instance, as the store shows it: it can own tasks, and never does anything by itself."""

    store: RedisStore
    url: str
    prefix: str

    async def take(
        self, task_id: str, graph: Graph, lease_seconds: float, deliver_until: float | None = None
    ) -> Claim:
        claim = await self._try(record_of(task_id, graph, deliver_until), lease_seconds, 0)
        assert isinstance(claim, Claim), claim
        return claim

    async def seize(self, task_id: str, graph: Graph) -> Claim:
        """Take a task from its living owner, as if its lease had run out."""

        async def once() -> Claim | None:
            async with Redis.from_url(self.url) as client:
                await client.delete(f"{self.prefix}{{{task_id}}}:lease")
            taken = await self._try(record_of(task_id, graph), 30, 1)
            return taken if isinstance(taken, Claim) else None  # its owner has just extended the lease

        claim: Claim = await eventually(once)
        return claim

    async def _try(self, record: TaskRecord, lease_seconds: float, fence: int) -> Claim | Stored:
        return await self.store.take(record, expected_fence=fence, owner="ghost", lease_seconds=lease_seconds)

    async def is_watched(self, task_id: str) -> bool:
        """Whether somebody waits for the task's changes."""
        async with Redis.from_url(self.url) as client:
            ((_, watchers),) = await client.pubsub_numsub(f"{self.prefix}{{{task_id}}}:changes")
            return bool(watchers)

    async def is_gone(self, task_id: str) -> bool:
        stored = await self.store.read(task_id)
        return stored is not None and stored.owner is None


@pytest_asyncio.fixture(loop_scope="session")
async def ghost(private_redis: RedisServer, redis_prefix: str) -> AsyncIterator[Ghost]:
    store = RedisStore(private_redis.url, prefix=redis_prefix, record_ttl_seconds=60, output_ttl_seconds=60)
    yield Ghost(store, private_redis.url, redis_prefix)
    await store.close()


@pytest.fixture
def fleet(private_redis: RedisServer, redis_prefix: str) -> dict[str, object]:
    """Settings of an agent that shares its tasks with the ghost, on a Redis that the test may stop."""
    return {
        "redis_url": private_redis.url,
        "redis_prefix": redis_prefix,
        "redis_timeout_seconds": 1.5,
        "lease_seconds": LEASE_SECONDS,
    }
