"""The pictures of a result, and the answer with the first one where the caller's `Accept` asks for it."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from functools import partial
from typing import Any

import pybase64
from aiohttp import web
from pydantic_core import from_json

from agent.api.response import Response
from agent.errors import AgentError, AnswerTooLarge, NoPicture, PictureTypeUnknown
from agent.labels.labeller import Labeller
from agent.outputs.collect import media_type_of
from agent.service import Delivery, Forwarded
from agent.tasks.board import TaskBoard
from agent.tasks.record import Output, TaskRecord

JSON = "application/json"

#: What a picture can be answered as, and Pillow's name for it.
FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}

#: Any picture: as it was made, where that is one of FORMATS.
ANY_PICTURE = "image/*"

#: Parameters of the lossy formats. WebP's default method takes twice as long for a few percent.
ENCODING: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 92},
    "WEBP": {"quality": 92, "method": 2},
    "PNG": {},
}

LONGEST_ACCEPT = 2000


def preferred_type(accept: Sequence[str]) -> str:
    """What to answer with: JSON, a type of FORMATS, or ANY_PICTURE. `accept`: the headers of that name.

    The largest q counts, then what is named more exactly, then what comes first. `*/*` means JSON, and so does a header
    that names neither JSON nor pictures. Raises PictureTypeUnknown for one that wants a picture of another type.
    """
    best, chosen = (0.0, 0), JSON
    strange = ""
    for part in ",".join(accept)[:LONGEST_ACCEPT].split(","):
        media_type, *parameters = (word.strip().lower() for word in part.split(";"))
        if media_type in (JSON, "*/*", "application/*"):
            found = JSON
        elif media_type in FORMATS or media_type == ANY_PICTURE:
            found = media_type
        else:
            if media_type.startswith("image/") and _quality(parameters) > 0:
                strange = strange or media_type
            continue
        rank = (_quality(parameters), 2 - media_type.count("*"))
        if rank[0] > 0 and rank > best:
            best, chosen = rank, found
    if strange and not best[0]:
        raise PictureTypeUnknown
    return chosen


async def picture_response(
    board: TaskBoard, labeller: Labeller, delivery: Delivery | Forwarded, nodes: Sequence[str], wanted: str
) -> web.Response:
    """The first picture of these nodes (none: of all), as `wanted` of `preferred_type` says, with its labels. One that
    lies in the object store is answered with a redirect to it, as it is.

    Raises NoPicture, NotLabelled, PictureTooLarge, AnswerTooLarge.
    """
    media_type, found = await _first_picture(board, delivery, nodes)
    headers = {"Vary": "Accept", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    if isinstance(found, str):
        return web.Response(status=303, headers={**headers, "Location": found})
    if wanted == ANY_PICTURE:
        wanted = media_type if media_type in FORMATS else "image/png"
    if media_type != wanted:
        try:
            found = await labeller.convert(found, partial(convert, kind=FORMATS[wanted]))
        except AgentError as error:
            error.task_id = delivery.task_id
            raise
        except Exception as exc:  # Pillow raises whatever it meets in a picture that it does not know
            raise NoPicture(
                f"The first picture is {media_type}, and cannot be answered as {wanted}.",
                task_id=delivery.task_id,
            ) from exc
    if board.answer_limit is not None and len(found) > board.answer_limit:
        raise AnswerTooLarge(limit=board.answer_limit, task_id=delivery.task_id)
    return Response(body=found, content_type=wanted, headers=headers)


def convert(data: bytes, kind: str, quality: int | None = None) -> bytes:
    """The picture in another format; of an animation its first frame. Where the format has no transparency, what is
    transparent becomes white. `quality` is that of the lossy formats, 0 to 100. Takes a while. Raises Unreadable."""
    from PIL import Image  # noqa: PLC0415 - keeps the start of the process light

    from agent.safety.picture import open_picture  # noqa: PLC0415

    with open_picture(data) as picture:
        profile = picture.info.get("icc_profile")
        shown: Image.Image = picture
        if kind == "JPEG":
            if picture.has_transparency_data:
                layer = picture.convert("RGBA")
                shown = Image.new("RGBA", layer.size, "white")
                shown.alpha_composite(layer)
            shown = shown.convert("RGB")
        elif picture.mode not in ("RGB", "RGBA"):
            shown = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
        out = io.BytesIO()
        encoding = ENCODING[kind]
        if quality is not None and "quality" in encoding:
            encoding = {**encoding, "quality": quality}
        shown.save(out, kind, icc_profile=profile, **encoding)
    return out.getvalue()


async def _first_picture(
    board: TaskBoard, delivery: Delivery | Forwarded, nodes: Sequence[str]
) -> tuple[str, bytes | str]:
    """Its media type, and its bytes or where they are."""
    if isinstance(delivery, Forwarded):
        if (found := await asyncio.to_thread(_first_in_body, delivery.body, nodes)) is not None:
            return found
        delivery = Delivery(await board.get(delivery.task_id), [])
    chosen = chosen_pictures(delivery.record, nodes)
    if not chosen:
        raise NoPicture(task_id=delivery.task_id)
    first = chosen[0]
    data = delivery.outputs[first.index] if delivery.outputs else None
    if data is not None:
        return first.media_type, data
    try:
        return first.media_type, (await board.output(delivery.task_id, first.index))[1]
    except AgentError as error:
        error.task_id = delivery.task_id
        raise


def chosen_pictures(record: TaskRecord, nodes: Sequence[str]) -> list[Output]:
    """The pictures that a task has made, in the order of these nodes (none: of all)."""
    outputs = [output for output in record.outputs if output.media_type.startswith("image/")]
    return [o for node in nodes for o in outputs if o.node_id == node] if nodes else outputs


def pictures_in_body(body: bytes, nodes: Sequence[str]) -> list[tuple[str, str]] | None:
    """Media type and base64 of the pictures in another agent's progress map, in the order of these nodes (none: of
    all); None where they are not there. Takes a while."""
    progress = from_json(body)
    found = []
    for node in nodes or progress:
        entry = progress.get(node, {})
        images, results = entry.get("images") or [], entry.get("results") or []
        if len(images) != len(results):
            return None
        for image, result in zip(images, results, strict=True):
            media_type = media_type_of(image["filename"])
            if media_type.startswith("image/"):
                found.append((media_type, result))
    return found


def _first_in_body(body: bytes, nodes: Sequence[str]) -> tuple[str, bytes] | None:
    found = pictures_in_body(body, nodes)
    return (found[0][0], pybase64.b64decode(found[0][1])) if found else None


def _quality(parameters: list[str]) -> float:
    """The weight of a media range; 1 where it has none, 0 where it makes no sense."""
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                quality = float(value)
            except ValueError:
                return 0.0
            return quality if 0 <= quality <= 1 else 0.0
    return 1.0
