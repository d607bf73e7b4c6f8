"""PNG files: a signature, then chunks. Texts are chunks, and so is XMP (an iTXt chunk with a keyword of its own)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import ClassVar, Self

from agent.labels.container import ALL_TEXTS, LONGEST_TEXT, BrokenPicture, Container, check_parts

SIGNATURE = b"\x89PNG\r\n\x1a\n"
XMP_KEYWORD = "XML:com.adobe.xmp"
TEXTS = (b"tEXt", b"zTXt", b"iTXt")

#: Where ComfyUI's SaveAnimatedPNG puts prompt and workflow: a chunk of its own that looks like tEXt.
COMFYUI = b"comf"

#: Content credentials (C2PA specification 2.1, section A.3.1).
CREDENTIALS = b"caBX"

#: Chunks with the picture itself and what it takes to decode it; a re-encoded picture has its own.
PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT", b"sBIT", b"bKGD", b"hIST")

#: Length, kind and checksum around each chunk's body.
AROUND = 12


class PngFile(Container):
    """The chunks of a PNG or APNG file in their order."""

    media_type: ClassVar[str] = "image/png"

    def __init__(self, chunks: list[memoryview], rest: memoryview) -> None:
        self.chunks, self._rest = chunks, rest

    @classmethod
    def parse(cls, data: bytes) -> Self:
        view = memoryview(data)
        if view[:8] != SIGNATURE:
            raise BrokenPicture("it does not begin as a PNG")
        chunks: list[memoryview] = []
        at = len(SIGNATURE)
        while not chunks or _kind(chunks[-1]) != b"IEND":
            if len(view) - at < AROUND:
                raise BrokenPicture("the PNG ends too early")
            end = at + AROUND + int.from_bytes(view[at : at + 4])
            if end > len(view):
                raise BrokenPicture("the PNG ends within a chunk")
            chunks.append(view[at:end])
            check_parts(len(chunks))
            at = end
        if _kind(chunks[0]) != b"IHDR" or len(chunks[0]) != AROUND + 13:
            raise BrokenPicture("the PNG has no header")
        if not any(_kind(chunk) == b"IDAT" for chunk in chunks):
            raise BrokenPicture("the PNG has no picture")
        return cls(chunks, view[at:])

    def chunk(self, kind: bytes) -> bytes:
        """The first chunk of a kind, of which there is one, with its length and checksum."""
        return bytes(next(chunk for chunk in self.chunks if _kind(chunk) == kind))

    def bodies(self, kind: bytes) -> Iterator[bytes]:
        """The bodies of all chunks of a kind."""
        return (bytes(_body(chunk)) for chunk in self.chunks if _kind(chunk) == kind)

    @property
    def size(self) -> tuple[int, int]:
        width, height = struct.unpack_from(">II", self.chunks[0], 8)
        return width, height

    @property
    def xmp(self) -> bytes | None:
        found = self.text(XMP_KEYWORD)
        return None if found is None else found.encode()

    def set_xmp(self, packet: bytes) -> None:
        self._remove_keyword(XMP_KEYWORD)
        self._insert(b"iTXt", XMP_KEYWORD.encode() + b"\0\0\0\0\0" + packet)

    @property
    def exif(self) -> bytes | None:
        return next((bytes(_body(chunk)) for chunk in self.chunks if _kind(chunk) == b"eXIf"), None)

    def set_exif(self, tiff: bytes | None) -> None:
        self._keep(lambda chunk: _kind(chunk) != b"eXIf")
        if tiff is not None:
            self._insert(b"eXIf", tiff)

    @property
    def has_credentials(self) -> bool:
        return any(_kind(chunk) == CREDENTIALS for chunk in self.chunks)

    def remove_credentials(self) -> None:
        self._keep(lambda chunk: _kind(chunk) != CREDENTIALS)

    def text(self, keyword: str) -> str | None:
        """The first text with this keyword."""
        return next((text() for _, found, text in self._texts() if found == keyword), None)

    def set_text(self, keyword: str, text: str) -> None:
        """Write or replace a text, as tEXt where that has all of its characters."""
        self._remove_keyword(keyword)
        text = text.replace("\0", "")
        try:
            self._insert(b"tEXt", keyword.encode("latin-1") + b"\0" + text.encode("latin-1"))
        except UnicodeEncodeError:
            self._insert(b"iTXt", keyword.encode("latin-1") + b"\0\0\0\0\0" + text.encode(errors="replace"))

    def remove_texts(self, is_unwanted: Callable[[str, str], bool]) -> None:
        unwanted: set[int] = set()
        left = ALL_TEXTS
        for index, keyword, text in self._texts():
            if keyword == XMP_KEYWORD:
                continue
            found = text() if left > 0 else ""
            left -= len(found)
            if left <= 0 or is_unwanted(keyword, found):  # what nobody has read may be one of them
                unwanted.add(index)
        kept = [chunk for index, chunk in enumerate(self.chunks) if index not in unwanted]
        self.chunks = [chunk for chunk in kept if _kind(chunk) != COMFYUI]

    def adopt(self, other: Self) -> None:
        told = [chunk for chunk in other.chunks if _kind(chunk) not in PIXELS]
        header, *pixels = [chunk for chunk in self.chunks if _kind(chunk) in PIXELS]
        self.chunks = [header, *told, *pixels]

    def to_bytes(self) -> bytes:
        return b"".join((SIGNATURE, *self.chunks, self._rest))

    def _insert(self, kind: bytes, body: bytes) -> None:
        """Put a chunk after the header."""
        self.chunks.insert(1, memoryview(to_chunk(kind, body)))

    def _remove_keyword(self, keyword: str) -> None:
        unwanted = {index for index, found, _ in self._texts() if found == keyword}
        self.chunks = [chunk for index, chunk in enumerate(self.chunks) if index not in unwanted]

    def _keep(self, is_kept: Callable[[memoryview], bool]) -> None:
        self.chunks = [chunk for chunk in self.chunks if is_kept(chunk)]

    def _texts(self) -> Iterator[tuple[int, str, Callable[[], str]]]:
        """Place and keyword of each text, and what unpacks it."""
        for index, chunk in enumerate(self.chunks):
            if (kind := _kind(chunk)) in TEXTS:
                body = bytes(_body(chunk))
                keyword, _, value = body.partition(b"\0")
                yield index, keyword.decode("latin-1"), partial(_text, kind, value)


def to_chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk with its length and checksum."""
    return b"".join((len(body).to_bytes(4), kind, body, zlib.crc32(body, zlib.crc32(kind)).to_bytes(4)))


def _kind(chunk: memoryview) -> bytes:
    return bytes(chunk[4:8])


def _body(chunk: memoryview) -> memoryview:
    return chunk[8:-4]


def _text(kind: bytes, value: bytes) -> str:
    """The text of what follows the keyword; empty where it makes no sense."""
    if kind == b"tEXt":
        return value.decode("latin-1")
    if kind == b"zTXt":
        return _unpack(value[1:]).decode("latin-1")
    is_packed, (_language, _, rest) = value[:1] == b"\1", value[2:].partition(b"\0")
    packed = rest.partition(b"\0")[2]
    return (_unpack(packed) if is_packed else packed).decode(errors="replace")


def _unpack(packed: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(packed, LONGEST_TEXT)
    except zlib.error:
        return b""
