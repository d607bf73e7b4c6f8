"""Bodies of multipart/form-data, as browsers and curl send them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from aiohttp import BodyPartReader, hdrs, web

from agent.api.keys import SETTINGS
from agent.api.parse import reading
from agent.errors import InvalidRequest

#: A form has as many fields as a workflow has parameters; nothing real comes near this.
MOST_FIELDS = 500

#: What aiohttp raises for a body that is no form, or whose parts are encoded in a way of their own.
MALFORMED = (ValueError, RuntimeError, LookupError, AssertionError)


@dataclass(frozen=True, slots=True)
class File:
    """A file that was sent in a field. `media_type` and `filename` are what its sender calls it."""

    data: bytes = field(repr=False)
    media_type: str
    filename: str


class Field(NamedTuple):
    """One field: a text, or a file."""

    name: str
    value: str | File


def is_form(request: web.Request) -> bool:
    return request.content_type == "multipart/form-data"


async def read_form(request: web.Request) -> list[Field]:
    """The fields in their order. A file field that nobody chose a file for is left out.

    Raises BodyTooLarge, BodyTooSlow, InvalidRequest.
    """
    if hdrs.CONTENT_ENCODING in request.headers:
        raise InvalidRequest("A form is sent as it is, without a Content-Encoding.")
    fields: list[Field] = []
    room = request.app[SETTINGS].max_body_bytes
    try:
        async with reading(request):
            parts = await request.multipart()
            while (part := await parts.next()) is not None:
                if not isinstance(part, BodyPartReader) or part.name is None:
                    raise InvalidRequest("Each part of the form needs a name.")
                if len(fields) == MOST_FIELDS:
                    raise InvalidRequest(f"The form has more than {MOST_FIELDS} fields.")
                data = bytes(await part.read(decode=True))
                room -= len(data)
                if room < 0:
                    raise web.HTTPRequestEntityTooLarge(request.app[SETTINGS].max_body_bytes, len(data))
                if part.filename is None:
                    fields.append(Field(part.name, data.decode()))
                elif data or part.filename:
                    fields.append(
                        Field(part.name, File(data, part.headers.get("Content-Type", ""), part.filename))
                    )
    except MALFORMED as exc:
        raise InvalidRequest(f"The body is not a form of its Content-Type: {str(exc)[:200]}.") from None
    return fields
