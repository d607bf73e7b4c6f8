"""The disk budget: what goes, what stays, and what does not come back."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

from aiohttp import ClientSession

from agent.provision.budget import Held, Missing, Plan, plan_for
from tests.integration.cli.conftest import SECONDS, Command, serving
from tests.integration.provision.conftest import Site
from tests.ports import free_port

KB = 1000
ROOT = Path(__file__).parents[3]


def held(path: str, last_used: float, *, evictable: bool = True) -> Held:
    return Held(path, 10, last_used, evictable)


def missing(path: str, *, evictable: bool = False, was_evicted: bool = False) -> Missing:
    return Missing(path, 10, evictable, was_evicted)


def test_without_a_budget_nothing_goes():
    assert plan_for(None, [held("a", 1)], [missing("b")]) == Plan()


def test_longest_unused_goes_first_and_only_as_many_as_needed():
    lying = [held("new", 3), held("old", 1), held("older", 0), held("fixed", -1, evictable=False)]
    assert plan_for(40, lying, [missing("x")]) == Plan(evict=("older",))
    assert plan_for(40, lying, [missing("x"), missing("y")]) == Plan(evict=("older", "old"))


def test_of_two_equally_old_the_later_in_the_manifest_goes():
    assert plan_for(20, [held("first", 1), held("last", 1)], [missing("x")]) == Plan(evict=("last",))


def test_smaller_budget_is_kept_at_once():
    assert plan_for(10, [held("a", 1), held("b", 2)], []) == Plan(evict=("a",))


def test_what_was_evicted_comes_back_only_into_free_room():
    gone = missing("gone", evictable=True, was_evicted=True)
    assert plan_for(10, [held("a", 1)], [gone]) == Plan(leave_out=("gone",))
    assert plan_for(20, [held("a", 1)], [gone]) == Plan()


def test_new_evictable_model_pushes_out_older_ones_but_none_that_must_stay():
    new = missing("new", evictable=True)
    assert plan_for(10, [held("a", 1)], [new]) == Plan(evict=("a",))
    assert plan_for(10, [held("a", 1, evictable=False)], [new]) == Plan(leave_out=("new",))


def test_models_that_must_be_there_come_before_those_that_may():
    wanted = [missing("may", evictable=True), missing("must")]
    assert plan_for(10, [], wanted) == Plan(leave_out=("may",))


def entries(site: Site, *names: str, **more: bool) -> list[dict]:
    return [site.offer(f"loras/{name}", name.encode() * 10 * KB, bytes=10 * KB, **more) for name in names]


async def test_new_model_evicts_the_longest_unused_one_and_the_next_run_does_nothing(site: Site):
    evictable = entries(site, "a", "b", "c", evictable=True)
    budget = {"disk_budget": "30 KB"}
    await site.run(*evictable, manifest=budget)
    let_age(site, a=200, b=100, c=300)
    well, lines = await site.run(*entries(site, "d"), *evictable, manifest=budget)
    assert well
    assert ("fetched", "loras/d") in lines.said
    assert [path for what, path in lines.said if what == "evicted"] == ["loras/b"]
    site.server.requests.clear()
    well, again = await site.run()
    assert well
    assert site.server.requests == []
    assert {what for what, _ in again.said} == {"present", "left out"}


def let_age(site: Site, *, kind: str = "loras", suffix: str = "", **moments: int) -> None:
    """Let the models have been wanted and read last at these moments."""
    for name, moment in moments.items():
        model = site.models / f"{kind}/{name}{suffix}"
        os.utime(model, ns=(moment * 10**9, model.stat().st_mtime_ns))
        for record in (site.models / ".provision").glob("*.json"):
            if f"{kind}/{name}" in record.read_text():
                os.utime(record, (moment, moment))


async def test_reading_a_model_counts_as_use_where_the_disk_notes_it(site: Site):
    budget = {"disk_budget": "20 KB"}
    await site.run(*entries(site, "a", "b", evictable=True), manifest=budget)
    let_age(site, a=100, b=200)
    model = site.models / "loras/a"
    os.utime(model, ns=(300 * 10**9, model.stat().st_mtime_ns))
    _, lines = await site.run(*entries(site, "d"), manifest=budget)
    assert [path for what, path in lines.said if what == "evicted"] == ["loras/b"]


async def test_model_of_an_earlier_manifest_goes_by_its_last_use(site: Site):
    budget = {"disk_budget": "30 KB"}
    await site.run(*entries(site, "a", "b", "c", evictable=True), manifest=budget)
    let_age(site, a=200, b=100, c=300)
    well, lines = await site.run(*entries(site, "d", "e"), manifest=budget)
    assert well
    assert [path for what, path in lines.said if what == "evicted"] == ["loras/b", "loras/a"]
    assert sorted(site.files()) == ["loras/c", "loras/d", "loras/e"]


async def test_model_that_no_manifest_marked_is_never_touched(site: Site):
    await site.run(*entries(site, "a"))
    (site.models / "loras/hand-made").write_bytes(bytes(100 * KB))
    well, _ = await site.run(*entries(site, "d", "e"), manifest={"disk_budget": "20 KB"})
    assert well
    assert sorted(site.files()) == ["loras/a", "loras/d", "loras/e", "loras/hand-made"]


async def test_model_that_somebody_deleted_by_hand_takes_no_room(site: Site):
    budget = {"disk_budget": "20 KB"}
    await site.run(*entries(site, "a", "b", evictable=True), manifest=budget)
    (site.models / "loras/a").unlink()
    well, lines = await site.run(*entries(site, "d"), manifest=budget)
    assert well
    assert lines.said == [("fetched", "loras/d")]
    assert sorted(site.files()) == ["loras/b", "loras/d"]


async def test_record_that_leads_out_of_the_models_folder_is_not_believed(site: Site, tmp_path: Path):
    await site.run(*entries(site, "a", evictable=True))
    (tmp_path / "precious").write_bytes(b"precious")
    for record in (site.models / ".provision").glob("*.json"):
        record.write_text(record.read_text().replace("loras/a", "../precious"))
    well, lines = await site.run(*entries(site, "d"), manifest={"disk_budget": "10 KB"})
    assert well
    assert lines.said == [("fetched", "loras/d")]
    assert (tmp_path / "precious").exists()


async def test_dry_run_says_what_would_go_and_keeps_it(site: Site):
    await site.run(*entries(site, "a", evictable=True), manifest={"disk_budget": "10 KB"})
    _, lines = await site.run(*entries(site, "d"), manifest={"disk_budget": "10 KB"}, dry_run=True)
    assert lines.said == [("evict", "loras/a"), ("fetch", "loras/d")]
    assert sorted(site.files()) == ["loras/a"]


async def test_model_that_a_task_used_stays_before_one_that_none_did(site: Site, command: Command):
    files = [f"checkpoints/{name}.safetensors" for name in "abc"]
    models = [site.offer(file, file.encode() * 500, bytes=500 * len(file), evictable=True) for file in files]
    budget = {"disk_budget": 1500 * len(files[0])}
    await site.run(*models, manifest={**budget, "root": str(site.models)})
    switches = (f"--base-directory {command.home / 'engine'}", *(f"--model {file}" for file in files))
    command.settings = {
        "AGENT_PROVISION": str(site.manifest),
        "COMFYUI_PORT": str(free_port()),
        "COMFYUI_ARGS": " ".join(switches),
    }
    with serving(command) as url:
        let_age(site, kind="checkpoints", suffix=".safetensors", a=100, b=200, c=300)
        workflow = json.loads((ROOT / "workflows/text-to-image.json").read_text())
        for node in workflow.values():
            if "ckpt_name" in node["inputs"]:
                node["inputs"]["ckpt_name"] = "a.safetensors"
        async with ClientSession() as http, http.post(f"{url}/api/run", json=workflow) as answer:
            assert answer.status == 200, await answer.text()
        async with asyncio.timeout(SECONDS):
            while not list((site.models / ".provision").glob("*.used")):
                await asyncio.sleep(0.05)  # it is noted beside the run
    new = site.offer("checkpoints/new", bytes(100), bytes=100)
    _, lines = await site.run(*models, new, manifest=budget)
    assert [path for what, path in lines.said if what == "evicted"] == ["checkpoints/b.safetensors"]
