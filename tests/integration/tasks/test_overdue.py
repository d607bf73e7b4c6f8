"""What a store says of tasks that nobody is left to end, on each of them."""

from __future__ import annotations

import asyncio
import time

import pytest

from agent.tasks.record import State, TaskRecord, Webhook, WebhookState
from agent.tasks.store import ClaimLost, TaskStore
from tests.integration.tasks.steps import claim_of, eventually, lease_to_end, make_task

SHORT = 0.05  # seconds; of a lease that shall end within the test


async def overdue(store: TaskStore, put_off_seconds: float = 60) -> list[str]:
    found = await store.overdue(limit=10, put_off_seconds=put_off_seconds)
    assert all(stored.owner is None for stored in found)
    return sorted(stored.record.id for stored in found)


async def until_overdue(store: TaskStore, *ids: str) -> None:
    """Wait until these have been found, each once."""
    found: list[str] = []

    async def all_found() -> bool:
        found.extend(await overdue(store))
        return len(found) >= len(ids)

    await eventually(all_found)
    assert sorted(found) == sorted(ids)


def over(task_id: str = "task-1", **webhook: object) -> TaskRecord:
    """A task that has ended, with the message of its end."""
    values = {"url": "http://127.0.0.1/", "id": "msg_1", "sending_until": time.time(), **webhook}
    return make_task(task_id, state=State.FAILED, webhook=Webhook.model_validate(values))


async def test_task_whose_owner_falls_silent_is_overdue_once(store: TaskStore, other: TaskStore) -> None:
    await claim_of(store, make_task("alive"))
    await claim_of(store, make_task("silent"), lease_seconds=SHORT)
    assert await overdue(other) == []
    await until_overdue(other, "silent")
    assert await overdue(store) == [], "it is put off for the others"
    assert await store.read("silent") is not None, "nothing has changed"


async def test_task_that_was_put_off_is_overdue_again(store: TaskStore) -> None:
    await claim_of(store, make_task(), lease_seconds=SHORT)

    async def is_found() -> bool:
        return await overdue(store, put_off_seconds=SHORT) == ["task-1"]

    await eventually(is_found)
    await eventually(is_found)


async def test_owner_who_is_heard_of_is_not_overdue(store: TaskStore, other: TaskStore) -> None:
    claim = await claim_of(store, make_task(), lease_seconds=SHORT)
    await lease_to_end(other)
    await store.extend(type(claim)(claim.task_id, claim.fence, claim.owner, 60))
    await asyncio.sleep(4 * SHORT)  # what the first lease would have allowed
    assert await overdue(other) == []


async def test_task_that_ended_owes_nothing(store: TaskStore, other: TaskStore) -> None:
    claim = await claim_of(store, make_task(), lease_seconds=SHORT)
    await store.write(claim, make_task(state=State.SUCCEEDED))
    await asyncio.sleep(4 * SHORT)
    assert await overdue(other) == []


async def test_task_that_may_be_delivered_is_overdue_after_that(store: TaskStore, other: TaskStore) -> None:
    later, soon = time.time() + 60, time.time() + 0.3
    for name, until in (("later", later), ("soon", soon)):
        record = make_task(name, deliver_until=until)
        await store.release(await claim_of(store, record, lease_seconds=SHORT), record)
    await until_overdue(other, "soon")
    assert time.time() >= soon


async def test_delivery_that_was_prolonged_counts(store: TaskStore, other: TaskStore) -> None:
    record = make_task(deliver_until=time.time())
    await store.release(await claim_of(store, record, lease_seconds=SHORT), record)
    assert await store.amend(record.changed(deliver_until=time.time() + 60), fence=1)
    await asyncio.sleep(4 * SHORT)
    assert await overdue(other) == []


async def test_message_that_nobody_is_at_is_overdue_until_it_is_told(
    store: TaskStore, other: TaskStore
) -> None:
    await store.write(await claim_of(store, make_task("untold")), over("untold"))
    await store.write(
        await claim_of(store, make_task("at-it")), over("at-it", sending_until=time.time() + 60)
    )
    await store.write(await claim_of(store, make_task("told")), over("told", state=WebhookState.DELIVERED))
    await until_overdue(other, "untold")
    assert await store.amend(over("untold", state=WebhookState.FAILED), fence=1)
    assert await overdue(other, 0) == []


async def test_end_that_comes_with_the_take_owes_its_message(store: TaskStore, other: TaskStore) -> None:
    await claim_of(store, over())
    await until_overdue(other, "task-1")


async def test_refused_stores_change_nothing_of_what_is_owed(store: TaskStore, other: TaskStore) -> None:
    zombie = await claim_of(store, make_task(), owner="a", lease_seconds=SHORT)
    await lease_to_end(store)
    await claim_of(other, make_task(), fence=1, owner="b", lease_seconds=2 * SHORT)
    with pytest.raises(ClaimLost):
        await store.write(zombie, make_task(state=State.SUCCEEDED))
    late = make_task(deliver_until=time.time() + 60)
    await store.take(late, expected_fence=0, owner="c", lease_seconds=30)
    assert not await store.amend(late, fence=1)

    async def is_found() -> bool:
        return await overdue(other, put_off_seconds=SHORT) == ["task-1"]

    await eventually(is_found)


async def test_no_more_than_asked_for_at_once(store: TaskStore) -> None:
    for number in range(5):
        await claim_of(store, make_task(f"task-{number}"), lease_seconds=SHORT)
    found: list[str] = []

    async def all_found() -> bool:
        some = await store.overdue(limit=2, put_off_seconds=60)
        assert len(some) <= 2
        found.extend(stored.record.id for stored in some)
        return len(found) >= 5

    await eventually(all_found)
    assert sorted(found) == [f"task-{number}" for number in range(5)]
