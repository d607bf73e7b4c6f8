"""One run: plan, make room, bring the models, then the custom nodes."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from agent.provision.budget import Held, Missing, Plan, plan_for
from agent.provision.display import Display
from agent.provision.download import Downloader, Patience
from agent.provision.errors import ProvisionError
from agent.provision.lock import Lock
from agent.provision.manifest import Manifest, ModelEntry
from agent.provision.nodes import NodeStore
from agent.provision.part import Part, in_thread
from agent.provision.space import Space, to_text
from agent.provision.store import ModelStore, Place, read_record, sha256_of


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line and the environment add to a manifest."""

    manifest: Manifest
    models: Path
    comfyui: Path | None
    environ: Mapping[str, str]
    dry_run: bool = False
    verify: bool = False
    patience: Patience = field(default_factory=Patience)


async def provision(wanted: Wanted, display: Display) -> bool:
    """Put everything in place that is not; says whether all of it is there now.

    What fails is told as a line, and the rest is done all the same. A cancelled run leaves unfinished downloads for
    the next one. Raises OSError when the models folder cannot be made.
    """
    store = ModelStore(wanted.models)
    if not wanted.dry_run and wanted.manifest.models:
        store.prepare()
    are_models_there = await _Models(wanted, store, display).provide()
    are_nodes_there = await _provide_nodes(wanted, display)
    return are_models_there and are_nodes_there


class _Models:
    def __init__(self, wanted: Wanted, store: ModelStore, display: Display) -> None:
        self._wanted = wanted
        self._store = store
        self._display = display
        self._all_well = True

    async def provide(self) -> bool:
        manifest, now = self._wanted.manifest, time.time()
        usable = [entry for entry in manifest.models if self._is_usable(entry)]
        missing = [entry for entry in usable if not await self._is_there(entry)]
        plan = self._plan(usable, missing)
        self._follow(plan)
        if not (manifest.models or manifest.custom_nodes or plan.evict):
            self._display.idle("the manifest names no model.")
        for entry in usable:
            if entry not in missing and entry.path not in plan.evict:
                if not self._wanted.dry_run:
                    self._store.touch(entry, now)
                self._display.done("present", entry.path)
        await self._bring([entry for entry in missing if entry.path not in plan.leave_out])
        return self._all_well

    def _is_usable(self, entry: ModelEntry) -> bool:
        try:
            self._store.place(entry.path)
        except (ProvisionError, OSError, RuntimeError) as exc:  # a loop of links is a RuntimeError
            self._fail(entry.path, exc)
            return False
        return True

    async def _is_there(self, entry: ModelEntry) -> bool:
        """Whether the right file is there: by its record, and with --verify by its content."""
        if not self._store.is_present(entry):
            return False
        if not self._wanted.verify:
            return True
        place = self._store.place(entry.path)
        try:
            found = await in_thread(lambda: sha256_of(place.target))
        except OSError as exc:
            found = f"no answer but {exc.strerror}"
        if found != entry.sha256:
            self._display.done("damaged", entry.path, f"expected SHA-256 {entry.sha256}, got {found}")
            if not self._wanted.dry_run:
                place.record.unlink(missing_ok=True)  # nobody shall take it for right any more
        return found == entry.sha256

    def _plan(self, usable: list[ModelEntry], missing: list[ModelEntry]) -> Plan:
        absent = {entry.path for entry in missing}
        named = {entry.path: entry for entry in usable}
        records = {record.path: record for record in self._store.records()}
        held = [
            Held(
                path,
                entry.bytes or 0,
                self._store.last_used(path),
                entry.evictable,
                self._store.last_wanted(path),
            )
            for path, entry in named.items()
            if path not in absent
        ]
        # What an earlier manifest marked as evictable may go too; what none marked is never touched.
        held += [
            Held(
                path,
                record.bytes,
                self._store.last_used(path),
                evictable=True,
                last_wanted=self._store.last_wanted(path),
            )
            for path, record in records.items()
            if path not in named and record.evictable and not record.evicted
        ]
        to_come = [
            Missing(
                entry.path,
                entry.bytes or 0,
                entry.evictable,
                was_evicted=(record := records.get(entry.path)) is not None
                and record.evicted
                and record.sha256 == entry.sha256,
            )
            for entry in missing
        ]
        return plan_for(self._wanted.manifest.disk_budget, held, to_come)

    def _follow(self, plan: Plan) -> None:
        for path in plan.evict:
            try:
                if not self._wanted.dry_run:
                    self._store.evict(path)
                self._display.done("evict" if self._wanted.dry_run else "evicted", path)
            except (OSError, ProvisionError) as exc:
                self._fail(path, exc)
        for path in plan.leave_out:
            self._display.done("left out", path, "evictable, and the disk budget is used up")

    async def _bring(self, missing: list[ModelEntry]) -> None:
        if self._wanted.dry_run:
            for entry in missing:
                is_there = self._store.place(entry.path).target.exists()
                size = to_text(entry.bytes) if entry.bytes else ""
                self._display.done("check" if is_there else "fetch", entry.path, size)
            return
        if not missing:
            return
        places = asyncio.Semaphore(self._wanted.manifest.parallel)
        tokens = {
            host: self._wanted.environ.get(variable, "").strip() or None
            for host, variable in self._wanted.manifest.tokens.items()
        }
        async with Downloader(tokens, Space(self._store.root), self._wanted.patience) as downloader:
            with self._display.showing():
                async with asyncio.TaskGroup() as group:
                    for entry in missing:
                        group.create_task(self._bring_one(entry, downloader, places))

    async def _bring_one(self, entry: ModelEntry, downloader: Downloader, places: asyncio.Semaphore) -> None:
        async with places:
            try:
                what = await self._provide_one(entry, downloader)
            except (ProvisionError, OSError) as exc:
                self._fail(entry.path, exc)
            else:
                self._display.done(what, entry.path)

    async def _provide_one(self, entry: ModelEntry, downloader: Downloader) -> str:
        place = self._store.place(entry.path)
        async with Lock(place.lock) as lock:
            if self._store.is_present(entry):
                return "present"  # another process brought it while we waited
            if await in_thread(lambda: _is_right(place, entry)):
                self._store.keep(entry)
                return "adopted"
            async with Part(place, entry.sha256) as part:
                with self._display.download(entry.path) as tell:
                    await downloader.fetch(entry, part, tell)
                if not lock.is_held():
                    raise ProvisionError(
                        "another process took this download over, since this one stood still for too long"
                    )
                await part.finish()
            self._store.keep(entry)
            return "fetched"

    def _fail(self, path: str, exc: Exception) -> None:
        self._all_well = False
        reason = f"{exc.filename}: {exc.strerror}" if isinstance(exc, OSError) and exc.filename else str(exc)
        self._display.failed(path, reason)


