"""Everything one may ask about tasks, whether this instance works on them, another one does, or they are over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import structlog

from agent.errors import (
    InstanceLost,
    NotDelivered,
    ObjectStoreUnavailable,
    OutputNotFound,
    PreviewNotFound,
    TaskNotFound,
)
from agent.objects import ObjectStore
from agent.outputs.size import answer_bytes
from agent.tasks.live import LiveTask
from agent.tasks.record import Attempt, Outcome, Output, State, TaskRecord
from agent.tasks.store import Stored, TaskStore, due_in

#: States in which a task may be stored and be seen in another one.
UNFINISHED = tuple(state for state in State if not state.is_final)

#: How many tasks of the store one page of ours may look at: so many at a time, so many times.
STORE_PAGE, STORE_PAGES = 50, 10

log = structlog.get_logger(__name__)


class TaskBoard:
    """`live` holds the tasks that this instance works on; the store knows all others, and `objects` has the outputs
    that are fetched by URL. `answer_limit` is the largest answer in bytes, None: any."""

    def __init__(
        self,
        store: TaskStore,
        *,
        objects: ObjectStore | None = None,
        signed_url_seconds: int = 3600,
        answer_limit: int | None = None,
    ) -> None:
        self.store, self.objects, self.answer_limit = store, objects, answer_limit
        self._signed_url_seconds = signed_url_seconds
        self.live: dict[str, LiveTask] = {}
        #: Called when a task was read that nobody is left to end, or to tell of.
        self.on_orphan: Callable[[], None] | None = None

    async def get(self, task_id: str) -> TaskRecord:
        """Raises TaskNotFound, StoreUnavailable."""
        if live := self.live.get(task_id):
            return live.record
        stored = await self.store.read(task_id)
        if stored is None:
            raise TaskNotFound(task_id=task_id)
        return self.as_seen(stored)

    async def follow(self, task_id: str) -> AsyncGenerator[TaskRecord, None]:
        """The record now and after each change, up to a final one. Raises TaskNotFound at its first step."""
        if live := self.live.get(task_id):
            async with aclosing(live.follow()) as records:
                async for record in records:
                    yield record
            if live.record.state.is_final:
                return
            # Another instance has taken it over, or it was put back.
        is_known = False
        async with aclosing(self.store.watch(task_id)) as changes:
            async for stored in changes:
                is_known = True
                record = self.as_seen(stored)
                yield record
                if record.state.is_final:
                    return
        if not is_known:
            raise TaskNotFound(task_id=task_id)

    async def output(self, task_id: str, index: int) -> tuple[Output, bytes | str]:
        """One output with its bytes, or with a signed URL where it lies in the object store.

        Raises TaskNotFound, OutputNotFound, StoreUnavailable, ObjectStoreUnavailable.
        """
        stored = await self.store.read(task_id)
        if stored is None:
            raise TaskNotFound(task_id=task_id)
        output = next((o for o in stored.record.outputs if o.index == index), None)
        if output is None:
            raise OutputNotFound(task_id=task_id, index=index)
        if output.object_key is not None:
            return output, (await self._sign([output.object_key]))[0]
        return output, await self._bytes(stored, index)

    async def preview(self, task_id: str) -> bytes:
        """The latest picture of a task at work. Raises TaskNotFound, PreviewNotFound, StoreUnavailable."""
        if live := self.live.get(task_id):
            data = live.preview
        else:
            stored = await self.store.read(task_id)
            if stored is None:
                raise TaskNotFound(task_id=task_id)
            data = None if stored.record.state.is_final else await self.store.get_preview(task_id)
        if data is None:
            raise PreviewNotFound(task_id=task_id)
        return data

    async def outputs(self, task_id: str) -> list[bytes | None]:
        """The bytes of all outputs of a task, in order; None for those that are in the object store, and for all if
        they are too much for an answer. Raises TaskNotFound, OutputNotFound, StoreUnavailable."""
        stored = await self.store.read(task_id)
        if stored is None:
            raise TaskNotFound(task_id=task_id)
        fits = self.fits(stored.record)

        async def read(output: Output) -> bytes | None:
            return await self._bytes(stored, output.index) if fits and output.object_key is None else None

        return list(await asyncio.gather(*map(read, stored.record.outputs)))

    def fits(self, record: TaskRecord) -> bool:
        """Whether an answer may hold all outputs of the task that are not in the object store."""
        return self.answer_limit is None or answer_bytes(record) <= self.answer_limit

    async def links(self, record: TaskRecord) -> dict[int, str]:
        """Output index -> a fresh signed URL, for those that lie in the object store. They are secrets that end, so
        they are never stored. While none can be signed there are none: the output's own `url` leads there later."""
        keys = {o.index: o.object_key for o in record.outputs if o.object_key is not None}
        if not keys:
            return {}
        try:
            return dict(zip(keys, await self._sign(list(keys.values())), strict=True))
        except ObjectStoreUnavailable as error:
            log.warning("output.not_signed", task_id=record.id, reason=error.detail)
            return {}

    async def page(
        self, *, state: State | None, limit: int, before: str | None
    ) -> tuple[list[TaskRecord], str | None]:
        """Up to `limit` tasks, newest first, and the `before` of the page after them. The state is that in which a
        task is seen, which is not the stored one where its instance died. A page may be short, even empty, and still
        have a next one."""
        states = None if state is None else {state, *UNFINISHED}
        at_a_time = limit if state is None else max(limit, STORE_PAGE)
        found: list[TaskRecord] = []
        for _ in range(STORE_PAGES):
            page = await self.store.page(states=states, limit=at_a_time, before=before)
            for stored in page.tasks:
                record = self._seen_now(stored)
                if state in (None, record.state):
                    if len(found) == limit:
                        return found, self.store.cursor(found[-1])
                    found.append(record)
            before = page.next
            if before is None or len(found) == limit:
                break
        return found, before

    def as_seen(self, stored: Stored) -> TaskRecord:
        """See `as_seen` below."""
        if self.on_orphan is not None and stored.owner is None and due_in(stored.record) == 0:
            self.on_orphan()
        return as_seen(stored)

    async def _sign(self, keys: list[str]) -> list[str]:
        if self.objects is None:
            raise ObjectStoreUnavailable(
                "The output is in an object store, and this instance has no AGENT_OBJECT_STORE."
            )
        return await self.objects.signed_urls(keys, self._signed_url_seconds)

    def _seen_now(self, stored: Stored) -> TaskRecord:
        live = self.live.get(stored.record.id)
        return live.record if live is not None else self.as_seen(stored)

    async def _bytes(self, stored: Stored, index: int) -> bytes:
        data = await self.store.get_output(stored.record.id, stored.fence, index)
        if data is None:
            raise OutputNotFound(task_id=stored.record.id, index=index)
        return data


