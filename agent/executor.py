"""One attempt at a task on this instance's engine: from waiting for the engine to the bytes of the outputs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

from agent.admission import RunRequest
from agent.cleaning import Cleaner
from agent.errors import (
    AgentError,
    EngineDied,
    EngineMisbehaved,
    EngineStalled,
    EngineUnavailable,
    GpuBroken,
    InvalidInput,
    InvalidWorkflow,
    NoOutput,
    OutOfMemory,
    OutputCorrupt,
    OutputMissing,
    UnknownNodeClass,
)
from agent.inputs.resolve import InputResolver, Prefetch
from agent.model_uses import ModelUses
from agent.outputs.collect import Collected, check_streamed, collect, named_files
from agent.outputs.folder import OutputFolders
from agent.outputs.room import OutputRoom
from agent.seeds import replace_random_seeds
from agent.settings import Settings
from agent.tasks.live import LiveTask
from agent.tasks.progress import Progress
from agent.tasks.record import State
from agent.verdict import blocked_warning, failure_of, rejection_of, warnings_of
from comfyui.catalog import Catalog
from comfyui.client import UNSERVED, Client
from comfyui.engine import Engine, EngineState
from comfyui.errors import ComfyUIError, EngineFailedError, EngineUnreachableError, PromptRejectedError
from comfyui.events import Event, NodeExecuted, PreviewImage, PromptFailed, PromptStarted
from comfyui.execution import Ended, Execution
from comfyui.feed import Feed
from comfyui.workflow import Workflow

T = TypeVar("T")

log = structlog.get_logger(__name__)

#: How long a prompt is held back for the feed to connect; without it the run goes on over HTTP alone.
FEED_SECONDS = 5

#: Faults that stay with the engine's process until it is started anew.
NEEDS_RESTART = (EngineStalled, GpuBroken)

#: How long an engine slot stays taken by a prompt that was given up, but that the engine does not let go of.
ABANDON_SECONDS = 600

#: How long the engine may remember prompts that are over.
FORGET_SECONDS = 1

#: How long the end of this instance waits for prompts to be taken out of the engine.
STOP_SECONDS = 1

#: How long an engine that does not answer is given to be found dead by its supervisor.
UNREACHABLE_SECONDS = 15


#: How often a prompt is run anew for files that were cleaned away. Twice, because the engine works off what it is told
#: to forget after the prompt that it has just begun.
CLEANED_TRIES = 2


@dataclass(frozen=True, slots=True)
class _Job:
    """What an attempt hands to the engine: the workflow with its inputs in place, and the output nodes wanted."""

    live: LiveTask
    request: RunRequest
    workflow: Workflow
    outputs: tuple[str, ...]

    def valid_outputs(self, node_errors: dict[str, Any]) -> list[str]:
        """The output nodes that ComfyUI will come to: those that it did not drop for an error."""
        dropped = set(node_errors)
        for found in node_errors.values():
            dropped |= set(found.get("dependent_outputs") or ())
        return [node for node in self.outputs if node not in dropped]

    def silent_outputs(self, progress: Progress) -> list[str]:
        """The output nodes that have shown nothing."""
        nodes = progress.snapshot()
        return [n for n in self.outputs if not (nodes[n].images or nodes[n].text or nodes[n].ui)]


class Executor:
    """Runs prompts on the engine, `concurrency` of them handed over at once: while one runs, the next one waits
    in ComfyUI's own queue with its inputs ready, and inputs and outputs of others are on their way."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        client: Client,
        feed: Feed,
        resolver: InputResolver,
        files: OutputFolders,
        cleaner: Cleaner,
        uses: ModelUses,
    ) -> None:
        self._settings, self._engine, self._client, self._files = settings, engine, client, files
        self._feed, self._resolver, self._cleaner, self._uses = feed, resolver, cleaner, uses
        self._room = OutputRoom()
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._catalog: Catalog | None = None
        self._catalog_generation = 0
        self._catalog_lock = asyncio.Lock()
        self._chores: set[asyncio.Task[None]] = set()
        self._past_prompts: list[str] = []
        self._is_stopping = asyncio.Event()

    async def stop(self) -> None:
        """Give up what goes on beside the attempts, but first let an engine that outlives us know that nobody waits
        for its prompts any more."""
        self._is_stopping.set()
        if self._chores:
            await asyncio.wait(self._chores, timeout=STOP_SECONDS)
        for chore in tuple(self._chores):
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)

    async def attempt(self, live: LiveTask, request: RunRequest) -> list[Collected]:
        """Run the task's workflow once and return its outputs; the record shows how it gets on.

        Cancelling this takes the prompt out of the engine. Raises AgentError; EngineDied as soon as the engine is
        gone, whatever was going on.
        """
        watch = _Stopwatch(live)
        async with aclosing(self._resolver.prefetch(request.workflow)) as prefetch:
            try:
                generation = await self._engine.wait_ready(self._settings.engine_start_seconds)
            except EngineFailedError as exc:
                raise EngineUnavailable(
                    f"ComfyUI is not running on this instance: {_in_short(exc)}"
                ) from None
            watch.note("engine")
            work = self._on_engine(live, request, generation, prefetch, watch)
            try:
                return await self._unless_gone(generation, work)
            finally:
                await prefetch.aclose()
                self._cleaner.schedule()

    def let_go(self, live: LiveTask) -> None:
        """The task is over, and what its attempts returned is no longer needed for it."""
        self._room.release(live.id)

    async def heal(self, error: AgentError) -> None:
        """Make the engine forget what the fault may have come from; a dead engine needs nothing."""
        if isinstance(error, OutOfMemory | OutputMissing | OutputCorrupt):
            with suppress(ComfyUIError):  # the next attempt will meet what is wrong
                await self._client.free(unload_models=isinstance(error, OutOfMemory), free_memory=True)

    async def _on_engine(
        self, live: LiveTask, request: RunRequest, generation: int, prefetch: Prefetch, watch: _Stopwatch
    ) -> list[Collected]:
        catalog = await self._load_catalog(generation)
        _check_classes(request.workflow, catalog)
        _check_prefixes(request.workflow, catalog)
        workflow, seeds = replace_random_seeds(request.workflow, catalog)
        live.update(seeds=seeds)
        workflow = await self._resolver.resolve(workflow, catalog, prefetch)
        watch.note("inputs")
        job = _Job(live, request, workflow, _wanted_outputs(catalog, workflow, request))
        await self._slots.acquire()
        watch.note("queue")
        progress = await self._in_slot(job, generation)
        for _ in range(CLEANED_TRIES):
            if not self._cleaner.has_removed(named_files(progress)):
                break
            # The engine's cache still names files that were cleaned away. That is no fault of the task.
            log.info("prompt.made_again", prompt_id=live.record.prompt_id)
            await self._client.free(unload_models=False, free_memory=True)
            await self._slots.acquire()
            progress = await self._in_slot(job, generation)
        watch.note("run")
        async with self._room.turn(live.id):
            collected = await collect(self._files, live.id, progress, self._settings.max_output_bytes)
            self._room.hold(live.id, sum(len(item.data) for item in collected))
        _check_outputs(job, progress)
        watch.note("collect")
        return collected

    async def _in_slot(self, job: _Job, generation: int) -> Progress:
        """Run the prompt. The slot is free again only when the engine is done with it, however this ends."""
        execution = Execution(
            self._client,
            self._feed,
            silence_seconds=self._settings.engine_silence_seconds,
            stall_seconds=self._settings.engine_stall_seconds,
        )
        with execution:
            try:
                progress = await self._follow(job, execution)
            except BaseException as error:
                if isinstance(error, NEEDS_RESTART):
                    self._engine.restart(f"{error.code}: {error.detail}", generation)
                self._spawn(self._abandon(execution, generation))
                raise
        self._slots.release()
        self._forget(execution)
        return progress

    async def _follow(self, job: _Job, execution: Execution) -> Progress:
        live, workflow = job.live, job.workflow
        await self._feed.wait_connected(FEED_SECONDS)
        try:
            submitted = await execution.submit(
                workflow.graph, extra_data=job.request.extra_data, options=job.request.options
            )
        except PromptRejectedError as refused:
            raise rejection_of(refused, workflow) from None
        if self._catalog is not None and self._uses.is_wanted:
            self._spawn(self._uses.note(workflow, self._catalog))
        progress = Progress(workflow)
        progress.expect(workflow.upstream(job.valid_outputs(submitted.node_errors)))
        live.show(progress)
        warnings = [*live.lasting_warnings, *warnings_of(submitted.node_errors, workflow)]
        live.update(prompt_id=execution.prompt_id, warnings=warnings)
        try:
            await self._fold(job, execution, progress)
        finally:
            self._cleaner.note(named_files(progress))
        if execution.missed_events and (lost := progress.missing_streams()):
            raise OutputMissing(
                f'Pictures of node "{lost[0]}" were sent while the connection to ComfyUI was broken.',
                node_id=lost[0],
            )
        return progress

    async def _fold(self, job: _Job, execution: Execution, progress: Progress) -> None:
        live, workflow = job.live, job.workflow
        async for event in execution.events():
            progress.apply(event)
            match event:
                case PromptStarted():
                    _mark_running(live)
                case PreviewImage(data=data) if not progress.streams(event.node):
                    live.show_preview(data)
                case PreviewImage():
                    check_streamed(progress, self._settings.max_output_bytes)
                case PromptFailed(is_blocked_output=True):
                    live.update(warnings=[*live.record.warnings, blocked_warning(event, workflow)])
                case Ended():
                    _mark_running(live)
                    _take_end(event, progress, workflow)
                    if event.history is None and job.silent_outputs(progress):
                        await self._ask_for_outputs(execution, progress)
            live.note_progress()
            if job.request.watch is not None and (live.shows_previews or not _shows_pictures(event)):
                job.request.watch(event)

    async def _ask_for_outputs(self, execution: Execution, progress: Progress) -> None:
        """An output node without a message may have nothing to say, or its message was lost on an open socket."""
        if history := await self._client.history(execution.prompt_id):
            progress.replace_outputs(history)

    async def _abandon(self, execution: Execution, generation: int) -> None:
        """Get the prompt out of the engine; one that is gone took the prompt along."""
        try:
            if self._engine.state is EngineState.READY and self._engine.generation == generation:
                async with asyncio.timeout(ABANDON_SECONDS):
                    await self._unless_gone(generation, execution.stop())
                self._forget(execution)
        except (AgentError, TimeoutError) as exc:
            log.info("prompt.abandoned", prompt_id=execution.prompt_id, reason=str(exc) or "it goes on")
        finally:
            self._slots.release()
            await execution.close()

    def _forget(self, execution: Execution) -> None:
        """Have the engine do so: history entries hold whole graphs, and ComfyUI keeps ten thousand of them."""
        self._past_prompts.append(execution.prompt_id)
        if len(self._past_prompts) == 1:
            self._spawn(self._forget_all())

    async def _forget_all(self) -> None:
        """A moment later, when callers have their answers, and several prompts at once."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FORGET_SECONDS):
                await self._is_stopping.wait()
        prompt_ids, self._past_prompts = self._past_prompts, []
        try:
            await self._client.forget(prompt_ids)
        except ComfyUIError as exc:
            log.debug("prompt.not_forgotten", prompt_ids=prompt_ids, reason=str(exc))

    @property
    def catalog(self) -> Catalog | None:
        """The engine's node classes as the latest task met them; None before the first."""
        return self._catalog

    async def _load_catalog(self, generation: int) -> Catalog:
        async with self._catalog_lock:
            if self._catalog is None or self._catalog_generation != generation:
                self._resolver.forget_uploads()
                self._files.doubt()
                self._catalog = Catalog(await self._client.object_info())
                self._catalog_generation = generation
            return self._catalog

    async def _unless_gone(self, generation: int, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, or EngineDied as soon as this generation of the engine is gone."""
        worker = asyncio.create_task(work)
        gone = asyncio.create_task(self._engine.wait_gone(generation))
        try:
            await asyncio.wait((worker, gone), return_when=asyncio.FIRST_COMPLETED)
            if worker.done():
                return worker.result()
        except EngineUnreachableError:
            # Let the supervisor say what became of the engine, or another attempt would meet the same silence.
            await asyncio.wait((gone,), timeout=UNREACHABLE_SECONDS)
            if not gone.done():
                raise EngineDied("ComfyUI does not answer.") from None
        except ComfyUIError as exc:
            raise EngineMisbehaved(f"ComfyUI gave an answer that makes no sense: {exc}") from None
        finally:
            worker.cancel()
            gone.cancel()
            await asyncio.gather(worker, gone, return_exceptions=True)
        raise EngineDied(f"ComfyUI stopped while the task was running: {_in_short(gone.result())}")

    def _spawn(self, chore: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(chore)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)


class _Stopwatch:
    """Notes how long each stage of an attempt took."""

    def __init__(self, live: LiveTask) -> None:
        self._live, self._since = live, time.monotonic()

    def note(self, stage: str) -> None:
        now = time.monotonic()
        self._live.add_timing(stage, now - self._since)
        self._since = now


def _shows_pictures(event: Event) -> bool:
    """Whether the event holds, or names, what nobody has reviewed."""
    return isinstance(event, PreviewImage | NodeExecuted)


def _check_classes(workflow: Workflow, catalog: Catalog) -> None:
    if unknown := catalog.unknown_nodes(workflow):
        first = workflow.nodes[unknown[0]]
        raise UnknownNodeClass(
            f'Node "{first.id}" ({first.title}) has class "{first.class_type}", which this ComfyUI does not have. '
            "Install the custom node that it comes from, or correct the name.",
            node_id=first.id,
            node_title=first.title,
            node_class=first.class_type,
            unknown=sorted({workflow.nodes[node_id].class_type for node_id in unknown}),
        )
    if not catalog.output_nodes(workflow):
        raise InvalidWorkflow("The workflow has no output node, such as SaveImage or PreviewImage: add one.")


def _wanted_outputs(catalog: Catalog, workflow: Workflow, request: RunRequest) -> tuple[str, ...]:
    """The workflow's output nodes, or those of them that the caller picked."""
    targets = request.options.get("partial_execution_targets")
    outputs = catalog.output_nodes(workflow)
    return tuple(node for node in outputs if targets is None or node in targets)


def _check_prefixes(workflow: Workflow, catalog: Catalog) -> None:
    """ComfyUI saves files with ".." or control characters in their names, but never serves one: the work would be done
    in vain."""
    for node_id in catalog.output_nodes(workflow):
        prefix = workflow.nodes[node_id].inputs.get("filename_prefix")
        if isinstance(prefix, str) and (".." in prefix or UNSERVED.search(prefix)):
            what = '".."' if ".." in prefix else "line breaks and other control characters"
            raise InvalidInput(
                f'Input "filename_prefix" of node "{node_id}" ({workflow.title(node_id)}) must not hold {what}.',
                node_id=node_id,
                node_title=workflow.title(node_id),
                input="filename_prefix",
            )


def _in_short(reason: object) -> str:
    """The first line. Those after it quote the engine's output, which may show other callers' work."""
    return str(reason).partition("\n")[0]


def _mark_running(live: LiveTask) -> None:
    if live.state is State.QUEUED:
        live.update(state=State.RUNNING, started_at=time.time(), queue_position=None)


def _take_end(ended: Ended, progress: Progress, workflow: Workflow) -> None:
    """Complete the progress from what the end brings; raise what the task failed of."""
    if ended.history is not None:
        progress.replace_outputs(ended.history)
    if error := failure_of(ended, workflow):
        raise error


def _check_outputs(job: _Job, progress: Progress) -> None:
    """A success must show something. An output node without any may be right (it may save elsewhere), so the
    record only warns of it, but a workflow without any output is what callers call an empty answer."""
    silent = job.silent_outputs(progress)
    if len(silent) == len(job.outputs):
        raise NoOutput(node_id=silent[0])
    warnings = job.live.record.warnings
    explained = {warning.get("node_id") for warning in warnings}
    unexplained = [node for node in silent if node not in explained]
    if unexplained:
        found = [
            {"code": "NodeWithoutOutput", "detail": f'Node "{node}" produced nothing.', "node_id": node}
            for node in unexplained
        ]
        job.live.update(warnings=[*warnings, *found])
