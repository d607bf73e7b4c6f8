"""Labels on what a task delivers: which ones, on which files, and what comes of a file that cannot carry them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from agent.admission import RunRequest
from agent.errors import AgentError, NotLabelled, OutputCorrupt, PictureTooLarge
from agent.gate import Gate
from agent.labels.options import Labels, labels_of
from agent.labels.settings import LabelSettings
from agent.outputs.collect import Collected
from agent.safety.settings import Mode
from agent.settings import Settings, SettingsError
from agent.tasks.live import LiveTask
from comfyui.workflow import Workflow

if TYPE_CHECKING:
    from agent.labels.credentials import Credentials
    from agent.labels.mark import Mark
    from agent.labels.picture import Labelled, Wanted

log = structlog.get_logger(__name__)

#: Pictures that are worked on at the same time: a mark takes a core for a second, and the engine needs some too.
PARALLEL_PICTURES = 2

#: Types of files that are what their names say, or broken.
PICTURES = ("image/png", "image/jpeg", "image/webp")

#: How a label is called in a sentence.
WORDS = {
    "iptc": "IPTC's DigitalSourceType",
    "aigc": "the label of GB 45438-2025",
    "parameters": "the generation parameters",
    "c2pa": "content credentials",
    "mark": "the visible mark",
}


class Labeller:
    """Labels the outputs of one instance's tasks. Nothing is imported for it as long as no label is wanted."""

    def __init__(self, settings: Settings) -> None:
        """Try font, certificate and key where they are named. Raises SettingsError."""
        self._settings = settings
        self._gate = Gate(PARALLEL_PICTURES)
        defaults = LabelSettings.model_fields
        is_named = settings.label_mark_font or settings.label_mark_text != defaults["label_mark_text"].default
        self._mark = _open_mark(settings) if settings.label_mark is not Mode.OFF or is_named else None
        #: Also where the server's own labels need none: a request may ask for them.
        self.credentials = _open_credentials(settings)

    def check(self, request: RunRequest) -> None:
        """Before anything runs. Raises InvalidOptions for a request that asks for less than is set, or for what this
        server cannot make."""
        labels_of(self._settings, request.labels)

    async def apply(self, live: LiveTask, request: RunRequest, collected: list[Collected]) -> list[Collected]:
        """The outputs with their labels. The record warns of those that could not be given all of them.

        Raises with `node_id` and `filename`: NotLabelled for a label that is enforced, OutputCorrupt for a broken
        picture, of which nobody could say that it carries any.
        """
        labels = labels_of(self._settings, request.labels)
        if not collected or not any(mode.strength for mode in labels):
            return collected
        began = time.monotonic()
        job = _Job(live.id, labels, request, _as_run(live, request))
        try:
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(self._label(job, item)) for item in collected]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        finally:
            job.is_over.set()
        live.add_timing("label", time.monotonic() - began)
        if job.unlabelled:
            live.update(warnings=[*live.record.warnings, *job.warnings()])
        return [done.result() for done in running]

    async def convert(self, data: bytes, convert: Callable[[bytes], bytes]) -> bytes:
        """A picture in another format, made by `convert`, with the labels that it had.

        Raises NotLabelled, PictureTooLarge, and what `convert` raises.
        """
        return await self._gate.run(self._convert_now, data, convert)

    def _convert_now(self, data: bytes, convert: Callable[[bytes], bytes]) -> bytes:
        from agent.labels.credentials import CannotSign  # noqa: PLC0415
        from agent.labels.picture import carry  # noqa: PLC0415
        from agent.safety.picture import TooManyPixels, Unreadable, open_picture  # noqa: PLC0415

        limit = self._settings.max_output_pixels
        try:
            open_picture(data, limit).close()
        except TooManyPixels as exc:
            raise PictureTooLarge(
                f"The picture has {exc}, so it is not converted. Ask for it as it is, or raise "
                "AGENT_MAX_OUTPUT_PIXELS.",
                limit=limit,
            ) from None
        except Unreadable:
            pass  # `convert` says so
        converted = convert(data)
        try:
            return carry(data, converted, self.credentials)
        except CannotSign as exc:
            raise NotLabelled(f"The picture cannot be converted: {exc}.") from None

    async def _label(self, job: _Job, item: Collected) -> Collected:
        found = await self._gate.run(self._label_now, job, item)
        if found is None and item.output.media_type in PICTURES:
            raise _fault(item, "the file is not what its name says", OutputCorrupt)
        missing = job.labels.wanted() if found is None else found.missing
        if missing:
            reason = _say_missing(missing, self._settings.max_output_pixels if found else None)
            if any(getattr(job.labels, name) is Mode.ENFORCE for name in missing):
                raise _fault(item, reason)
            job.unlabelled.append((item, reason))
        if found is None:
            return item
        return Collected(item.output.model_copy(update={"bytes": len(found.data)}), found.data)

    def _label_now(self, job: _Job, item: Collected) -> Labelled | None:
        from agent.labels.container import BrokenPicture, DoesNotFit  # noqa: PLC0415 - only where labels are wanted
        from agent.labels.credentials import CannotSign  # noqa: PLC0415
        from agent.labels.picture import label  # noqa: PLC0415

        try:
            return label(item.data, self._wanted(job, item))
        except BrokenPicture as exc:
            raise _fault(item, str(exc), OutputCorrupt) from None
        except DoesNotFit as exc:
            raise _fault(item, str(exc)) from None
        except CannotSign as exc:  # says what is wrong with the operator's certificate; callers need not know
            log.warning("label.not_signed", task_id=job.task_id, reason=str(exc))
            raise _fault(item, "its content credentials could not be signed") from None
        except Exception as exc:
            if job.is_over.is_set():
                raise  # to nobody
            log.exception("label.failed", task_id=job.task_id, filename=item.output.filename)
            # Drawing reads every pixel: what fails is the picture, as a rule.
            raise _fault(
                item, f"the picture cannot be worked on ({type(exc).__name__})", OutputCorrupt
            ) from None

    def _wanted(self, job: _Job, item: Collected) -> Wanted:
        from agent.labels.aigc import aigc_json  # noqa: PLC0415
        from agent.labels.picture import Wanted, picture_size  # noqa: PLC0415

        labels, settings, output = job.labels, self._settings, item.output
        producer = settings.label_aigc_producer if labels.aigc is not Mode.OFF else None
        text = None
        if labels.parameters is not Mode.OFF and (size := picture_size(item.data)) is not None:
            from agent.labels.parameters import parameters_text  # noqa: PLC0415

            about = output.node_id, size
            if about not in job.parameters:
                job.parameters[about] = parameters_text(job.workflow, *about)
            text = job.parameters[about]
        if labels.mark is not Mode.OFF and self._mark is None:
            self._mark = _open_mark(settings)
        return Wanted(
            iptc=labels.iptc is not Mode.OFF,
            aigc=producer
            and aigc_json(producer, f"{job.task_id}-{output.index}", settings.label_aigc_propagator),
            parameters=text,
            mark=self._mark if labels.mark is not Mode.OFF else None,
            most_pixels=settings.max_output_pixels,
            is_unwanted=job.is_over.is_set,
            credentials=self.credentials if labels.c2pa is not Mode.OFF else None,
            remove_prompt=labels.remove_prompt is not Mode.OFF,
            extra_names=_extra_names(job.request),
            title=output.filename,
        )


