"""WebP files: a RIFF list of chunks. A simple file holds one chunk with the picture; one that tells anything of itself
begins with VP8X, whose flags say what follows."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Self

from agent.labels.container import BrokenPicture, Container, check_parts

HAS_ICC, HAS_ALPHA, HAS_EXIF, HAS_XMP, IS_ANIMATED = 0x20, 0x10, 0x08, 0x04, 0x02

#: Some writers put this before EXIF data here too, as JPEG has it.
EXIF_PREFIX = b"Exif\0\0"

CREDENTIALS = b"C2PA"

#: Chunks that tell of the picture; all others are the picture.
TOLD = (b"EXIF", b"XMP ", b"ICCP", CREDENTIALS)

#: Chunks with the picture itself.
PIXELS = (b"VP8 ", b"VP8L", b"ANMF")

#: Keyframes of VP8 begin so, after three bytes.
VP8_START = b"\x9d\x01\x2a"

Chunk = tuple[bytes, memoryview]


class WebpFile(Container):
    """The chunks of a WebP file in their order; kind and body of each."""

    media_type: ClassVar[str] = "image/webp"

    def __init__(self, chunks: list[Chunk]) -> None:
        self.chunks = chunks

    @classmethod
    def parse(cls, data: bytes) -> Self:
        view = memoryview(data)
        if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
            raise BrokenPicture("it does not begin as a WebP")
        # What stands behind the list belongs to nobody.
        end = 8 + int.from_bytes(view[4:8], "little")
        if end > len(view):
            raise BrokenPicture("the WebP ends too early")
        chunks: list[Chunk] = []
        at = 12
        while end - at >= 8:
            length = int.from_bytes(view[at + 4 : at + 8], "little")
            if at + 8 + length > end:
                raise BrokenPicture("the WebP ends within a chunk")
            check_parts(len(chunks))
            chunks.append((bytes(view[at : at + 4]), view[at + 8 : at + 8 + length]))
            at += 8 + length + length % 2
        found = cls(chunks)
        if 0 in found.size or not any(kind in PIXELS for kind, _ in chunks):
            raise BrokenPicture("the WebP has no picture")
        return found

    @property
    def size(self) -> tuple[int, int]:
        kind, body = self.chunks[0] if self.chunks else (b"", memoryview(b""))
        if kind == b"VP8X" and len(body) >= 10:
            return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
        if kind == b"VP8 " and len(body) >= 10 and body[3:6] == VP8_START:
            width, height = int.from_bytes(body[6:8], "little"), int.from_bytes(body[8:10], "little")
            return width & 0x3FFF, height & 0x3FFF
        if kind == b"VP8L" and len(body) >= 5 and body[0] == 0x2F:
            bits = int.from_bytes(body[1:5], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        raise BrokenPicture("the WebP has no picture")

    @property
    def xmp(self) -> bytes | None:
        return self.find(b"XMP ")

    def set_xmp(self, packet: bytes) -> None:
        self._set(b"XMP ", packet, HAS_XMP)

    @property
    def exif(self) -> bytes | None:
        found = self.find(b"EXIF")
        return None if found is None else found.removeprefix(EXIF_PREFIX)

    def set_exif(self, tiff: bytes | None) -> None:
        self._set(b"EXIF", tiff, HAS_EXIF)

    @property
    def has_credentials(self) -> bool:
        return self.find(CREDENTIALS) is not None

    def remove_credentials(self) -> None:
        self.chunks = [chunk for chunk in self.chunks if chunk[0] != CREDENTIALS]

    def remove_texts(self, is_unwanted: Callable[[str, str], bool]) -> None:
        """WebP has none."""

    def adopt(self, other: Self) -> None:
        self.chunks = [chunk for chunk in self.chunks if chunk[0] not in TOLD]
        self._extend()
        for kind, flag in ((b"EXIF", HAS_EXIF), (b"XMP ", HAS_XMP)):
            self._set(kind, other.find(kind), flag)
        profile = other.find(b"ICCP")
        self._flag(HAS_ICC, is_on=profile is not None)
        if profile is not None:
            self.chunks.insert(1, (b"ICCP", memoryview(profile)))

    def to_bytes(self) -> bytes:
        parts: list[bytes | memoryview] = []
        size = 4
        for kind, body in self.chunks:
            padding = b"\0" * (len(body) % 2)
            parts += (kind, len(body).to_bytes(4, "little"), body, padding)
            size += 8 + len(body) + len(padding)
        return b"".join((b"RIFF", size.to_bytes(4, "little"), b"WEBP", *parts))

    def find(self, kind: bytes) -> bytes | None:
        """The body of the first chunk of a kind."""
        return next((bytes(body) for found, body in self.chunks if found == kind), None)

    def _set(self, kind: bytes, body: bytes | None, flag: int) -> None:
        self.chunks = [chunk for chunk in self.chunks if chunk[0] != kind]
        if body is not None:
            self._extend()
            # EXIF comes before XMP, and both behind the picture.
            at = next((i for i, c in enumerate(self.chunks) if c[0] == b"XMP "), len(self.chunks))
            self.chunks.insert(at if kind == b"EXIF" else len(self.chunks), (kind, memoryview(body)))
        if self.chunks[0][0] == b"VP8X":
            self._flag(flag, is_on=body is not None)

    def _extend(self) -> None:
        """Give a simple file the header that says what else there is."""
        kind, body = self.chunks[0]
        if kind == b"VP8X":
            return
        width, height = self.size
        has_alpha = kind == b"VP8L" and bool(body[4] & 0x10)
        header = bytes((HAS_ALPHA if has_alpha else 0, 0, 0, 0))
        canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        self.chunks.insert(0, (b"VP8X", memoryview(header + canvas)))

    def _flag(self, flag: int, *, is_on: bool) -> None:
        body = bytearray(self.chunks[0][1])
        body[0] = body[0] | flag if is_on else body[0] & ~flag
        self.chunks[0] = (b"VP8X", memoryview(body))
