"""Who in this process wants to be told of what."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

_Follower = TypeVar("_Follower")


@contextmanager
def registered(followers: dict[str, set[_Follower]], key: str, follower: _Follower) -> Iterator[None]:
    """Have the follower among those of this key."""
    followers.setdefault(key, set()).add(follower)
    try:
        yield
    finally:
        followers[key].discard(follower)
        if not followers[key]:
            del followers[key]


async def wait_for_change(changed: asyncio.Event, seconds: float) -> None:
    """Wait for the event, so many seconds at most, and clear it."""
    try:
        async with asyncio.timeout(seconds):
            await changed.wait()
    except TimeoutError:
        return
    changed.clear()
