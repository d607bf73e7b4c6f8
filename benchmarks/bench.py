"""What every group is given: where to run, how long, and the servers that it needs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from benchmarks.places import Places
from benchmarks.setup import EngineKind, Setup, running_setup


@dataclass(frozen=True)
class Bench:
    """`is_quick` only tries whether everything works: its figures mean nothing."""

    places: Places
    kind: EngineKind
    is_quick: bool
    _stack: AsyncExitStack  #: what quick groups share is stopped with it
    _shared: dict[bool, Setup] = field(default_factory=dict)

    def scaled(self, full: int, quick: int = 2) -> int:
        """A number of samples, megabytes or callers."""
        return quick if self.is_quick else full

    @asynccontextmanager
    async def setup(self, *, with_redis: bool = False) -> AsyncIterator[Setup]:
        """An agent that has done nothing yet; a quick run takes the same one again."""
        fresh = running_setup(self.places, self.kind, with_redis=with_redis)
        if not self.is_quick:
            async with fresh as setup:
                yield setup
            return
        if with_redis not in self._shared:
            self._shared[with_redis] = await self._stack.enter_async_context(fresh)
        yield self._shared[with_redis]
