"""A JSON body with large files in it as base64, encoded piece by piece as it is sent: neither the text of a file nor
the whole body is ever in memory."""

from __future__ import annotations

import re
import uuid
from typing import Any

import pybase64
from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload
from pydantic_core import to_json

from agent.api.response import Response
from agent.outputs.size import base64_bytes

#: Bytes encoded at once: a multiple of three, so that the texts of the pieces make one text.
PIECE_BYTES = 192 * 1024


#: Stands in JSON data for a file, with the file's number. It is never sent, so nobody can send it to us either.
_WORD = uuid.uuid4().hex
_NUMBERED_WORD = re.compile(rb"%b(\d+);" % _WORD.encode())


class Files:
    """Stands in JSON data for files, each by a word that occurs nowhere else in it."""

    def __init__(self) -> None:
        self._files: list[bytes] = []

    def add(self, data: bytes) -> str:
        """What to put into the data where the file's base64 shall be."""
        self._files.append(data)
        return f"{_WORD}{len(self._files) - 1};"

    def body(self, data: Any) -> InPieces:
        """The JSON of `data`."""
        texts = _NUMBERED_WORD.split(to_json(data))
        return InPieces(texts[::2], [self._files[int(number)] for number in texts[1::2]])


class InPieces(Payload):
    """Texts with files between them: one text more than files. It is written once, and lets go of each file then."""

    def __init__(self, texts: list[bytes], files: list[bytes]) -> None:
        super().__init__(None, content_type="application/json")
        self._texts, self._files = texts, files
        self._length = sum(map(len, texts)) + sum(base64_bytes(len(data)) for data in files)

    @property
    def size(self) -> int:
        return self._length

    def response(self) -> web.Response:
        """The answer with this body; a small one goes out at once."""
        if self.size <= PIECE_BYTES:
            return Response(body=bytes(self), content_type="application/json")
        return Response(body=self, headers={hdrs.CONTENT_LENGTH: str(self.size)})

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return bytes(self).decode(encoding, errors)

    def __bytes__(self) -> bytes:
        encoded = [*map(pybase64.b64encode, self._files), b""]
        return b"".join(part for pair in zip(self._texts, encoded, strict=True) for part in pair)

    async def write(self, writer: AbstractStreamWriter) -> None:
        last = len(self._files)
        for number, text in enumerate(self._texts):
            await writer.write(text)
            if number < last:
                file, self._files[number] = self._files[number], b""
                for begin in range(0, len(file), PIECE_BYTES):
                    await writer.write(pybase64.b64encode(memoryview(file)[begin : begin + PIECE_BYTES]))