async def _provide_nodes(wanted: Wanted, display: Display) -> bool:
    if not wanted.manifest.custom_nodes or wanted.comfyui is None:
        return True
    store = NodeStore(wanted.comfyui, set(wanted.manifest.tokens.values()))
    missing = store.missing(wanted.manifest.custom_nodes)
    all_well = True
    for node in wanted.manifest.custom_nodes:
        if node not in missing:
            display.done("present", node)
        elif wanted.dry_run:
            display.done("install", node)
        else:
            try:
                was_needed = await store.install(node)
                display.done("installed" if was_needed else "present", node)
            except (ProvisionError, OSError) as exc:
                all_well = False
                display.failed(node, str(exc))
    return all_well


def _is_right(place: Place, entry: ModelEntry) -> bool:
    """Whether the right file lies there although no record says so: somebody else put it there."""
    try:
        found = place.target.stat()
        record = read_record(place.record)
        if record is not None and record.describes(found):
            return record.sha256 == entry.sha256
        if entry.bytes is not None and found.st_size != entry.bytes:
            return False
        return sha256_of(place.target) == entry.sha256
    except OSError:
        return False


def run_until_stopped(wanted: Wanted, display: Display) -> bool | None:
    """Run until the end or until SIGINT or SIGTERM, which are None: the next run goes on from there."""

    async def main() -> bool:
        work = asyncio.ensure_future(provision(wanted, display))
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, work.cancel)
        return await work

    with suppress(asyncio.CancelledError):
        return asyncio.run(main())
    return None
