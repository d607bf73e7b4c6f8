"""What every store promises, tried on each of them."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest

from agent.errors import StoreUnavailable
from agent.tasks import directory, memory, redis
from agent.tasks.record import Attempt, NodeProgress, State, TaskRecord
from agent.tasks.store import Claim, ClaimLost, Stored, TaskStore
from tests.integration.tasks.conftest import MakeStores
from tests.integration.tasks.steps import (
    WAIT_SECONDS,
    Follower,
    claim_of,
    eventually,
    lease_to_end,
    make_task,
)

SHORT = 0.05  # seconds; of a lease or a life that shall end within the test


class TestOwning:
    async def test_unknown_task_is_none(self, store: TaskStore) -> None:
        assert await store.read("nobody") is None
        assert await store.request_cancel("nobody") is None

    async def test_taken_task_is_read_as_it_was_written(self, store: TaskStore, other: TaskStore) -> None:
        record = make_task(
            state=State.RUNNING,
            seeds={"3": {"seed": 2**64 - 1}},
            nodes={"9": NodeProgress(max=20, value=7, ui={"seed": [2**63 + 1], "名": "ümlaut\n\0"})},
            attempts=[Attempt(number=1, instance="a", started_at=1732170000.123456)],
        )
        assert await claim_of(store, record, owner="a") == Claim("task-1", 1, "a", 30)
        assert await other.read("task-1") == Stored(record, 1, "a", cancel_requested=False)

    async def test_of_fifty_takers_exactly_one_becomes_owner(
        self, store: TaskStore, other: TaskStore
    ) -> None:
        answers = await asyncio.gather(
            *(
                (store, other)[i % 2].take(
                    make_task(), expected_fence=0, owner=f"owner-{i}", lease_seconds=30
                )
                for i in range(50)
            )
        )
        (claim,) = [answer for answer in answers if isinstance(answer, Claim)]
        losers = [answer for answer in answers if isinstance(answer, Stored)]
        assert len(losers) == 49
        assert {(stored.fence, stored.owner) for stored in losers} == {(claim.fence, claim.owner)}

    async def test_task_with_live_lease_is_not_taken(self, store: TaskStore, other: TaskStore) -> None:
        record = make_task()
        await claim_of(store, record, owner="a")
        refused = await other.take(make_task(), expected_fence=1, owner="b", lease_seconds=30)
        assert refused == Stored(record, 1, "a", cancel_requested=False)

    async def test_task_with_another_fence_is_not_taken(self, store: TaskStore, other: TaskStore) -> None:
        done = make_task(state=State.FAILED)
        await store.write(await claim_of(store, make_task()), done)
        refused = await other.take(make_task(), expected_fence=0, owner="b", lease_seconds=30)
        assert refused == Stored(done, 1, None, cancel_requested=False)

    async def test_expired_lease_lets_another_take_over(self, store: TaskStore, other: TaskStore) -> None:
        await claim_of(store, make_task(), owner="a", lease_seconds=SHORT)
        await lease_to_end(other)
        assert await claim_of(other, make_task(), fence=1, owner="b") == Claim("task-1", 2, "b", 30)

    async def test_zombie_is_refused_everywhere(self, store: TaskStore, other: TaskStore) -> None:
        zombie = await claim_of(store, make_task(), owner="a", lease_seconds=SHORT)
        await lease_to_end(store)
        taken = make_task(state=State.RUNNING)
        claim = await claim_of(other, taken, fence=1, owner="b")
        for end in State:
            with pytest.raises(ClaimLost):
                await store.write(zombie, make_task(state=end))
        with pytest.raises(ClaimLost):
            await store.release(zombie, make_task())
        with pytest.raises(ClaimLost):
            await store.extend(zombie)
        assert await other.read("task-1") == Stored(taken, 2, "b", cancel_requested=False)
        await other.write(claim, make_task(state=State.SUCCEEDED))

    async def test_zombie_output_leaves_new_owners_output_alone(
        self, store: TaskStore, other: TaskStore
    ) -> None:
        zombie = await claim_of(store, make_task(), lease_seconds=SHORT)
        await lease_to_end(store)
        claim = await claim_of(other, make_task(), fence=1, owner="b")
        await other.put_output(claim, 0, b"new")
        await store.put_output(zombie, 0, b"old")
        assert await other.get_output("task-1", 2, 0) == b"new"

    async def test_same_owner_must_take_again_too(self, store: TaskStore) -> None:
        first = await claim_of(store, make_task(), owner="a", lease_seconds=SHORT)
        await lease_to_end(store)
        await claim_of(store, make_task(), fence=1, owner="a")
        with pytest.raises(ClaimLost):
            await store.write(first, make_task(state=State.SUCCEEDED))

    async def test_claim_outlives_its_lease_until_somebody_takes_the_task(self, store: TaskStore) -> None:
        claim = await claim_of(store, make_task(), owner="a", lease_seconds=SHORT)
        await lease_to_end(store)
        await store.write(claim, make_task(progress=0.5))
        assert await store.extend(replace(claim, lease_seconds=30)) is False
        stored = await store.read("task-1")
        assert stored
        assert (stored.owner, stored.record.progress) == ("a", 0.5)

    async def test_take_can_be_repeated_until_it_is_answered(
        self, store: TaskStore, other: TaskStore
    ) -> None:
        record = make_task()
        claim = await claim_of(store, record, owner="a")
        await store.write(claim, make_task(progress=0.5))
        assert await claim_of(store, record, owner="a") == claim
        stored = await other.read("task-1")
        assert stored
        assert (stored.record.progress, stored.fence) == (0.5, 1), "it only says again what was"
        for stranger in (
            store.take(record, expected_fence=0, owner="b", lease_seconds=30),
            store.take(make_task(), expected_fence=0, owner="a", lease_seconds=30),
        ):
            assert isinstance(await stranger, Stored)

    async def test_repeated_take_extends_a_lease_that_ran_out(self, store: TaskStore) -> None:
        record = make_task()
        claim = await claim_of(store, record, owner="a", lease_seconds=SHORT)
        await lease_to_end(store)
        assert await claim_of(store, record, owner="a", lease_seconds=30) == replace(claim, lease_seconds=30)
        stored = await store.read("task-1")
        assert stored
        assert stored.owner == "a"

    async def test_repeated_take_takes_nothing_from_those_who_came_after(
        self, store: TaskStore, other: TaskStore
    ) -> None:
        record = make_task()
        await claim_of(store, record, owner="a", lease_seconds=SHORT)
        await lease_to_end(store)
        claim = await claim_of(other, make_task(), fence=1, owner="b")
        assert isinstance(await store.take(record, expected_fence=0, owner="a", lease_seconds=30), Stored)
        await other.write(claim, make_task(state=State.SUCCEEDED))
        assert isinstance(await store.take(record, expected_fence=0, owner="a", lease_seconds=30), Stored)

    async def test_take_whose_claim_has_ended_is_not_repeated(self, store: TaskStore) -> None:
        record = make_task()
        await store.write(await claim_of(store, record, owner="a"), make_task(state=State.SUCCEEDED))
        assert isinstance(await store.take(record, expected_fence=0, owner="a", lease_seconds=30), Stored)

    async def test_progress_does_not_extend_the_lease(self, store: TaskStore) -> None:
        claim = await claim_of(store, make_task(), lease_seconds=0.2)

        async def ended_while_writing() -> bool:
            await store.write(claim, make_task(state=State.RUNNING))
            stored = await store.read("task-1")
            return stored is not None and stored.owner is None

        await eventually(ended_while_writing)

    @pytest.mark.parametrize("end", [State.SUCCEEDED, State.FAILED, State.CANCELLED])
    async def test_final_record_ends_the_claim(self, store: TaskStore, other: TaskStore, end: State) -> None:
        final = make_task(state=end)
        claim = await claim_of(store, make_task())
        await store.write(claim, final)
        assert await other.read("task-1") == Stored(final, 1, None, cancel_requested=False)
        with pytest.raises(ClaimLost):
            await store.write(claim, make_task(state=State.RUNNING))
        with pytest.raises(ClaimLost):
            await store.extend(claim)
        assert await claim_of(other, make_task(), fence=1, owner="b")

    async def test_final_write_may_be_repeated_but_not_changed(self, store: TaskStore) -> None:
        final = make_task(state=State.SUCCEEDED)
        claim = await claim_of(store, make_task())
        await store.write(claim, final)
        await store.write(claim, final)
        with pytest.raises(ClaimLost):
            await store.write(claim, final.changed(state=State.FAILED))

    async def test_final_record_may_be_amended_by_anybody_until_the_task_is_taken_again(
        self, store: TaskStore, other: TaskStore
    ) -> None:
        final = make_task(state=State.SUCCEEDED)
        claim = await claim_of(store, make_task())
        assert not await store.amend(final, fence=1), "its claim has not ended"
        await store.write(claim, final)
        assert await store.amend(final.changed(warnings=[{"code": "First"}]), fence=1)
        amended = final.changed(warnings=[{"code": "Second"}])
        assert await other.amend(amended, fence=1)
        assert await store.read("task-1") == Stored(amended, 1, None, cancel_requested=False)
        assert (await store.page(states={State.SUCCEEDED})).records == (amended,)
        for wrong, fence in [
            (final, 0),
            (final, 2),
            (final.changed(state=State.FAILED), 1),
            (final.changed(state=State.QUEUED), 1),
            (make_task("nobody", state=State.SUCCEEDED), 1),
        ]:
            assert not await other.amend(wrong, fence=fence)
        assert await other.read("nobody") is None
        assert await claim_of(other, make_task(), fence=1, owner="b")
        assert not await store.amend(amended, fence=1), "it is the new owner's"

    async def test_task_that_nobody_has_may_be_amended_until_it_is_taken(
        self, store: TaskStore, other: TaskStore
    ) -> None:
        queued = make_task(state=State.QUEUED)
        claim = await claim_of(store, make_task(state=State.RUNNING))
        assert not await store.amend(make_task(state=State.RUNNING, progress=0.5), fence=1), "it has an owner"
        await store.release(claim, queued)
        longer = queued.changed(deliver_until=queued.created_at + 60)
        assert await store.amend(longer, fence=1)
        assert await other.read("task-1") == Stored(longer, 1, None, cancel_requested=False)
        assert not await store.amend(queued.changed(state=State.FAILED), fence=1)
        await claim_of(other, longer, fence=1, owner="b")
        assert not await store.amend(longer, fence=1), "an instance has it by now"

    async def test_final_record_ends_its_claim_as_it_is_taken(
        self, store: TaskStore, other: TaskStore
    ) -> None:
        await store.release(await claim_of(store, make_task(), owner="a"), make_task())
        ended = make_task(state=State.FAILED)
        claim = await claim_of(other, ended, fence=1, owner="b")
        assert await store.read("task-1") == Stored(ended, 2, None, cancel_requested=False)
        with pytest.raises(ClaimLost):
            await other.extend(claim)
        assert await claim_of(other, ended, fence=1, owner="b") == claim, (
            "a repeated one gets the same answer"
        )
        assert await claim_of(store, make_task(), fence=2, owner="a")

    async def test_released_task_can_be_taken_at_once(self, store: TaskStore, other: TaskStore) -> None:
        claim = await claim_of(store, make_task(state=State.RUNNING))
        queued = make_task(state=State.QUEUED)
        await store.release(claim, queued)
        assert await other.read("task-1") == Stored(queued, 1, None, cancel_requested=False)
        with pytest.raises(ClaimLost):
            await store.extend(claim)
        assert (await claim_of(other, make_task(), fence=1, owner="b")).fence == 2


class TestForgetting:
    async def test_expired_task_is_unknown(self, make_stores: MakeStores) -> None:
        store, _ = make_stores(record_ttl_seconds=SHORT)
        await claim_of(store, make_task(), lease_seconds=0.01)
        await eventually(lambda: _is_gone(store))
        assert (await store.page()).records == ()

    async def test_running_task_stays_as_long_as_it_is_extended(self, make_stores: MakeStores) -> None:
        store, _ = make_stores(record_ttl_seconds=1.5)
        claim = await claim_of(store, make_task())
        for _ in range(10):
            await asyncio.sleep(0.2)  # two seconds in all, which a task left alone would not live
            await store.extend(claim)
        assert await store.read("task-1")

    async def test_owner_of_forgotten_task_stores_its_result_anew(self, make_stores: MakeStores) -> None:
        store, _ = make_stores(record_ttl_seconds=SHORT)
        claim = await claim_of(store, make_task(), owner="a")
        await eventually(lambda: _is_gone(store))
        final = make_task(state=State.SUCCEEDED)
        assert await store.extend(claim) is False
        await store.write(claim, final)
        assert await store.read("task-1") == Stored(final, 1, None, cancel_requested=False)

    async def test_progress_of_a_forgotten_task_stores_it_anew_with_its_owner(
        self, make_stores: MakeStores
    ) -> None:
        store, other = make_stores(record_ttl_seconds=SHORT)
        claim = await claim_of(store, make_task(), owner="a")
        await eventually(lambda: _is_gone(store))

        async def is_owned() -> bool:  # the record lives no longer than a moment, also the one stored anew
            await store.write(claim, make_task(state=State.RUNNING))
            stored = await other.read("task-1")
            return stored is not None and (stored.fence, stored.owner) == (1, "a")

        await eventually(is_owned)

    async def test_fence_of_forgotten_task_goes_on(self, make_stores: MakeStores) -> None:
        store, _ = make_stores(record_ttl_seconds=SHORT)
        await claim_of(store, make_task())
        await eventually(lambda: _is_gone(store))
        assert (await claim_of(store, make_task(), fence=4)).fence == 5

    async def test_two_owners_after_a_loss_of_data_do_not_share_a_claim(
        self, make_stores: MakeStores
    ) -> None:
        store, other = make_stores(record_ttl_seconds=SHORT)
        first = await claim_of(store, make_task(), owner="a")
        await eventually(lambda: _is_gone(store))
        second = await claim_of(other, make_task(), owner="b")
        assert first.fence == second.fence
        with pytest.raises(ClaimLost):
            await store.write(first, make_task(state=State.SUCCEEDED))
        await other.write(second, make_task(state=State.SUCCEEDED))


class TestCancelling:
    async def test_owner_learns_of_request_from_another_instance(
        self, store: TaskStore, other: TaskStore
    ) -> None:
        claim = await claim_of(store, make_task(), owner="a")
        async with aclosing(store.cancels("a")) as cancels, asyncio.timeout(WAIT_SECONDS):
            heard = asyncio.ensure_future(anext(cancels))
            while not heard.done():  # listening starts with the first step, nobody says when
                stored = await other.request_cancel("task-1")
                assert stored
                assert (stored.owner, stored.cancel_requested) == ("a", True)
                await asyncio.wait([heard], timeout=0.1)
            assert await heard == "task-1"
        assert await store.extend(claim) is True

    async def test_others_do_not_hear_it(self, store: TaskStore, other: TaskStore) -> None:
        await claim_of(store, make_task("of-a"), owner="a")
        await claim_of(store, make_task("of-b"), owner="b")
        async with aclosing(other.cancels("b")) as cancels, asyncio.timeout(WAIT_SECONDS):
            heard = asyncio.ensure_future(anext(cancels))
            while not heard.done():
                await store.request_cancel("of-a")
                await store.request_cancel("of-b")
                await asyncio.wait([heard], timeout=0.1)
            assert await heard == "of-b"

    async def test_request_without_owner_says_so_and_stands(self, store: TaskStore, other: TaskStore) -> None:
        claim = await claim_of(store, make_task(), lease_seconds=SHORT)
        await lease_to_end(store)
        stored = await other.request_cancel("task-1")
        assert stored
        assert (stored.owner, stored.cancel_requested) == (None, True)
        await store.write(claim, make_task(state=State.RUNNING))
        assert await store.extend(claim) is True

    async def test_next_take_forgets_the_request(self, store: TaskStore) -> None:
        await store.write(await claim_of(store, make_task()), make_task(state=State.FAILED))
        await store.request_cancel("task-1")
        claim = await claim_of(store, make_task(), fence=1)
        assert await store.extend(claim) is False


class TestWatching:
    async def test_unknown_task_ends_at_once(self, store: TaskStore) -> None:
        assert [stored async for stored in store.watch("nobody")] == []

    async def test_final_task_is_all_there_is(self, store: TaskStore, other: TaskStore) -> None:
        await store.write(await claim_of(store, make_task()), make_task(state=State.SUCCEEDED))
        assert [stored.record.state async for stored in other.watch("task-1")] == [State.SUCCEEDED]

    async def test_other_instance_sees_each_change_to_the_end(
        self, store: TaskStore, other: TaskStore
    ) -> None:
        claim = await claim_of(store, make_task())
        follower = Follower(other)
        await follower.until(lambda stored: stored.owner == "a")
        for step in range(1, 6):
            record = make_task(state=State.RUNNING, progress=step / 10, seeds={"3": {"seed": 2**64 - 1}})
            await store.write(claim, record)
            seen = await follower.until(lambda stored, now=record.progress: stored.record.progress == now)
            assert seen == Stored(record, 1, "a", cancel_requested=False)
        await store.write(claim, make_task(state=State.SUCCEEDED))
        assert await follower.to_end() is State.SUCCEEDED

    async def test_progress_never_goes_back(self, store: TaskStore, other: TaskStore) -> None:
        claim = await claim_of(store, make_task())
        followers = [Follower(other) for _ in range(5)]
        for step in range(200):
            await store.write(claim, make_task(state=State.RUNNING, progress=step / 200))
        await store.write(claim, make_task(state=State.SUCCEEDED, progress=1))
        for follower in followers:
            assert await follower.to_end() is State.SUCCEEDED
            shown = [stored.record.progress for stored in follower.seen]
            assert shown == sorted(shown)

    async def test_final_write_during_subscription_is_seen(self, store: TaskStore, other: TaskStore) -> None:
        # The write lands before, between and after the watcher's read, its subscription and its second read.
        claims = [await claim_of(store, make_task(f"task-{i}")) for i in range(60)]
        followers = []
        for i, claim in enumerate(claims):
            followers.append(Follower(other, claim.task_id))
            for _ in range(i):
                await asyncio.sleep(0)
            await store.write(claim, make_task(claim.task_id, state=State.SUCCEEDED))
        for follower in followers:
            assert await follower.to_end() is State.SUCCEEDED

    async def test_slow_follower_gets_the_last_change(self, store: TaskStore, other: TaskStore) -> None:
        claim = await claim_of(store, make_task())
        async with aclosing(other.watch("task-1")) as changes, asyncio.timeout(WAIT_SECONDS):
            seen = await anext(changes)
            while seen.record.progress == 0:  # until it is told of changes
                await store.write(claim, make_task(progress=0.1))
                seen = await anext(changes)
            for progress in (0.2, 0.3, 0.4):
                await store.write(claim, make_task(progress=progress))
            await store.write(claim, make_task(state=State.SUCCEEDED))
            await asyncio.sleep(0.1)  # the follower is busy while the news come in
            assert [stored async for stored in changes][-1].record.state is State.SUCCEEDED

    async def test_two_hundred_watchers_see_the_end(self, store: TaskStore, other: TaskStore) -> None:
        claims = [await claim_of(store, make_task(f"task-{i}")) for i in range(20)]
        followers = [Follower(other, f"task-{i % 20}") for i in range(200)]
        await asyncio.gather(*(follower.until(lambda stored: stored.owner == "a") for follower in followers))
        await asyncio.gather(*(store.write(c, make_task(c.task_id, state=State.FAILED)) for c in claims))
        assert {await follower.to_end() for follower in followers} == {State.FAILED}

    async def test_release_and_next_owner_show(self, store: TaskStore, other: TaskStore) -> None:
        claim = await claim_of(store, make_task(), owner="a")
        follower = Follower(other)
        await follower.until(lambda stored: stored.owner == "a")
        await store.release(claim, make_task())
        await follower.until(lambda stored: stored.owner is None)
        await claim_of(store, make_task(), fence=1, owner="b")
        await follower.until(lambda stored: stored.owner == "b")
        await follower.leave()

    async def test_owners_death_shows(self, make_stores: MakeStores) -> None:
        store, other = make_stores(reread_seconds=0.1)
        await claim_of(store, make_task(), owner="a", lease_seconds=0.3)
        follower = Follower(other)
        await follower.until(lambda stored: stored.owner == "a")
        await follower.until(lambda stored: stored.owner is None)
        await follower.leave()

    async def test_expiry_ends_the_watch(self, make_stores: MakeStores) -> None:
        store, other = make_stores(record_ttl_seconds=0.3, reread_seconds=0.1)
        await claim_of(store, make_task())
        assert await Follower(other).to_end() is State.QUEUED


class TestListing:
    async def test_newest_first_in_pages(self, store: TaskStore, other: TaskStore) -> None:
        for i in range(7):
            await claim_of(store, make_task(f"task-{i}", created_at=1000 + i))
        pages = await _all_pages(other, limit=3)
        assert [[record.id for record in page] for page in pages] == [
            ["task-6", "task-5", "task-4"],
            ["task-3", "task-2", "task-1"],
            ["task-0"],
        ]

    async def test_full_last_page_is_known_to_be_the_last(self, store: TaskStore) -> None:
        for i in range(4):
            await claim_of(store, make_task(f"task-{i}"))
        assert [len(page) for page in await _all_pages(store, limit=2)] == [2, 2]

    async def test_tasks_of_the_same_moment_are_all_listed(self, store: TaskStore) -> None:
        for i in range(7):
            await claim_of(store, make_task(f"task-{i}", created_at=1000))
        pages = await _all_pages(store, limit=2)
        assert sorted(record.id for page in pages for record in page) == [f"task-{i}" for i in range(7)]

    async def test_new_task_does_not_shift_the_next_page(self, store: TaskStore) -> None:
        for i in range(4):
            await claim_of(store, make_task(f"task-{i}", created_at=1000 + i))
        first = await store.page(limit=2)
        await claim_of(store, make_task("new", created_at=2000))
        second = await store.page(limit=2, before=first.next)
        assert [record.id for record in second.records] == ["task-1", "task-0"]

    async def test_state_filter(self, store: TaskStore) -> None:
        for i in range(250):
            claim = await claim_of(store, make_task(f"task-{i}", created_at=1000 + i))
            if i in (3, 130, 131):
                await store.write(claim, make_task(claim.task_id, state=State.FAILED, created_at=1000 + i))
        pages = await _all_pages(store, limit=2, states={State.FAILED})
        assert [record.id for page in pages for record in page] == ["task-131", "task-130", "task-3"]
        assert await _all_pages(store, limit=2, states={State.CANCELLED}) == [()]
        both = await _all_pages(store, limit=100, states={State.FAILED, State.QUEUED})
        assert [len(page) for page in both] == [100, 100, 50]

    async def test_expired_task_leaves_the_list_and_its_id_can_come_again(
        self, make_stores: MakeStores
    ) -> None:
        store, _ = make_stores(record_ttl_seconds=0.2)
        await claim_of(store, make_task("old", created_at=1000))
        await claim_of(store, make_task("again", created_at=1001))
        await eventually(lambda: _is_gone(store, "again"))
        await claim_of(store, make_task("again", created_at=2000))
        assert [record.created_at for record in (await store.page()).records] == [2000]

    async def test_any_cursor_is_accepted(self, store: TaskStore) -> None:
        await claim_of(store, make_task())
        for cursor in ("", "nonsense", "[", "(", "+", "-", "\n"):
            assert len((await store.page(before=cursor)).records) <= 1


class TestOutputs:
    async def test_twenty_megabytes_come_back(self, store: TaskStore, other: TaskStore) -> None:
        data = bytes(range(256)) * (20 * 2**20 // 256)
        await store.put_output(await claim_of(store, make_task()), 3, data)
        assert await other.get_output("task-1", 1, 3) == data

    async def test_latest_preview_replaces_the_one_before(self, store: TaskStore, other: TaskStore) -> None:
        claim = await claim_of(store, make_task())
        assert await other.get_preview("task-1") is None
        await store.put_preview(claim, b"first")
        await store.put_preview(claim, b"second")
        assert await other.get_preview("task-1") == b"second"
        assert await other.get_preview("another") is None

    async def test_preview_expires_on_its_own(
        self, store: TaskStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for module in (memory, redis, directory):
            monkeypatch.setattr(module, "PREVIEW_SECONDS", 1)
        await store.put_preview(await claim_of(store, make_task()), b"data")

        async def gone() -> bool:
            return await store.get_preview("task-1") is None

        await eventually(gone)

    async def test_what_is_parked_is_found_by_its_digest(self, store: TaskStore, other: TaskStore) -> None:
        data = bytes(range(256)) * 1000
        assert await other.get_parked("ab" * 32) is None
        await store.put_parked("ab" * 32, data)
        await store.put_parked("ab" * 32, data)  # the same picture, sent once more
        assert await other.get_parked("ab" * 32) == data
        assert await other.get_parked("cd" * 32) is None

    async def test_empty_output_is_not_a_missing_one(self, store: TaskStore) -> None:
        await store.put_output(await claim_of(store, make_task()), 0, b"")
        assert await store.get_output("task-1", 1, 0) == b""
        assert await store.get_output("task-1", 1, 1) is None
        assert await store.get_output("task-1", 2, 0) is None

    async def test_output_expires_on_its_own(self, make_stores: MakeStores) -> None:
        store, _ = make_stores(output_ttl_seconds=SHORT)
        await store.put_output(await claim_of(store, make_task()), 0, b"data")

        async def gone() -> bool:
            return await store.get_output("task-1", 1, 0) is None

        await eventually(gone)
        assert await store.read("task-1")


class TestClosing:
    async def test_closed_store_refuses_and_may_be_closed_again(self, store: TaskStore) -> None:
        claim = await claim_of(store, make_task())
        await store.close()
        await store.close()
        calls = [
            store.ping(),
            store.read("task-1"),
            store.write(claim, make_task()),
            store.amend(make_task(state=State.FAILED), fence=1),
            store.extend(claim),
            store.request_cancel("task-1"),
            store.page(),
            store.put_output(claim, 0, b""),
            store.get_output("task-1", 1, 0),
            store.put_preview(claim, b""),
            store.get_preview("task-1"),
            store.put_parked("ab" * 32, b""),
            store.get_parked("ab" * 32),
            anext(store.watch("task-1")),
            anext(store.cancels("a")),
        ]
        for call in calls:
            with pytest.raises(StoreUnavailable, match="closed"):
                await call

    async def test_followers_end_and_no_background_task_stays(self, store: TaskStore) -> None:
        before = asyncio.all_tasks()
        await claim_of(store, make_task(), owner="a")
        follower = Follower(store)
        await follower.until(lambda stored: stored.owner == "a")
        cancels = asyncio.ensure_future(anext(store.cancels("a")))
        await asyncio.sleep(0)
        await store.close()
        with pytest.raises(StoreUnavailable, match="closed"):
            await follower.to_end()
        with pytest.raises(StoreUnavailable, match="closed"):
            await asyncio.wait_for(cancels, WAIT_SECONDS)
        assert asyncio.all_tasks() <= before

    async def test_unused_store_can_be_closed(self, store: TaskStore) -> None:
        await store.close()


async def _is_gone(store: TaskStore, task_id: str = "task-1") -> bool:
    return await store.read(task_id) is None


async def _all_pages(
    store: TaskStore, *, limit: int, states: set[State] | None = None
) -> list[tuple[TaskRecord, ...]]:
    page = await store.page(limit=limit, states=states)
    pages = [page.records]
    while page.next is not None:
        assert len(pages) < 100
        page = await store.page(limit=limit, states=states, before=page.next)
        pages.append(page.records)
    return pages
