"""What every task store promises: one record a task, who owns it, and how others follow it.

A store decides nothing. Ownership is a *claim*: it has a fence, a number that grows with every take, and a lease,
which its owner extends while it works. A lease that runs out only allows others to take the task; until somebody
does, the claim stays good. After that every write of the old owner raises `ClaimLost`.

All methods may be called at the same time. Every method raises `StoreUnavailable` when the store cannot be
reached, and once it is closed. A call that is cancelled, or that raises `StoreUnavailable`, may have taken effect.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator, Collection
from dataclasses import dataclass
from typing import Protocol

from agent.tasks.record import State, TaskRecord, WebhookState

#: How long the silence of a task's owner lasts, in leases, until it is overdue: one until others may take it, and one
#: more for those who wait for it, and for an owner who was cut off from the store.
LEASES_OF_GRACE = 2

#: How long a preview is kept: longer than a step takes on a slow machine, and not much longer than a task.
PREVIEW_SECONDS = 120


class ClaimLost(Exception):
    """The task is no longer this claim's: somebody else took it, or the claim has ended."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to write a task. The fence counts the takes of the task, from 1; outputs are kept under it. The lease
    lasts for `lease_seconds` from the take and from each extension."""

    task_id: str
    fence: int
    owner: str
    lease_seconds: float


@dataclass(frozen=True, slots=True)
class Stored:
    """What the store knows of a task. `owner` is None when no lease is alive."""

    record: TaskRecord
    fence: int
    owner: str | None
    cancel_requested: bool


@dataclass(frozen=True, slots=True)
class Page:
    """Some tasks, newest first. `next` asks for those after them; None: there are no more. A page may hold fewer
    tasks than asked for, even none, and still have a next one."""

    tasks: tuple[Stored, ...]
    next: str | None

    @property
    def records(self) -> tuple[TaskRecord, ...]:
        """The records alone, as they are stored."""
        return tuple(task.record for task in self.tasks)


class TaskStore(Protocol):
    """The interface of all stores. An owner's name holds no line break. Records are never changed in place."""

    #: Whether other instances find the same tasks and outputs in it.
    is_shared: bool = True

    @property
    def failures(self) -> int:
        """Calls that raised StoreUnavailable so far because the store did not answer as it should."""
        return 0

    async def ping(self) -> None:
        """Raise StoreUnavailable unless the store answers."""

    def renew(self) -> None:
        """The process was frozen: trust no connection that was open before. Most stores have none."""
        return

    async def close(self) -> None:
        """Free everything the store holds in this process, and end its followers with StoreUnavailable.
        Closing again does nothing."""

    async def read(self, task_id: str) -> Stored | None:
        """The task as it is now; None when it is unknown or expired."""

    async def take(
        self, record: TaskRecord, *, expected_fence: int, owner: str, lease_seconds: float
    ) -> Claim | Stored:
        """Become the task's owner and store the record, in one step.

        Succeeds when nobody holds a live lease and the fence still is the expected one (0: the task is new).
        A task that expired after the caller had read it is stored anew, and its fence goes on from the expected
        one. Forgets an earlier request to cancel. Otherwise changes nothing and returns what is stored.

        A final record ends the claim in the same step: nothing is left to be done for the task.

        To repeat a take whose answer was lost, with an equal record, fence and owner, is harmless: as long as nobody
        else took the task it returns the same claim, and extends its lease.
        """

    async def write(self, claim: Claim, record: TaskRecord) -> None:
        """Store and publish the record, and start its time to live again.

        A final record also ends the claim; any other leaves the lease as it is. To repeat the write that ended
        the claim is harmless. A task that the store has forgotten (an emptied Redis) is stored anew, with a new lease.
        Raises ClaimLost.
        """

    async def amend(self, record: TaskRecord, *, fence: int) -> bool:
        """Store and publish another version of a record whose claim has ended, as `write` would; tell whether it was
        done. Changes nothing unless the task is known, still has this fence and this state, and nobody holds a claim
        on it."""

    async def release(self, claim: Claim, record: TaskRecord) -> None:
        """Store and publish the record and end the claim, so that the task can be taken at once. Raises ClaimLost."""

    async def extend(self, claim: Claim) -> bool:
        """Let the lease, also one that ran out, begin again; tell whether a cancel was requested.

        Raises ClaimLost. A task that the store has forgotten is not lost: the next write stores it anew.
        """

    async def request_cancel(self, task_id: str) -> Stored | None:
        """Ask the owner to stop; the request stands until the task is next taken. Returns the task, None when it
        is unknown. Without a live owner (`owner` None) nobody acts on the request but the caller."""

    def cancels(self, owner: str) -> AsyncGenerator[str, None]:
        """Ids of tasks of this owner that shall be cancelled, as the requests come; ends only by an error.

        Listening starts with the first step of the iteration. A request made while the connection to the store
        was lost does not show here, but in what `extend` returns.
        """

    def watch(self, task_id: str) -> AsyncGenerator[Stored, None]:
        """The task now, and again whenever it has changed, up to and with the first final record.

        Changes that follow quickly may be skipped, the last never is. Also yields, with a delay, when the owner's
        lease ran out. Ends without a final record when the task is unknown or expires. Raises StoreUnavailable
        at its first step; later it waits until the store is back, so set a deadline. Close it
        (`contextlib.aclosing`) when leaving early.
        """

    async def overdue(self, *, limit: int, put_off_seconds: float) -> list[Stored]:
        """Up to `limit` tasks that somebody must see to, because those who should have are gone: see `due_in`. Each is
        put off by so long, so that others who ask do not get it too; after that it is overdue again, unless it was
        stored meanwhile in a way that owes nothing more. Costs next to nothing where there are none."""

    async def page(
        self, *, states: Collection[State] | None = None, limit: int = 50, before: str | None = None
    ) -> Page:
        """Up to `limit` tasks (at least 1) whose stored state is one of these, newest first; `before` is the `next`
        of the page before, or the `cursor` of any task."""

    def cursor(self, record: TaskRecord) -> str:
        """What `page` takes as `before` to go on after this task. Begins with its creation time, see `is_cursor`."""
        return position(record)

    async def put_output(self, claim: Claim, index: int, data: bytes) -> None:
        """Keep the bytes of an output of this attempt. An old owner's are kept apart from the new owner's."""

    async def get_output(self, task_id: str, attempt: int, index: int) -> bytes | None:
        """The bytes of an output; None when there is none or it expired."""

    async def put_preview(self, claim: Claim, data: bytes) -> None:
        """Keep the latest picture of the task at work, instead of the one before. It is small, and is gone
        PREVIEW_SECONDS later."""

    async def get_preview(self, task_id: str) -> bytes | None:
        """The latest picture of a task at work; None when there is none or it expired."""

    async def put_parked(self, digest: str, data: bytes) -> None:
        """Keep a part of a request that is too large for the way to its instance, as long as a record lives. The
        digest is the SHA-256 of the data."""

    async def get_parked(self, digest: str) -> bytes | None:
        """What was parked under this digest; None when there is nothing or it expired."""


def position(record: TaskRecord) -> str:
    """Where the task stands among all tasks: sorts as text by creation time, then id. Also the cursor of `page`."""
    return f"{record.created_at:020.6f}:{record.id}"


def due_in(record: TaskRecord, *, grace_seconds: float = 0) -> float | None:
    """After how many seconds somebody else must see to a task that was stored like this; None: it owes nothing more.

    Until it has ended it owes an end: `grace_seconds` from now, or once no platform will deliver it any more. Once it
    has, it owes its webhook the message, by the time at which whoever is at it will have said more.
    """
    if not record.state.is_final:
        return max(grace_seconds, (record.deliver_until or 0) - time.time())
    webhook = record.webhook
    if webhook is None or webhook.id is None or webhook.state is not WebhookState.PENDING:
        return None
    return max(0.0, (webhook.sending_until or 0) - time.time())


def is_cursor(text: str) -> bool:
    """Whether a store could have made this text as a cursor."""
    return re.fullmatch(r"[0-9]{13}\.[0-9]{6}[:-][^\s]+", text) is not None
