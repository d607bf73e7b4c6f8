"""Measures the store in a folder: `python -m tests.integration.tasks.measure_directory FOLDER`."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from agent.tasks.directory import DirectoryStore
from agent.tasks.record import NodeProgress, State, TaskRecord
from agent.tasks.store import Claim
from tests.integration.tasks.steps import claim_of, make_task

COUNT = int(os.environ.get("MEASURED_CLAIMS", "500"))
PICTURE = bytes(range(256)) * (4 * 2**20 // 256)


def record(task_id: str, state: State = State.QUEUED) -> TaskRecord:
    return make_task(task_id, state=state, nodes={str(node): NodeProgress() for node in range(20)})


async def measure(folder: Path) -> None:
    store = DirectoryStore(folder, record_ttl_seconds=600, output_ttl_seconds=600)
    await store.ping()
    began = time.perf_counter()
    claims = [await claim_of(store, record(f"one-{i}")) for i in range(COUNT)]
    print(f"claims one after the other: {COUNT / (time.perf_counter() - began):.0f} a second")
    began = time.perf_counter()
    await asyncio.gather(*(claim_of(store, record(f"many-{i}")) for i in range(COUNT)))
    print(f"claims at once: {COUNT / (time.perf_counter() - began):.0f} a second")
    calls: dict[str, Callable[[Claim], Awaitable[object]]] = {
        "write": lambda claim: store.write(claim, record(claim.task_id, State.RUNNING)),
        "extend": store.extend,
        "read": lambda claim: store.read(claim.task_id),
        "put_output (4 MiB)": lambda claim: store.put_output(claim, 0, PICTURE),
        "get_output (4 MiB)": lambda claim: store.get_output(claim.task_id, 1, 0),
        f"page of 50 of {2 * COUNT}": lambda _: store.page(limit=50),
    }
    for name, call in calls.items():
        taken = []
        for claim in claims[:100]:
            began = time.perf_counter()
            await call(claim)
            taken.append(1000 * (time.perf_counter() - began))
        most = statistics.quantiles(taken, n=10)[-1]
        print(f"{name}: median {statistics.median(taken):.2f} ms, 9 of 10 under {most:.2f} ms")
    await store.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1]) as made:
        asyncio.run(measure(Path(made)))
