"""The review of one task: its prompt before the GPU is used, its pictures before anybody sees them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from agent.admission import RunRequest
from agent.cleaning import Cleaner
from agent.errors import AgentError, InvalidOptions
from agent.labels.options import is_enforced
from agent.metrics import Metrics
from agent.outputs.collect import Collected, files_of
from agent.safety.classifiers.build import build_image_classifiers
from agent.safety.hiding import HiddenFiles
from agent.safety.options import Modes, modes_of
from agent.safety.settings import Mode
from agent.safety.verdict import Action, Verdict
from agent.seeds import has_seeds
from agent.settings import Role, Settings, SettingsError
from agent.tasks.live import LiveTask
from agent.tasks.record import State
from comfyui.catalog import Catalog
from comfyui.client import FileRef

if TYPE_CHECKING:
    from agent.safety.judge import Judge
    from agent.safety.prompts.findings import Reviewed
    from agent.safety.prompts.review import PromptReview

log = structlog.get_logger(__name__)


class MadeAgain(Exception):
    """The pictures of an attempt are refused, and new seeds may make better ones. `error` says what is wrong."""

    def __init__(self, error: AgentError) -> None:
        self.error = error
        super().__init__(error.detail)


class Safety:
    """Reviews the tasks of one instance. A front has one too, for what needs no engine; it has no `cleaner`.
    `catalog` gives what is known of the engine's node classes.

    Raises SettingsError where the settings ask for what cannot work here.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        cleaner: Cleaner | None = None,
        *,
        catalog: Callable[[], Catalog | None] = lambda: None,
    ) -> None:
        self._catalog = catalog
        self._settings, self._metrics, self._cleaner = settings, metrics, cleaner
        self._is_front = settings.role is Role.FRONT
        self._judge: Judge | None = None
        self._prompts = _open_prompt_review(settings, metrics)
        self.hidden = HiddenFiles(is_always=settings.safety_images is Mode.ENFORCE or is_enforced(settings))
        self._preparing: set[asyncio.Task[None]] = set()
        if not self._is_front and (settings.safety_image_classifiers or _reviews_pictures(settings)):
            from agent.safety.judge import Judge  # noqa: PLC0415 - only who asks for it pays for it

            self._judge = Judge(
                settings, build_image_classifiers(settings), metrics, most_pixels=settings.max_output_pixels
            )

    async def close(self) -> None:
        for task in self._preparing:
            task.cancel()
        await asyncio.gather(*self._preparing, return_exceptions=True)
        if self._judge is not None:
            await self._judge.close()
        if self._prompts is not None:
            await self._prompts.close()

    def check(self, request: RunRequest) -> None:
        """What can be said without waiting for anything, before the task is claimed or passed on.

        Raises InvalidOptions for a request that asks for less than is set, or for what this server cannot do.
        """
        modes = modes_of(self._settings, request.safety)
        if (
            modes.images is not Mode.OFF
            and not self._is_front
            and not self._settings.safety_image_classifiers
        ):
            raise InvalidOptions(
                'Option "safety.images": this server has nothing that could look at pictures. '
                "AGENT_SAFETY_IMAGE_CLASSIFIERS names it.",
                option="safety.images",
            )
        can_review = self._prompts is not None and self._prompts.can_review
        if modes.prompts is not Mode.OFF and not self._is_front and not can_review:
            raise InvalidOptions(
                'Option "safety.prompts": this server has nothing to go by. AGENT_SAFETY_TERMS and '
                "AGENT_SAFETY_PROMPT_CLASSIFIERS name it.",
                option="safety.prompts",
            )

    async def check_prompt(self, request: RunRequest) -> RunRequest:
        """Compare the prompt with the lists before the task is claimed or passed on; a front, which must not wake an
        engine for nothing, also asks the classifiers. Returns the request with what was found, for `admit`.

        Raises InvalidOptions, PromptRefused, PromptTooLong, ClassifierUnavailable.
        """
        mode = modes_of(self._settings, request.safety).prompts
        if self._prompts is None or mode is not Mode.ENFORCE:
            return request
        checked = await self._prompts.check(request.workflow, mode, self._catalog())
        reviewed: Reviewed = checked
        if checked.error is None and self._is_front:
            reviewed = await self._prompts.classify(request.workflow, checked)
        if reviewed.error is not None:
            self._count(reviewed.verdicts)
            raise reviewed.error
        return replace(request, checked=checked)

    async def admit(self, live: LiveTask, request: RunRequest) -> RunRequest:
        """Review the prompt; returns the request as it is to be run.

        Raises PromptRefused, PromptTooLong, ClassifierUnavailable.
        """
        modes = modes_of(self._settings, request.safety)
        if modes.images is Mode.ENFORCE:
            live.shows_previews = False
            self.hidden.begin(live.id)
        if modes.images is not Mode.OFF and self._judge is not None:
            preparing = asyncio.create_task(self._judge.prepare())  # while the engine is at work
            self._preparing.add(preparing)
            preparing.add_done_callback(self._preparing.discard)
        if self._prompts is None:
            return request
        began = time.monotonic()
        try:
            return await self._admit_prompt(self._prompts, live, request, modes.prompts)
        finally:
            live.add_timing("prompt_review", time.monotonic() - began)

    async def _admit_prompt(
        self, review: PromptReview, live: LiveTask, request: RunRequest, mode: Mode
    ) -> RunRequest:
        catalog = self._catalog()
        checked = request.checked
        if checked is None or not checked.holds_for(mode, catalog):
            checked = await review.check(request.workflow, mode, catalog)
        self._take(live, checked)
        self._take(live, await review.classify(request.workflow, checked))
        workflow, added = await review.add_negative(request.workflow, catalog)
        self._take(live, added)
        return request if workflow is request.workflow else replace(request, workflow=workflow)

    def _take(self, live: LiveTask, reviewed: Reviewed) -> None:
        """Keep what was found in the record. Raises what the task is refused of."""
        self.note(live, reviewed.verdicts)
        live.lasting_warnings += reviewed.warnings
        live.update(warnings=[*live.record.warnings, *reviewed.warnings])
        if reviewed.error is not None:
            raise reviewed.error

    def release(self, live: LiveTask) -> None:
        """The task is over, or no longer ours."""
        was_enforced = self.hidden.end(live.id)
        if was_enforced and live.record.state is not State.SUCCEEDED:
            self.hidden.add(files_of(live.record.nodes))  # nobody has reviewed them

    async def review(
        self, live: LiveTask, request: RunRequest, collected: list[Collected], *, has_time: bool
    ) -> list[Collected]:
        """Review what an attempt has made; returns what may be shown. `has_time`: for another attempt.

        Raises MadeAgain, FailedImage, UnsafeImage, ClassifierUnavailable.
        """
        modes = modes_of(self._settings, request.safety)
        if modes.failed_images is Mode.OFF and modes.images is Mode.OFF:
            return collected
        began = time.monotonic()
        try:
            return await self._review(live, request, collected, modes, has_time=has_time)
        finally:
            live.add_timing("review", time.monotonic() - began)

    async def _review(
        self,
        live: LiveTask,
        request: RunRequest,
        collected: list[Collected],
        modes: Modes,
        *,
        has_time: bool,
    ) -> list[Collected]:
        from agent.safety import act  # noqa: PLC0415 - only who asks for it pays for it
        from agent.safety.judge import Judge  # noqa: PLC0415

        if self._judge is None:  # only the request asks for it
            self._judge = Judge(
                self._settings, (), self._metrics, most_pixels=self._settings.max_output_pixels
            )
        judge = self._judge
        judgements = await judge.judge_all(
            [(item.data, item.output.media_type) for item in collected],
            failed=modes.failed_images is not Mode.OFF,
            classified=modes.images is not Mode.OFF,
        )
        may_remake = (
            has_time and live.record.remakes < self._settings.safety_retries and has_seeds(request.workflow)
        )
        found = [(item.output, judgement) for item, judgement in zip(collected, judgements, strict=True)]
        what = act.decide(self._settings, modes, found, may_remake=may_remake)
        self.note(live, what.verdicts)
        if what.error is not None:
            if modes.images is Mode.ENFORCE:
                await self._discard(item for item in collected)
            if what.is_remade:
                raise MadeAgain(what.error)
            raise what.error
        live.update(warnings=[*live.record.warnings, *what.warnings])
        if not what.blurred:
            return collected
        shown = await act.blur(collected, what.blurred, judge.looks)
        await self._discard(item for item in collected if item.output.index in what.blurred)
        return shown

    def note(self, live: LiveTask, verdicts: Iterable[Verdict]) -> None:
        """Keep verdicts in the record of the attempt, count them, and log those that found something."""
        found = list(verdicts)
        live.add_verdicts(found)
        self._count(found)

    def _count(self, verdicts: Iterable[Verdict]) -> None:
        for verdict in verdicts:
            self._metrics.safety_verdict(verdict.step, verdict.action.value)
            if verdict.action is not Action.PASS:
                log.warning(
                    "safety.found",
                    step=verdict.step,
                    category=verdict.category,
                    score=verdict.score,
                    action=verdict.action.value,
                    node_id=verdict.node_id,
                )

    async def _discard(self, items: Iterable[Collected]) -> None:
        """Have the engine's own files of these outputs removed, and never shown while they are there."""
        files = [
            FileRef(item.output.filename, item.output.subfolder, item.output.type)
            for item in items
            if item.output.type not in ("websocket", "input")  # there is no file; it is the caller's own
        ]
        self.hidden.add(files)
        left = await self._cleaner.discard(files) if self._cleaner is not None else files
        if left:
            log.warning("safety.file_left", files=len(left), note="the engine's folders are not known")


def _open_prompt_review(settings: Settings, metrics: Metrics) -> PromptReview | None:
    """None where nothing is set up that looks at prompts. Raises SettingsError."""
    if not (settings.safety_terms or settings.safety_prompt_classifiers or settings.safety_negative):
        return None
    from agent.safety.prompts.review import PromptReview  # noqa: PLC0415 - only who asks for it pays for it

    try:
        return PromptReview(settings, metrics)
    except ValueError as exc:
        raise SettingsError(str(exc)) from None


def _reviews_pictures(settings: Settings) -> bool:
    return settings.safety_images is not Mode.OFF or settings.safety_failed_images is not Mode.OFF
