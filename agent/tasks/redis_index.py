"""The list of all tasks in Redis, newest first."""

from __future__ import annotations

from collections.abc import Collection

from agent.tasks.record import State
from agent.tasks.redis_connection import Call, Connection
from agent.tasks.redis_keys import Keys
from agent.tasks.redis_scripts import READ
from agent.tasks.redis_snapshot import to_snapshot
from agent.tasks.store import Page, Stored, position

BATCH = 100  # entries that `page` looks at in one go
BATCHES = 20  # goes a call


class Index:
    """Reads the sorted set of positions. Its entries outlive their tasks; those found so are removed."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection, self._keys = connection, keys

    async def page(self, states: Collection[State] | None, limit: int, before: str | None) -> Page:
        """As `TaskStore.page`."""
        found: list[Stored] = []
        for _ in range(BATCHES):
            positions = await self._positions(before)
            matching = await self._matching(positions, states)
            while matching and (missing := limit + 1 - len(found)):
                found += await self._tasks(matching[:missing], states)
                matching = matching[missing:]
            if len(found) > limit:
                return Page(tuple(found[:limit]), position(found[limit - 1].record))
            if len(positions) < BATCH:
                return Page(tuple(found), None)
            before = positions[-1]
        return Page(tuple(found), before)

    async def _positions(self, before: str | None) -> list[str]:
        newest = "+" if before is None else f"({before}"
        command = ("ZREVRANGEBYLEX", self._keys.positions, newest, "-", "LIMIT", 0, BATCH)
        (found,) = await self._connection.send(command)
        return [entry.decode() for entry in found]

    async def _matching(self, positions: list[str], states: Collection[State] | None) -> list[str]:
        """Those positions whose task has one of these states. Those whose task has expired leave the index."""
        tasks = await self._fields(positions, "position", "state")
        # An expired task whose id is used again left an entry that now leads to the new task.
        if gone := [entry for entry in positions if tasks[entry][0] != entry.encode()]:
            await self._connection.send(
                *(("ZREM", key, *gone) for key in (self._keys.positions, self._keys.expiry))
            )
        is_wanted = {
            entry: states is None or (tasks[entry][1] or b"").decode() in states for entry in positions
        }
        return [entry for entry in positions if entry not in gone and is_wanted[entry]]

    async def _tasks(self, positions: list[str], states: Collection[State] | None) -> list[Stored]:
        """These tasks, without those that have expired or changed their state by now."""
        calls = (Call(READ, self._keys.task(_id_at(entry))) for entry in positions)
        replies = await self._connection.run(*calls)
        tasks = [to_snapshot(reply).stored for reply in replies if reply]
        return [task for task in tasks if states is None or task.record.state in states]

    async def _fields(self, positions: list[str], *names: str) -> dict[str, list[bytes | None]]:
        """These fields of the tasks at these positions, in one round trip."""
        commands = (("HMGET", self._keys.task(_id_at(entry))[0], *names) for entry in positions)
        return dict(zip(positions, await self._connection.send(*commands), strict=True))


def _id_at(place: str) -> str:
    return place.split(":", 1)[1]