def as_seen(stored: Stored) -> TaskRecord:
    """The stored record as it is to be read: a task without a living owner does not run.

    It waits for its next delivery as long as a platform may bring it; otherwise it has failed.
    """
    record = stored.record
    if record.state.is_final or stored.owner is not None:
        return record
    attempts = close_attempt(record.attempts, Outcome.LOST)
    is_awaited = record.deliver_until is not None and time.time() < record.deliver_until
    if is_awaited:
        return record.changed(state=State.QUEUED, attempts=attempts, current_node=None)
    error = (InstanceLost() if attempts else NotDelivered()).to_dict()
    return record.changed(state=State.FAILED, attempts=attempts, current_node=None, error=error)


def is_orphan(record: TaskRecord) -> bool:
    """Whether it was ended by somebody else because whoever had it was gone."""
    return record.error is not None and record.error["code"] in (InstanceLost.code, NotDelivered.code)


def close_attempt(
    attempts: list[Attempt], outcome: Outcome, error: dict[str, object] | None = None
) -> list[Attempt]:
    """The attempts with the last one ended, unless it has ended already."""
    if not attempts or attempts[-1].outcome is not None:
        return attempts
    last = attempts[-1].model_copy(update={"ended_at": time.time(), "outcome": outcome, "error": error})
    return [*attempts[:-1], last]
