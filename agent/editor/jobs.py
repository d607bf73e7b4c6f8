"""Prompts as ComfyUI's /api/jobs tells of them, which its editor reads in place of /queue and /history since ComfyUI
0.6.0. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from agent.editor.desk import Prompt
from agent.editor.messages import end_status
from agent.tasks.record import State

STATUSES = {
    State.QUEUED: "pending",
    State.RUNNING: "in_progress",
    State.SUCCEEDED: "completed",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
}

#: Kinds of outputs that the editor can show.
SHOWN = ("images", "video", "audio", "3d")

#: A text that is shown for a job is cut after so many characters.
TEXT_LENGTH = 1024


class Order(StrEnum):
    """What jobs are sorted by."""

    CREATED = "created_at"
    DURATION = "execution_duration"


@dataclass(frozen=True, slots=True)
class Asked:
    """What GET /api/jobs is asked for. `most`: so many after the first `offset`; None: all of them."""

    statuses: frozenset[str] = frozenset(STATUSES.values())
    workflow_id: str | None = None
    order: Order = Order.CREATED
    is_ascending: bool = False
    most: int | None = None
    offset: int = 0


def listed(prompts: Iterable[Prompt], asked: Asked) -> dict[str, Any]:
    """The jobs that are asked for, and how many there are of them on all pages."""
    found = [describe(prompt) for prompt in prompts if STATUSES[prompt.record.state] in asked.statuses]
    if asked.workflow_id:
        found = [job for job in found if job.get("workflow_id") == asked.workflow_id]
    found.sort(key=_duration if asked.order is Order.DURATION else _created, reverse=not asked.is_ascending)
    page = found[asked.offset :][: asked.most]
    pagination = {
        "offset": asked.offset,
        "limit": asked.most,
        "total": len(found),
        "has_more": asked.offset + len(page) < len(found),
    }
    return {"jobs": page, "pagination": pagination}


def describe(prompt: Prompt, *, whole: bool = False) -> dict[str, Any]:
    """One job; times are milliseconds. `whole`: one that is over with its outputs, events and workflow."""
    record = prompt.record
    extra = prompt.extra()
    is_over = record.state.is_final
    outputs = prompt.outputs() if record.state is State.SUCCEEDED else {}
    files = list(_files(outputs))
    told = {
        "id": prompt.id,
        "status": STATUSES[record.state],
        "priority": prompt.number,
        "create_time": prompt.created_ms,
        "execution_start_time": _milliseconds(record.started_at) if is_over else None,
        "execution_end_time": _milliseconds(record.finished_at),
        "execution_error": end_status(record)[1] if record.state is State.FAILED else None,
        "outputs_count": len(files),
        "previewable_outputs_count": sum(file["mediaType"] in SHOWN for file in files),
        "preview_output": _preview(outputs, files),
        "workflow_id": _workflow_id(extra),
    }
    told = {name: value for name, value in told.items() if value is not None}
    if whole and is_over:
        told["outputs"] = outputs
        told["execution_status"] = prompt.as_history()["status"]
        told["workflow"] = {"prompt": prompt.request.workflow.graph, "extra_data": extra}
    return told


def _files(outputs: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Every file of these outputs, with its node and kind."""
    for node, given in outputs.items():
        for kind, items in given.items():
            if isinstance(items, list):
                for item in items:
                    if isinstance(item, dict):
                        yield {"mediaType": kind, **item, "nodeId": node}


def _preview(outputs: dict[str, dict[str, Any]], files: list[dict[str, Any]]) -> dict[str, Any] | None:
    """What stands for the whole job: a saved file if there is one, else a temporary one, else a text."""
    shown = [file for file in files if file["mediaType"] in SHOWN]
    if shown:
        return next((file for file in shown if file.get("type") == "output"), shown[0])
    for node, given in outputs.items():
        for text in given.get("text") or ():
            content = str(text)
            cut = {"truncated": True} if len(content) > TEXT_LENGTH else {}
            return {"content": content[:TEXT_LENGTH], **cut, "nodeId": node, "mediaType": "text"}
    return None


def _workflow_id(extra: dict[str, Any]) -> str | None:
    """The id that the editor gave to the workflow, which may be anything."""
    found: Any = extra
    for name in ("extra_pnginfo", "workflow", "id"):
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, str) else None


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1000)


def _created(job: dict[str, Any]) -> int:
    created: int = job["create_time"]
    return created


def _duration(job: dict[str, Any]) -> int:
    begin, end = job.get("execution_start_time"), job.get("execution_end_time")
    return end - begin if begin and end else 0
