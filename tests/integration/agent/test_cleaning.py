"""Files of tasks that are over leave the disk, and nothing that is run again misses them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.integration.agent import graphs
from tests.integration.agent.graphs import BLUE, GREEN, RED, fresh_color, rgb
from tests.integration.agent.pictures import b64, color_of, png
from tests.integration.agent.service import Agent, MakeAgent, eventually, settings_of

KEEP_SECONDS = 0.2

#: More prompts than those whose files are kept in any case.
OTHERS = 5


class Cleaned:
    """An agent that keeps files for a moment only, and its engine's folders."""

    def __init__(self, agent: Agent, base: Path) -> None:
        self.agent, self.base = agent, base

    def files(self, folder: str) -> set[str]:
        """Names of the files with something in them."""
        return {p.name for p in (self.base / folder).rglob("*") if p.is_file() and p.stat().st_size}

    async def until_gone(self, name: str, folder: str = "output") -> None:
        async def is_gone() -> bool:
            return name not in self.files(folder)

        await eventually(is_gone)

    async def run(self, color: int, prefix: str = "series") -> dict[str, Any]:
        """A picture of this colour, which comes in the first attempt; its output."""
        answer = await self.agent.run(graphs.painted(color, prefix=prefix))
        assert color_of(*answer.results("2")) == rgb(color)
        record = await self.agent.task(answer.headers["task-id"])
        assert [attempt["outcome"] for attempt in record["attempts"]] == ["succeeded"]
        output: dict[str, Any] = record["outputs"][0]
        return output


@pytest_asyncio.fixture(loop_scope="session", params=[(), ("--cache-lru", "100"), ("--cache-none",)], ids=str)
async def cleaned(make_agent: MakeAgent, request: pytest.FixtureRequest, tmp_path: Path) -> Cleaned:
    agent = await make_agent(engine=list(request.param), keep_files_seconds=KEEP_SECONDS)
    return Cleaned(agent, tmp_path / "engine1")


async def test_same_workflow_gives_the_same_picture_after_its_files_were_removed(cleaned: Cleaned) -> None:
    first = await cleaned.run(RED)
    for _ in range(OTHERS):
        await cleaned.run(fresh_color())
    await cleaned.until_gone(first["filename"])
    # Had the number become free, a cache that remembers many prompts would show GREEN as RED.
    await cleaned.run(GREEN)
    await cleaned.run(RED)
    await cleaned.run(GREEN)


async def test_disk_stays_flat_and_numbers_go_on(cleaned: Cleaned) -> None:
    names = [(await cleaned.run(fresh_color()))["filename"] for _ in range(4 * OTHERS)]
    assert len(set(names)) == len(names), "no number was given twice"
    await cleaned.until_gone(names[-OTHERS - 1])

    async def is_flat() -> bool:
        return len(cleaned.files("output")) <= OTHERS

    await eventually(is_flat)
    assert names[-1] in cleaned.files("output"), "the latest prompts keep theirs"


async def test_each_series_keeps_its_highest_number(cleaned: Cleaned) -> None:
    """Where all files of a series are old, the highest stays as an empty one."""
    old = [await cleaned.run(fresh_color(), "old") for _ in range(3)]
    for _ in range(OTHERS):
        await cleaned.run(fresh_color())
    for output in old:
        await cleaned.until_gone(output["filename"])
    new = await cleaned.run(BLUE, "old")
    assert new["filename"] not in {output["filename"] for output in old}


async def test_repeated_workflow_comes_from_the_cache_however_late(
    make_agent: MakeAgent, tmp_path: Path
) -> None:
    cleaned = Cleaned(await make_agent(engine=[], keep_files_seconds=KEEP_SECONDS), tmp_path / "engine1")
    first = await cleaned.run(RED)
    await asyncio.sleep(3 * KEEP_SECONDS)  # nothing happens, and that is what is being waited for
    assert (await cleaned.run(RED))["filename"] == first["filename"], "the engine did not save it again"


async def test_previews_in_the_temp_folder_leave_too(cleaned: Cleaned) -> None:
    answer = await cleaned.agent.run(graphs.chain(graphs.empty(RED), graphs.preview()))
    (entry,) = answer.ok()["2"]["images"]
    assert entry["type"] == "temp"
    for _ in range(OTHERS):
        await cleaned.run(fresh_color())
    await cleaned.until_gone(entry["filename"], "temp")
    again = await cleaned.agent.run(graphs.chain(graphs.empty(RED), graphs.preview()))
    assert color_of(*again.results("2")) == rgb(RED)


async def test_input_that_was_removed_is_uploaded_again(cleaned: Cleaned) -> None:
    picture = b64(png(rgb(GREEN)))

    async def is_empty() -> bool:
        return cleaned.files("input") == set()

    for _ in range(3):
        assert color_of(*(await cleaned.agent.run(graphs.loaded(picture))).results("2")) == rgb(GREEN)
        await eventually(is_empty)


async def test_input_stays_as_long_as_a_task_uses_it(make_agent: MakeAgent) -> None:
    agent = await make_agent(engine=[], keep_files_seconds=KEEP_SECONDS, concurrency=1)
    # It waits in the queue, its input at hand, for longer than files are kept; others come and go meanwhile.
    holder = await agent.begin(graphs.stepping(steps=100, seconds=0.03))
    await agent.running(holder)
    waiting = await agent.begin(graphs.loaded(b64(png(rgb(BLUE)))))
    await agent.succeeded(holder)
    await agent.succeeded(waiting)
    assert color_of((await agent.output(waiting, 0)).body) == rgb(BLUE)


async def test_files_of_others_stay(cleaned: Cleaned) -> None:
    await cleaned.run(RED)
    theirs = {cleaned.base / folder / "series_00000_.png" for folder in ("input", "output", "temp")}
    theirs.add(cleaned.base / "input" / f"{'0' * 64}.png")
    for path in theirs:
        path.write_bytes(b"not ours")
    (cleaned.base / "output" / "series_99999_.png").symlink_to(cleaned.base / "input" / "series_00000_.png")
    first = await cleaned.run(BLUE)
    for _ in range(2 * OTHERS):
        await cleaned.run(fresh_color())
    await cleaned.until_gone(first["filename"])
    assert {path.read_bytes() for path in theirs} == {b"not ours"}


async def test_zero_keeps_everything(make_agent: MakeAgent, tmp_path: Path) -> None:
    cleaned = Cleaned(await make_agent(engine=[], keep_files_seconds=0), tmp_path / "engine1")
    names = {(await cleaned.run(fresh_color()))["filename"] for _ in range(2 * OTHERS)}
    assert names <= cleaned.files("output")
    assert settings_of().keep_files_seconds == 600
