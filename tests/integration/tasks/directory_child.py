"""What another process does in a shared folder: `python -m tests.integration.tasks.directory_child WHAT FOLDER ...`.
Says "ready" and begins when it is given a line."""

from __future__ import annotations

import asyncio
import resource
import sys
from pathlib import Path

from agent.errors import StoreUnavailable
from agent.tasks.directory import DirectoryStore
from agent.tasks.record import NodeProgress, State
from agent.tasks.store import Claim
from tests.integration.tasks.steps import CALLS, claim_of, make_task

NODES = 3000  # of a record that takes a while to write


async def race(store: DirectoryStore, me: str, count: str) -> None:
    """Take tasks that others want too; say which became ours."""
    for i in range(int(count)):
        record = make_task(f"race-{i}")
        if isinstance(await store.take(record, expected_fence=0, owner=me, lease_seconds=60), Claim):
            say(i)


async def relay(store: DirectoryStore, me: str, count: str) -> None:
    """Take one task again and again, whenever nobody has it; say which fences were ours."""
    fence = 0
    while fence < int(count):
        taken = await store.take(make_task("relay"), expected_fence=fence, owner=me, lease_seconds=60)
        fence = taken.fence
        if isinstance(taken, Claim):
            say(fence)
            await store.release(taken, make_task("relay", state=State.QUEUED))


async def write(store: DirectoryStore) -> None:
    """Write a large record for ever."""
    claim = await claim_of(store, make_task())
    say("writing")
    step = 0
    while True:
        step += 1
        nodes = {str(number): NodeProgress(value=step) for number in range(NODES)}
        await store.write(claim, make_task(state=State.RUNNING, nodes=nodes))


async def fill(store: DirectoryStore, limit: str) -> None:
    """Put outputs until there is no room, and say what the store says then; `limit`: largest file, 0: none."""
    claim = await claim_of(store, make_task(), owner="a")
    if int(limit):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    try:
        for index in range(1000):
            await store.put_output(claim, index, bytes(10_000 * (index + 1)))
    except StoreUnavailable as error:
        say(error.detail)
    assert await store.get_output("task-1", 1, 0) == bytes(10_000)
    temporary = list((Path(sys.argv[2]) / "tmp").iterdir())
    assert not temporary, "a file that could not be written is left"
    if int(limit):
        return
    for name in ("take", "write", "put_output"):  # also with the last byte gone
        filler = Path(sys.argv[2]) / "filler"
        with filler.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1000))
            except OSError:
                pass
        try:
            await CALLS[name](store)
            say(f"{name} had room")
        except StoreUnavailable as error:
            say(error.detail)
    stored = await store.read("task-1")
    assert stored
    filler.unlink()
    for name in ("take", "write", "put_output"):
        await CALLS[name](store)


async def hang(store: DirectoryStore) -> None:
    """Ask for a task that the file server never gives."""
    try:
        await store.read("task-1")
    except StoreUnavailable as error:
        say(error.detail)


def say(what: object) -> None:
    print(what, flush=True)


async def main(what: str, folder: str, *args: str) -> None:
    store = DirectoryStore(Path(folder), record_ttl_seconds=600, output_ttl_seconds=600, timeout_seconds=20)
    if what == "hang":
        store = DirectoryStore(
            Path(folder), record_ttl_seconds=600, output_ttl_seconds=600, timeout_seconds=0.5
        )
    say("ready")
    sys.stdin.readline()
    await {"race": race, "relay": relay, "write": write, "fill": fill, "hang": hang}[what](store, *args)
    await store.close()
    say("done")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