@dataclass(slots=True)
class _Job:
    """What the labels of one task are made from, and the files that could not be given all, with the reason."""

    task_id: str
    labels: Labels
    request: RunRequest
    workflow: Workflow
    unlabelled: list[tuple[Collected, str]] = field(default_factory=list)
    #: Node and size -> the generation parameters of its pictures of that size.
    parameters: dict[tuple[str, tuple[int, int]], str | None] = field(default_factory=dict)
    #: Nobody waits for what is still at work in a thread.
    is_over: threading.Event = field(default_factory=threading.Event)

    def warnings(self) -> list[dict[str, object]]:
        """One a node, in the order of the files."""
        by_node: dict[str, list[tuple[Collected, str]]] = {}
        for item, reason in sorted(self.unlabelled, key=lambda found: found[0].output.index):
            by_node.setdefault(item.output.node_id, []).append((item, reason))
        return [
            {"code": NotLabelled.code, "detail": _say(node_id, found), "node_id": node_id}
            for node_id, found in by_node.items()
        ]


def _say(node_id: str, found: list[tuple[Collected, str]]) -> str:
    item, reason = found[0]
    others = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return f'Output file "{item.output.filename}"{others} of node "{node_id}": {reason}.'


def _say_missing(missing: tuple[str, ...] | list[str], most_pixels: int | None) -> str:
    """`most_pixels`: of a picture that is drawn upon; None where the format itself is what is wrong."""
    is_too_large = most_pixels is not None and "mark" in missing
    labels = [WORDS[name] for name in missing if name in WORDS and not (is_too_large and name == "mark")]
    parts = [f"its format has no room for {', '.join(labels)}"] if labels else []
    if is_too_large:
        parts.append(
            f"it has too many pixels for {WORDS['mark']} (AGENT_MAX_OUTPUT_PIXELS: {most_pixels}, and ten times that "
            "for all frames of an animation)"
        )
    if "remove_prompt" in missing:
        parts.append("what ComfyUI wrote into it of the prompt cannot be removed")
    return ", and ".join(parts)


def _fault(item: Collected, reason: str, kind: type[AgentError] = NotLabelled) -> AgentError:
    output = item.output
    return kind(
        f'Output file "{output.filename}" of node "{output.node_id}" cannot be labelled: {reason}.',
        node_id=output.node_id,
        filename=output.filename,
    )


def _as_run(live: LiveTask, request: RunRequest) -> Workflow:
    """The workflow with the seeds that were drawn for it."""
    seeds = live.record.seeds
    drawn = {(node, name): seed for node, found in seeds.items() for name, seed in found.items()}
    return request.workflow.with_inputs(drawn) if drawn else request.workflow


def _extra_names(request: RunRequest) -> tuple[str, ...]:
    """Further names under which ComfyUI was told to write into its files."""
    extra = request.extra_data.get("extra_pnginfo")
    return tuple(extra) if isinstance(extra, dict) else ()


def _open_mark(settings: Settings) -> Mark:
    from agent.labels.mark import Mark, UnusableFont  # noqa: PLC0415 - Pillow

    try:
        return Mark(
            settings.label_mark_text,
            settings.label_mark_font,
            settings.label_mark_height,
            settings.label_mark_corner,
        )
    except UnusableFont as exc:
        raise SettingsError(f"AGENT_LABEL_MARK_TEXT: {exc}") from None


def _open_credentials(settings: Settings) -> Credentials | None:
    if settings.label_c2pa_certificate is None or settings.label_c2pa_key is None:
        return None
    from agent.labels.credentials import CannotSign, Credentials  # noqa: PLC0415 - an extra

    try:
        return Credentials(
            settings.label_c2pa_certificate, settings.label_c2pa_key, settings.label_c2pa_algorithm
        )
    except CannotSign as exc:
        raise SettingsError(f"AGENT_LABEL_C2PA_CERTIFICATE and AGENT_LABEL_C2PA_KEY: {exc}") from None
