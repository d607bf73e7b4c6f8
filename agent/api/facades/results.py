"""From a task's result to what facades answer with: its pictures and its texts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pybase64
from aiohttp import web
from pydantic_core import from_json

from agent.api.keys import BOARD, LABELLER
from agent.api.picture import FORMATS, chosen_pictures, convert, pictures_in_body
from agent.api.render import progress_map
from agent.errors import AgentError, AnswerTooLarge, InvalidModel, StoreUnavailable
from agent.service import Delivery, Forwarded
from agent.tasks.board import TaskBoard
from agent.tasks.record import Output


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a result: its bytes, or the signed URL of the object store where it lies."""

    media_type: str
    content: bytes | str = field(repr=False)


async def texts_of(nodes: Sequence[str], delivery: Delivery | Forwarded) -> list[str]:
    """The texts that these nodes put out (none: all), in their order. Raises InvalidModel where there are none."""
    progress = await _progress(delivery)
    texts = [text for node in nodes or progress for text in progress.get(node, {}).get("text") or []]
    if not texts:
        raise InvalidModel("The workflow of this model has put out no text.")
    return texts


async def pictures_of(
    app: web.Application, nodes: Sequence[str], delivery: Delivery | Forwarded
) -> list[Picture]:
    """The pictures that these nodes put out (none: all), in their order. One that was too large to be answered with its
    bytes has a URL, if the object store has it.

    Raises InvalidModel where there are none, and what the store raises.
    """
    found = await _pictures(app[BOARD], nodes, delivery)
    if not found:
        raise InvalidModel("The workflow of this model has made no picture.")
    return found


async def links_of(app: web.Application, nodes: Sequence[str], delivery: Delivery | Forwarded) -> list[str]:
    """Where the pictures of these nodes (none: of all) can be fetched: signed URLs of the object store, or paths of
    this server. Raises InvalidModel where there are none, StoreUnavailable."""
    if not delivery.is_kept:
        raise StoreUnavailable(task_id=delivery.task_id)
    board = app[BOARD]
    record = delivery.record if isinstance(delivery, Delivery) else await board.get(delivery.task_id)
    links = await board.links(record)
    found = [links.get(output.index, output.url) for output in chosen_pictures(record, nodes)]
    if not found:
        raise InvalidModel("The workflow of this model has made no picture.")
    return found


async def as_bytes(
    app: web.Application, picture: Picture, media_type: str, *, quality: int | None = None
) -> bytes:
    """The picture in the format of this type, one of FORMATS, with its labels. `quality` is that of the lossy ones, 0
    to 100. Raises InvalidModel, NotLabelled, PictureTooLarge, AnswerTooLarge."""
    if isinstance(picture.content, str):
        raise AnswerTooLarge("The picture is too large for an answer, and lies in the object store.")
    if picture.media_type == media_type and (quality is None or media_type == "image/png"):
        return picture.content
    how = partial(convert, kind=FORMATS[media_type], quality=quality)
    try:
        return await app[LABELLER].convert(picture.content, how)
    except AgentError:
        raise
    except Exception as exc:  # Pillow raises whatever it meets in a picture that it does not know
        raise InvalidModel(
            f"The picture of this model is {picture.media_type}, and cannot be answered as {media_type}."
        ) from exc


def check_size(app: web.Application, size: int) -> None:
    """Raises AnswerTooLarge for an answer of so many bytes that a platform would cut off."""
    limit = app[BOARD].answer_limit
    if limit is not None and size > limit:
        raise AnswerTooLarge(limit=limit)


async def _pictures(board: TaskBoard, nodes: Sequence[str], delivery: Delivery | Forwarded) -> list[Picture]:
    if isinstance(delivery, Forwarded):
        if (found := await asyncio.to_thread(_in_body, delivery.body, nodes)) is not None:
            return found
        delivery = Delivery(await board.get(delivery.task_id), [])
    return [await _picture(board, delivery, output) for output in chosen_pictures(delivery.record, nodes)]


async def _picture(board: TaskBoard, delivery: Delivery, output: Output) -> Picture:
    data = delivery.outputs[output.index] if delivery.outputs else None
    if data is None:
        data_or_url = (await board.output(delivery.task_id, output.index))[1]
        return Picture(output.media_type, data_or_url)
    return Picture(output.media_type, data)


def _in_body(body: bytes, nodes: Sequence[str]) -> list[Picture] | None:
    found = pictures_in_body(body, nodes)
    if found is None:
        return None
    return [Picture(media_type, pybase64.b64decode(data)) for media_type, data in found]


async def _progress(delivery: Delivery | Forwarded) -> dict[str, dict[str, Any]]:
    """The progress map as JSON data."""
    if isinstance(delivery, Forwarded):
        found: dict[str, dict[str, Any]] = await asyncio.to_thread(from_json, delivery.body)
        return found
    return progress_map(delivery.record)
